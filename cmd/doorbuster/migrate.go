package main

import (
	"context"
	"fmt"

	"github.com/doorbuster/doorbuster/engine/orders"
	"github.com/doorbuster/doorbuster/engine/queue"
	"github.com/doorbuster/doorbuster/payment/ledger"
)

// MigrateCmd brings tables and queues to this version.
type MigrateCmd struct {
	JSON JSONFlag `help:"Print JSON." name:"json"`
}

// Run migrates.
func (c *MigrateCmd) Run(ctx context.Context, g *Globals) error {
	b, err := g.backends()
	if err != nil {
		return err
	}
	if err := migrate(ctx, b); err != nil {
		return err
	}
	return g.say(map[string]bool{"migrated": true}, "tables and queues are of this version\n")
}

// migrate runs every owner's migrations in order of their floors, and declares
// the queues. Safe to run twice and at once.
func migrate(ctx context.Context, b Backends) error {
	if err := orders.Migrate(ctx, b.Postgres); err != nil {
		return fmt.Errorf("migrate orders: %w", err)
	}
	if err := ledger.Migrate(ctx, b.Postgres); err != nil {
		return fmt.Errorf("migrate ledger: %w", err)
	}
	if err := queue.Declare(ctx, b.queue(nil)); err != nil {
		return fmt.Errorf("declare queues: %w", err)
	}
	return nil
}
