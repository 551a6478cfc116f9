-- Why: what a sale is and how many of its units are claimed must stand where it
-- cannot be lost. A sale has a number of its own here, because its id (up to 40
-- bytes) would otherwise stand in every order and in every index over them.

-- +goose Up
CREATE TABLE sales (
	no           integer     GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	id           text        COLLATE "C" NOT NULL UNIQUE,
	name         text        NOT NULL,
	state        text        NOT NULL,
	epoch        bigint      NOT NULL DEFAULT 0 CHECK (epoch >= 0),
	frozen       boolean     NOT NULL DEFAULT false,
	version      bigint      NOT NULL,
	key_number   integer     NOT NULL,
	mode         text        NOT NULL,
	payment      text        NOT NULL,
	provider     text        NOT NULL,
	currency     text        NOT NULL,
	opens        timestamptz NOT NULL,
	closes       timestamptz NOT NULL CHECK (closes > opens),
	limit_buyer    bigint    NOT NULL CHECK (limit_buyer >= 0),
	limit_identity bigint    NOT NULL CHECK (limit_identity >= 0),
	hold_ms      bigint      NOT NULL CHECK (hold_ms >= 0),
	replay_ms    bigint      NOT NULL CHECK (replay_ms >= 0),
	created_at   timestamptz NOT NULL DEFAULT now()
);

-- One row per SKU is updated by every ingest transaction of its sale; room in
-- the page keeps those updates HOT.
CREATE TABLE items (
	sale_no integer NOT NULL REFERENCES sales (no),
	sku     text    COLLATE "C" NOT NULL,
	pos     integer NOT NULL,
	name    text    NOT NULL,
	price   bigint  NOT NULL CHECK (price >= 0),
	units   bigint  NOT NULL,
	claimed bigint  NOT NULL DEFAULT 0,
	PRIMARY KEY (sale_no, sku),
	CONSTRAINT items_not_oversold CHECK (claimed BETWEEN 0 AND units)
) WITH (fillfactor = 20);

-- On whose word a sale was changed by hand.
CREATE TABLE trail (
	id       bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	sale_no  integer     NOT NULL REFERENCES sales (no),
	at       timestamptz NOT NULL DEFAULT now(),
	what     text        NOT NULL,
	sku      text        NOT NULL DEFAULT '',
	units    bigint      NOT NULL DEFAULT 0,
	order_id text        NOT NULL DEFAULT '',
	move_id  bigint      NOT NULL DEFAULT 0,
	who      text        NOT NULL,
	why      text        NOT NULL
);
CREATE INDEX trail_of_sale ON trail (sale_no, id);
