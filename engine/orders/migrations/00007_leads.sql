-- Why: a session lock binds the lead of a sale to a connection, and a process
-- that is stopped, or cut off, keeps its connection for as long as nobody looks.
-- So a lead has an end by PostgreSQL's clock: a process that leads renews one
-- row, whatever the number of its sales. Who takes a lead over raises the sale's
-- number, and every transaction of a leader compares it.

-- +goose Up
CREATE TABLE leaders (
	name  text        COLLATE "C" PRIMARY KEY,
	until timestamptz NOT NULL -- its leads are free from then on
);

-- One row per sale that somebody must look after: not of settled ones.
CREATE TABLE leads (
	sale_no integer NOT NULL PRIMARY KEY REFERENCES sales (no),
	number  bigint  NOT NULL DEFAULT 0, -- the fence: raised when the lead changes hands
	leader  text    COLLATE "C" NOT NULL DEFAULT ''
);
INSERT INTO leads (sale_no) SELECT no FROM sales WHERE state <> 'settled';

ALTER TABLE sales ADD COLUMN state_at timestamptz NOT NULL DEFAULT now(); -- since when it is of its state
ALTER TABLE sales ADD COLUMN pruned   boolean     NOT NULL DEFAULT false; -- of orders that ended, rows that told it are gone

-- Of the rows that an order's end is told by (op 0), those done: what is pruned.
CREATE INDEX moves_told ON moves (sale_no) WHERE done AND op = 0;
-- An order that is met again after its end has one such row of its own, with its
-- hold, however often it comes; the rows of batches have none.
CREATE UNIQUE INDEX moves_again ON moves ((orders[1]), hold_epoch, hold_seq) WHERE op = 0 AND hold_seq > 0;
