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

	AcceptedAt int64 // of the order that has it, Unix ms by Redis' clock; 0: there is none
}

const selectFence = `SELECT s.id, s.epoch, s.frozen, s.state, s.version, coalesce(last.hold_seq, 0),
	coalesce(extract(epoch FROM last.accepted_at) * 1000, 0)::bigint
	FROM sales s LEFT JOIN LATERAL (SELECT o.hold_seq, o.accepted_at FROM orders o
		WHERE o.sale_no = s.no AND o.hold_epoch = s.epoch AND NOT o.stray ORDER BY o.hold_seq DESC LIMIT 1) last ON true `

func scanFence(r pgx.CollectableRow) (f Fence, err error) {
	err = r.Scan(&f.Sale, &f.Epoch, &f.Frozen, &f.State, &f.Version, &f.Seq, &f.AcceptedAt)
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
