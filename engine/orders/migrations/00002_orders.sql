-- Why: every accepted order, the limits it was judged by, and what is due next.
--
-- The product's figure is 15,000 orders a second to their end beside everything
-- else on two cores, so an order costs one insert and one update here, and the
-- update is HOT: no index knows a column that changes (state, due_at, …), and a
-- page is filled by half, so that the new version fits beside the old. Measured
-- per order (PostgreSQL 15, two cores): with a partial index over what is due,
-- insert, claim and end took 42 µs and 1.5 kB of WAL; without it, claimed at
-- ingest, 15 µs and 0.65 kB. What is due therefore stands in a table of its own,
-- one row for a batch of orders. No foreign key: it would lock the sale's row
-- once per order.

-- +goose Up
CREATE TABLE orders (
	sale_no     integer     NOT NULL,
	state       smallint    NOT NULL CHECK (state BETWEEN 1 AND 4),
	reason      smallint    NOT NULL DEFAULT 0,
	attempt     smallint    NOT NULL DEFAULT 0,
	stray       boolean     NOT NULL DEFAULT false, -- its hold's number is not its own: refused when taken again, or a fork
	returned    boolean     NOT NULL DEFAULT false, -- confirmed, and came back
	wished      boolean     NOT NULL DEFAULT false, -- the buyer asked to cancel while it was paying
	hold_epoch  bigint      NOT NULL,
	hold_seq    bigint      NOT NULL,
	body        bigint      NOT NULL, -- 64 bits, as signed
	total       bigint      NOT NULL CHECK (total >= 0),
	limit_buyer    bigint   NOT NULL,
	limit_identity bigint   NOT NULL,
	accepted_at timestamptz NOT NULL, -- by Redis' clock
	ingested_at timestamptz NOT NULL DEFAULT now(),
	due_at      timestamptz,          -- reserved: deadline, or at once; paying: next try; else null
	finished_at timestamptz,
	id          text        COLLATE "C" NOT NULL PRIMARY KEY,
	buyer       text        COLLATE "C" NOT NULL,
	identities  text        COLLATE "C" NOT NULL, -- as engine.AppendIdentities
	lines       text        COLLATE "C" NOT NULL  -- as engine.AppendLines
) WITH (fillfactor = 50);

-- (sale, epoch, seq) names one order: who comes second lost the number.
CREATE UNIQUE INDEX orders_hold ON orders (sale_no, hold_epoch, hold_seq) WHERE NOT stray;
CREATE INDEX orders_buyer ON orders (sale_no, buyer);

-- Used units per buyer and identity: a guarded counter, never a sum. key is
-- 'b:' and the buyer or 'i:' and 16 hex digits. allowed is only how the upsert
-- carries the limit it tests: each order is judged by its own.
CREATE TABLE counters (
	sale_no integer NOT NULL,
	used    bigint  NOT NULL CONSTRAINT counters_not_negative CHECK (used >= 0),
	allowed bigint  NOT NULL,
	key     text    COLLATE "C" NOT NULL,
	PRIMARY KEY (sale_no, key)
) WITH (fillfactor = 80);

-- What is due: whoever sets an open order's due_at writes a row here for the
-- same time, and takes the row away that brought him. So each open order stands
-- in a row that is due no later than it is. kind: 1 pay, 2 deadline.
CREATE TABLE work (
	id      bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	sale_no integer     NOT NULL,
	kind    smallint    NOT NULL,
	due_at  timestamptz NOT NULL,
	orders  text[]      COLLATE "C" NOT NULL
);
ALTER TABLE work ALTER COLUMN orders SET STORAGE EXTERNAL; -- ids do not compress
CREATE INDEX work_due ON work (kind, due_at);

-- Orders that could not be ingested, for the operator.
CREATE TABLE rejected (
	id       bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	sale     text        NOT NULL,
	order_id text        NOT NULL,
	at       timestamptz NOT NULL DEFAULT now(),
	bytes    bytea       NOT NULL,
	cause    text        NOT NULL
);
CREATE UNIQUE INDEX rejected_once ON rejected (sale, sha256(bytes));
