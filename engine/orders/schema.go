package orders

import "context"

// Migrate brings this package's tables to the newest version.
func Migrate(ctx context.Context, url string) error { return errTODO }
