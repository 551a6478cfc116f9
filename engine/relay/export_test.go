package relay

import (
	"context"

	"github.com/doorbuster/doorbuster/engine"
)

// RelayOnce is one pass over a sale.
func RelayOnce(ctx context.Context, r *Relay, sale engine.SaleID) (Counts, error) {
	return r.relay(ctx, sale, Age)
}
