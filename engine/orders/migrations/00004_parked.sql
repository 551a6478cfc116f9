-- Why: an order of an older epoch has to be taken again through the stock script,
-- and while its sale is frozen or Redis is away it cannot be. Held in the worker it
-- kept its queue's consumer full, and with it every other sale of that queue. Here it
-- is as safe as in the queue, costs one row per envelope, and waits for nobody.

-- +goose Up
CREATE TABLE parked (
	id      bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	sale_no integer     NOT NULL,
	n       integer     NOT NULL, -- orders in it
	due_at  timestamptz NOT NULL DEFAULT now(),
	body    bytea       NOT NULL -- engine.Envelope
);
CREATE INDEX parked_due ON parked (sale_no, due_at);
