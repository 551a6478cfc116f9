package recovery

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/doorbuster/doorbuster/engine"
	"github.com/doorbuster/doorbuster/stock"
)

// followAfter is how long Redis and PostgreSQL may differ about a sale's state or
// definition before Redis is made to follow: whoever changes it writes one, then
// the other, and may die in between, or meet a rebuild.
const followAfter = 3 * time.Second

// follower makes Redis follow PostgreSQL.
type follower struct {
	k     *keeper
	since time.Time // of the difference; zero: none
}

// runOnce compares. It returns whether it changed something.
func (f *follower) runOnce(ctx context.Context, v *view) (bool, error) {
	state, version := stateInSlot(v.def.State), v.watch.Version < v.def.Version
	if state == v.watch.State && !version {
		f.since = time.Time{}
		return false, nil
	}
	now := f.k.r.now()
	if f.since.IsZero() {
		f.since = now
	}
	if now.Sub(f.since) < followAfter {
		return false, nil
	}
	// PostgreSQL was asked before Redis: who paused the sale between the two is not seen,
	// and the script would not refuse.
	if fence, err := f.k.orders.Fence(ctx, f.k.sale); err != nil || stateInSlot(fence.State) != state {
		return false, err
	}
	grip := v.watch.Grip
	if version {
		if err := f.k.r.cfg.Stock.Redefine(ctx, f.k.sale, grip, v.def); err != nil {
			return false, fmt.Errorf("follow definition %d: %w", v.def.Version, err)
		}
		grip.Version = v.def.Version
		f.k.log.Warn("Redis was behind PostgreSQL's definition of the sale", "version", v.def.Version)
	}
	if state != v.watch.State {
		err := f.k.r.cfg.Stock.SetState(ctx, f.k.sale, grip, state)
		if err != nil && !errors.Is(err, stock.ErrStale) { // stale: once more with the next probe
			return version, fmt.Errorf("follow state %s: %w", state, err)
		}
		f.k.log.Warn("Redis had another state of the sale than PostgreSQL", "redis", string(v.watch.State), "postgres", string(v.def.State))
	}
	f.since = time.Time{}
	return true, nil
}

// stateInSlot is how the slot spells PostgreSQL's state of a sale.
func stateInSlot(s engine.SaleState) engine.SaleState {
	switch s {
	case engine.SalePaused:
		return engine.SalePaused
	case engine.SaleClosed, engine.SaleSettled:
		return engine.SaleClosed
	default:
		return engine.SaleOpen
	}
}
