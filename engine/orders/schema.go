package orders

import (
	"context"
	"embed"
	"io/fs"

	"github.com/doorbuster/doorbuster/engine/postgres"
)

//go:embed migrations/*.sql
var migrations embed.FS

// Migrate brings this package's tables to the newest version. Safe to call by
// several processes at once, and again.
func Migrate(ctx context.Context, url string) error {
	files, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return err
	}
	return postgres.Migrate(ctx, url, "orders", files)
}
