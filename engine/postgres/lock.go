package postgres

import (
	"context"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/doorbuster/doorbuster/engine"
)

// The advisory lock of a sale orders its transactions against the cut of a
// rebuild: whatever changes its orders, claims, units, limits or release rows
// holds it shared, the cut holds it alone. It is taken first, before any row.

// LockSaleSharedSQL takes the sale's lock shared until the transaction ends; its
// parameter is SaleLock's number. For use in a batch.
const LockSaleSharedSQL = "SELECT pg_advisory_xact_lock_shared($1)"

// SaleLock is the number of the sale's advisory lock.
func SaleLock(sale engine.SaleID) int64 { return LockNumber("sale", string(sale)) }

// LockNumber names a lock by 64 bits of FNV-1a over kind and name. Two names
// that meet wait for each other without need, nothing worse.
func LockNumber(kind, name string) int64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(kind + "\x00" + name))
	return int64(h.Sum64())
}

// LockSaleShared takes the sale's lock shared, until the transaction ends.
func LockSaleShared(ctx context.Context, tx pgx.Tx, sale engine.SaleID) error {
	if _, err := tx.Exec(ctx, LockSaleSharedSQL, SaleLock(sale)); err != nil {
		return fmt.Errorf("lock sale %s shared: %w", sale, err)
	}
	return nil
}

// LockSaleExclusive takes the sale's lock alone, until the transaction ends.
func LockSaleExclusive(ctx context.Context, tx pgx.Tx, sale engine.SaleID) error {
	if _, err := tx.Exec(ctx, "SELECT pg_advisory_xact_lock($1)", SaleLock(sale)); err != nil {
		return fmt.Errorf("lock sale %s: %w", sale, err)
	}
	return nil
}

func jitter(d time.Duration) time.Duration { return d/2 + rand.N(d) }
