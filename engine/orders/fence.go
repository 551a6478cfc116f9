package orders

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/doorbuster/doorbuster/engine"
)

// Fence is what recovery and the heartbeat compare.
type Fence struct {
	Sale    engine.SaleID
	Epoch   int64 // 0 is not loaded
	Frozen  bool
	State   engine.SaleState
	Version int64
	Seq     int64 // highest sequence number ingested in this epoch
}

const selectFence = `SELECT s.id, s.epoch, s.frozen, s.state, s.version,
	coalesce((SELECT o.hold_seq FROM orders o WHERE o.sale_no = s.no AND o.hold_epoch = s.epoch AND NOT o.stray
		ORDER BY o.hold_seq DESC LIMIT 1), 0) FROM sales s `

func scanFence(r pgx.CollectableRow) (f Fence, err error) {
	err = r.Scan(&f.Sale, &f.Epoch, &f.Frozen, &f.State, &f.Version, &f.Seq)
	return f, err
}

// Fence reads one sale's fence. ErrNoSale.
func (s *Store) Fence(ctx context.Context, sale engine.SaleID) (Fence, error) {
	rows, err := s.pool.Query(ctx, selectFence+`WHERE s.id = $1`, sale)
	if err != nil {
		return Fence{}, fmt.Errorf("fence of sale %s: %w", sale, err)
	}
	out, err := pgx.CollectRows(rows, scanFence)
	if err != nil {
		return Fence{}, fmt.Errorf("fence of sale %s: %w", sale, err)
	}
	if len(out) == 0 {
		return Fence{}, fmt.Errorf("fence of sale %s: %w", sale, ErrNoSale)
	}
	return out[0], nil
}
