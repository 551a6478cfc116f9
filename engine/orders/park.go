package orders

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/doorbuster/doorbuster/engine"
	"github.com/doorbuster/doorbuster/engine/postgres"
)

// Parked is an envelope that waits for its sale: orders of an older epoch, which
// cannot be taken again while the sale is frozen or Redis is away.
type Parked struct {
	ID   int64
	Sale engine.SaleID
	Body []byte // engine.Envelope
}

// Park sets stale orders of one sale aside, at most engine.MaxGroup, so that their
// message can be acknowledged and the queue goes on. ErrNoSale. Parking an order twice
// does no harm: it is ingested once.
func (s *Store) Park(ctx context.Context, sale engine.SaleID, stale []engine.Order) error {
	if len(stale) == 0 || len(stale) > engine.MaxGroup {
		return fmt.Errorf("park in sale %s: %d orders, want 1 to %d", sale, len(stale), engine.MaxGroup)
	}
	in, err := s.info(ctx, sale)
	if err != nil {
		return fmt.Errorf("park in sale %s: %w", sale, err)
	}
	body := engine.AppendEnvelope(nil, &engine.Envelope{Sale: sale, Orders: stale})
	if _, err := s.pool.Exec(ctx, `INSERT INTO parked (sale_no, n, body) VALUES ($1, $2, $3)`, in.no, len(stale), body); err != nil {
		return fmt.Errorf("park %d orders of sale %s: %w", len(stale), sale, err)
	}
	return nil
}

// Parked leases the envelope that has waited longest, among sales that are not frozen
// and not among except. Until the lease ends nobody else gets it; then it is due again,
// unless Unpark took it. False if there is none. A settled sale wakes: nobody else would bring back what
// Redis lost of it, and until then its orders cannot be taken again.
func (s *Store) Parked(ctx context.Context, lease time.Duration, except []engine.SaleID) (p Parked, ok bool, err error) {
	err = postgres.InTx(ctx, s.pool, func(tx pgx.Tx) error {
		var no int32
		err := tx.QueryRow(ctx, `UPDATE parked p SET due_at = now() + $1::interval FROM sales s
			WHERE s.no = p.sale_no AND p.id = (SELECT q.id FROM parked q JOIN sales t ON t.no = q.sale_no
				WHERE q.due_at <= now() AND NOT t.frozen AND t.id <> ALL(coalesce($2::text[], '{}')) ORDER BY q.due_at, q.id LIMIT 1 FOR UPDATE OF q SKIP LOCKED)
			RETURNING p.id, s.no, s.id, p.body`, lease, except).Scan(&p.ID, &no, &p.Sale, &p.Body)
		if err != nil {
			return err
		}
		return wake(ctx, tx, no)
	})
	if errors.Is(err, pgx.ErrNoRows) {
		return Parked{}, false, nil
	}
	if err != nil {
		return Parked{}, false, fmt.Errorf("parked orders: %w", err)
	}
	return p, true, nil
}

// Unpark forgets a parked envelope, whose orders have all been ingested. Twice is
// harmless.
func (s *Store) Unpark(ctx context.Context, id int64) error {
	if _, err := s.pool.Exec(ctx, `DELETE FROM parked WHERE id = $1`, id); err != nil {
		return fmt.Errorf("unpark %d: %w", id, err)
	}
	return nil
}

// ParkedOrders counts the orders that are set aside, over all sales.
func (s *Store) ParkedOrders(ctx context.Context) (n int64, err error) {
	if err = s.pool.QueryRow(ctx, `SELECT coalesce(sum(n), 0)::bigint FROM parked`).Scan(&n); err != nil {
		return 0, fmt.Errorf("count parked orders: %w", err)
	}
	return n, nil
}
