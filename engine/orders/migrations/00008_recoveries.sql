-- Why: an operator asks what recovery does with a sale, and why, above all while
-- Redis is away; so it stands here. Whoever leads writes what has changed, for all
-- of its sales in one round trip. Nothing reads it but that question.

-- +goose Up
CREATE TABLE recoveries (
	sale_no  integer     NOT NULL PRIMARY KEY REFERENCES sales (no),
	phase    text        NOT NULL,          -- of the rebuild under way; '' is none
	phase_at timestamptz,
	began_at timestamptz,                   -- of the last rebuild: the freeze
	finished boolean     NOT NULL,
	why      text        NOT NULL,          -- it began
	trouble  text        NOT NULL,          -- why the last try failed
	steps    jsonb       NOT NULL,          -- of the last try, with their milliseconds
	swept_at timestamptz,
	sweep    jsonb       NOT NULL
) WITH (fillfactor = 50);
