-- Why: sales of one server that are rebuilt at the same time each raise its number,
-- and all but the last were built under an older one. A new leader must tell those
-- from a state that was built before the server came to its data.

-- +goose Up
ALTER TABLE incarnations ADD COLUMN first bigint; -- its first number; NULL is not known
