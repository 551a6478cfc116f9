-- Why: what PostgreSQL decided and Redis must follow, written in the transaction
-- that decides it, and what recovery needs to know of servers and queues.
--
-- A row of op 0 ends a batch of orders: whether it settles or releases each of
-- them is read from the order, whose end is final. So an order cannot have two
-- contradicting rows, and a batch of 256 costs one row instead of 256 with three
-- index entries each. Other ops as engine.MoveOp, for one order (orders[1]) or
-- one SKU (lines). Rows are applied in any order and marked one by one.

-- +goose Up
CREATE TABLE moves (
	id         bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	sale_no    integer     NOT NULL,
	op         smallint    NOT NULL,
	done       boolean     NOT NULL DEFAULT false,
	n          integer     NOT NULL DEFAULT 1, -- orders in it
	taken      bigint      NOT NULL DEFAULT 0, -- units, of a withdraw
	hold_epoch bigint      NOT NULL DEFAULT 0,
	hold_seq   bigint      NOT NULL DEFAULT 0,
	body       bigint      NOT NULL DEFAULT 0,
	at         timestamptz NOT NULL DEFAULT now(),
	buyer      text        COLLATE "C" NOT NULL DEFAULT '',
	identities text        COLLATE "C" NOT NULL DEFAULT '',
	lines      text        COLLATE "C" NOT NULL DEFAULT '',
	orders     text[]      COLLATE "C" NOT NULL DEFAULT '{}'
);
ALTER TABLE moves ALTER COLUMN orders SET STORAGE EXTERNAL; -- ids do not compress
CREATE INDEX moves_pending ON moves (sale_no, id) WHERE NOT done;
-- Drop and release of one order under one hold: once, however often it comes.
CREATE UNIQUE INDEX moves_once ON moves ((orders[1]), hold_epoch, hold_seq, op) WHERE op IN (2, 3);

CREATE SEQUENCE incarnation_numbers;
CREATE TABLE incarnations (
	server text   PRIMARY KEY,
	number bigint NOT NULL UNIQUE DEFAULT nextval('incarnation_numbers')
);

-- Marker messages that workers met: recovery's sign that the queue before them
-- was consumed.
CREATE TABLE markers (
	nonce text        PRIMARY KEY,
	at    timestamptz NOT NULL DEFAULT now()
);
