-- Why: a settled sale has no lead, and when it wakes its lead is a new row, whose
-- number began at 0 again. A leader of before that was stopped meanwhile could
-- then hold a number that is somebody else's, and pass the fence.

-- +goose Up
ALTER TABLE sales ADD COLUMN led bigint NOT NULL DEFAULT 0; -- the number of its last lead, while it is settled
