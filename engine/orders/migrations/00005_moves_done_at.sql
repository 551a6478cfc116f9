-- Why: from when on the units of an ended order were surely back in Redis. The audit
-- needs it to tell a rightful "sold out" from a wrong one (law 11).

-- +goose Up
ALTER TABLE moves ADD COLUMN done_at timestamptz;
