-- Why: before the last rebuild Redis may have held units for orders that were lost
-- with it and that nobody was promised. Of that time the audit cannot say which
-- "sold out" was wrong (law 11).

-- +goose Up
ALTER TABLE sales ADD COLUMN cut_at timestamptz;
