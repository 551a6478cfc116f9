package orders

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/doorbuster/doorbuster/engine"
	"github.com/doorbuster/doorbuster/engine/postgres"
)

// Image is a sale at one cut: what the Redis keys of its new epoch are made of.
type Image struct {
	Sale       engine.Sale // of the new epoch; Items[i].Units is for sale in all
	Live       []LiveOrder // every order that claims units, in any order
	Tombstones []Tombstone // finished ones that claim none, while the sale's replay window lasts
	Covered    int64       // release rows that the image contains
}

// LiveOrder is an order that claims units.
type LiveOrder struct {
	engine.Order
	Settled  bool  // confirmed: sold, not held
	Finished int64 // Unix seconds, if settled
}

// Tombstone is a finished order whose units are back.
type Tombstone struct {
	Order    engine.OrderID
	Hold     engine.Hold
	Body     uint64
	Settled  bool  // confirmed and returned; else cancelled
	Finished int64 // Unix seconds
}

// setFrozen compares the epoch and sets the flag.
func (s *Store) setFrozen(ctx context.Context, sale engine.SaleID, epoch int64, frozen bool) (bool, error) {
	in, err := s.info(ctx, sale)
	if err != nil {
		return false, err
	}
	set := false
	err = postgres.InTx(ctx, s.pool, func(tx pgx.Tx) error {
		if err := s.mayLead(ctx, tx, in.no); err != nil {
			return err
		}
		tag, err := tx.Exec(ctx, `UPDATE sales SET frozen = $3 WHERE no = $1 AND epoch = $2 AND NOT ($3 AND state = 'settled')`, in.no, epoch, frozen)
		set = tag.RowsAffected() == 1
		return err
	})
	return err == nil && set, err
}

// Freeze marks the sale as frozen if its epoch is still that one. False if it
// is not, or if the sale is settled: nobody leads it, and who meant to freeze it had
// an old view. Orders can still be ingested, and end; release rows cannot be marked.
func (s *Store) Freeze(ctx context.Context, sale engine.SaleID, epoch int64) (bool, error) {
	ok, err := s.setFrozen(ctx, sale, epoch, true)
	if err != nil {
		return false, fmt.Errorf("freeze sale %s: %w", sale, err)
	}
	return ok, nil
}

// Unfreeze lets the sale go on in that epoch. False if its epoch is another.
func (s *Store) Unfreeze(ctx context.Context, sale engine.SaleID, epoch int64) (bool, error) {
	ok, err := s.setFrozen(ctx, sale, epoch, false)
	if err != nil {
		return false, fmt.Errorf("unfreeze sale %s: %w", sale, err)
	}
	return ok, nil
}

// Cut moves the sale from epoch to epoch+1, still frozen, and reads it, in one
// transaction that has the sale to itself. ErrEpochMoved if another leader was
// faster. The transaction is READ COMMITTED: each statement sees what was
// committed before it began, and the first one waits for the lock. A snapshot
// taken before the lock would miss what was committed while it waited.
func (s *Store) Cut(ctx context.Context, sale engine.SaleID, epoch int64) (Image, error) {
	return s.CutAfter(ctx, sale, epoch, nil)
}

// CutAfter is Cut, but of the orders it reads only what changed since the survey, if
// that still speaks for the sale; nil is none. The image is the same, and has the
// survey's memory: no other cut may use it.
func (s *Store) CutAfter(ctx context.Context, sale engine.SaleID, epoch int64, after *Survey) (Image, error) {
	var img Image
	err := postgres.InTx(ctx, s.pool, func(tx pgx.Tx) error {
		if err := postgres.LockSaleExclusive(ctx, tx, sale); err != nil {
			return err
		}
		img = Image{}
		var no int32
		err := tx.QueryRow(ctx, `UPDATE sales SET epoch = epoch + 1, frozen = true, cut_at = now() WHERE id = $1 AND epoch = $2 RETURNING no`,
			sale, epoch).Scan(&no)
		if errors.Is(err, pgx.ErrNoRows) {
			return ErrEpochMoved
		}
		if err == nil {
			err = s.mayLead(ctx, tx, no)
		}
		if err != nil {
			return err
		}
		// A withdraw is not in the image: PostgreSQL changes the units when Redis
		// has said how many it took.
		tag, err := tx.Exec(ctx, `UPDATE moves SET done = true, done_at = now() WHERE sale_no = $1 AND NOT done AND op <> $2`, no, engine.Withdraw)
		if err != nil {
			return err
		}
		img.Covered = tag.RowsAffected()
		if img.Sale, _, err = readSale(ctx, tx, sale); err != nil {
			return err
		}
		img.Live, img.Tombstones, err = picture(ctx, tx, no, after)
		return err
	})
	if err != nil {
		return Image{}, fmt.Errorf("cut sale %s at epoch %d: %w", sale, epoch, err)
	}
	return img, nil
}
