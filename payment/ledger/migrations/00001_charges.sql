-- Why: what was authorised, captured and given back must be known for every
-- order, and add up. An order costs one insert and one HOT update in charges (no
-- index knows a column that changes, pages are filled by half) and two inserts in
-- postings, whose only index grows at its right end. What is owed to the provider
-- stands in a table of its own, one row for a batch of charges.

-- +goose Up

-- A book is a sale's money at one provider in one currency.
CREATE TABLE books (
	no       integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	sale     text COLLATE "C" NOT NULL,
	provider text COLLATE "C" NOT NULL,
	currency text COLLATE "C" NOT NULL CHECK (currency ~ '^[A-Z]{3}$'),
	UNIQUE (sale, provider, currency)
);

-- One row per attempt that confirmed its order. state: 1 authorised, 2 captured,
-- 3 voided, 4 refunded, 5 capture refused by the provider. Minor units.
CREATE TABLE charges (
	no            bigint      GENERATED ALWAYS AS IDENTITY,
	amount        bigint      NOT NULL CHECK (amount >= 0),
	captured      bigint      NOT NULL DEFAULT 0 CHECK (captured BETWEEN 0 AND amount),
	refunded      bigint      NOT NULL DEFAULT 0 CHECK (refunded BETWEEN 0 AND captured),
	authorised_at timestamptz NOT NULL DEFAULT now(),
	captured_at   timestamptz,
	book          integer     NOT NULL,
	attempt       smallint    NOT NULL,
	state         smallint    NOT NULL DEFAULT 1 CHECK (state BETWEEN 1 AND 5),
	order_id      text        COLLATE "C" NOT NULL,
	PRIMARY KEY (order_id, attempt)
) WITH (fillfactor = 50);

-- Two postings per movement, of sum zero; inserted, never changed. kind: 1 capture,
-- 2 refund. account: 1 what the provider owes us, 2 what the sale earned. A debit
-- is positive.
CREATE TABLE postings (
	charge  bigint      NOT NULL,
	amount  bigint      NOT NULL,
	at      timestamptz NOT NULL DEFAULT now(),
	book    integer     NOT NULL,
	kind    smallint    NOT NULL CHECK (kind BETWEEN 1 AND 2),
	account smallint    NOT NULL CHECK (account BETWEEN 1 AND 2),
	PRIMARY KEY (charge, kind, account)
);

-- What is to be done at the provider. kind: 1 capture, 2 void. Rows go when their
-- charges are done.
CREATE TABLE tasks (
	id       bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	due_at   timestamptz NOT NULL,
	book     integer     NOT NULL,
	kind     smallint    NOT NULL CHECK (kind BETWEEN 1 AND 2),
	tries    integer     NOT NULL DEFAULT 0,
	orders   text[]      COLLATE "C" NOT NULL,
	attempts smallint[]  NOT NULL,
	amounts  bigint[]    NOT NULL
);
ALTER TABLE tasks ALTER COLUMN orders SET STORAGE EXTERNAL; -- ids do not compress
CREATE INDEX tasks_due ON tasks (due_at);

-- +goose StatementBegin
CREATE FUNCTION postings_are_final() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	RAISE EXCEPTION 'postings are inserted, never changed';
END $$;
-- +goose StatementEnd
CREATE TRIGGER postings_are_final BEFORE UPDATE OR DELETE OR TRUNCATE ON postings
	FOR EACH STATEMENT EXECUTE FUNCTION postings_are_final();
