package postgres

import (
	"context"
	"fmt"
	"io/fs"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/database"
	"github.com/pressly/goose/v3/lock"
)

// Migrate brings the tables of one owner to the newest of its migrations
// (goose's SQL form, "00001_what.sql", at the root of files). Owners do not see
// each other: each has a version table of its own, schema_<owner>, so each owner
// numbers from 1. Several processes may call it at once: a session lock lets one
// work and the others wait. It is safe to call again.
func Migrate(ctx context.Context, url, owner string, files fs.FS) error {
	cfg, err := pgx.ParseConfig(url)
	if err != nil {
		return fmt.Errorf("migrate %s: %w", owner, err)
	}
	cfg.ConnectTimeout = connectTimeout
	db := stdlib.OpenDB(*cfg)
	defer func() { _ = db.Close() }()
	locker, err := lock.NewPostgresSessionLocker(lock.WithLockID(LockNumber("migrate", owner)))
	if err != nil {
		return fmt.Errorf("migrate %s: %w", owner, err)
	}
	versions, err := database.NewStore(database.DialectPostgres, "schema_"+owner)
	if err != nil {
		return fmt.Errorf("migrate %s: %w", owner, err)
	}
	p, err := goose.NewProvider("", db, files, goose.WithStore(versions),
		goose.WithSessionLocker(locker), goose.WithDisableGlobalRegistry(true))
	if err != nil {
		return fmt.Errorf("migrate %s: %w", owner, err)
	}
	if _, err := p.Up(ctx); err != nil {
		return fmt.Errorf("migrate %s: %w", owner, err)
	}
	return nil
}
