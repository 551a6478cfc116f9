package recovery

import (
	"context"
	"errors"
	"fmt"

	"github.com/doorbuster/doorbuster/engine"
	"github.com/doorbuster/doorbuster/engine/orders"
)

// calendar writes down in PostgreSQL what the window has done: a scheduled sale
// whose time has come is open, one whose time is over is closed. Nothing waits for
// it: doors and scripts go by the window and Redis' clock alone. A paused sale stays
// so past its window: somebody stopped it and has yet to say how it goes on (it may
// get a later end), and closed is for good.
type calendar struct{ k *keeper }

// stateByTime is the state of a sale at nowMS (Unix ms).
func stateByTime(def *engine.Sale, nowMS int64) engine.SaleState {
	switch s := def.State; s {
	case engine.SaleScheduled, engine.SaleOpen:
		if !def.Closes.IsZero() && nowMS >= def.Closes.UnixMilli() {
			return engine.SaleClosed
		}
		if s == engine.SaleScheduled && nowMS >= def.Opens.UnixMilli() {
			return engine.SaleOpen
		}
		return s
	default:
		return s
	}
}

// runOnce returns whether it changed the sale's state. It is for good, so both clocks
// must have passed the time: one of Redis that runs ahead after a failover must not end
// a sale (see clock). It compares and sets: an operator, or the clocks, may have paused
// the sale, or moved its window, since it was read; so Redis, where the window is over
// anyway, is told after PostgreSQL, or by the follower.
func (c *calendar) runOnce(ctx context.Context, v *view) (bool, error) {
	to := stateByTime(&v.def, min(v.watch.Now, v.asOf.UnixMilli()))
	if to == v.def.State {
		return false, nil
	}
	err := c.k.orders.AdvanceSale(ctx, v.def, to, orders.Note{Who: "recovery", Why: "its time has come"})
	if errors.Is(err, orders.ErrState) { // somebody was faster: the next probe sees it
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("note that the sale is %s: %w", to, err)
	}
	if to == engine.SaleClosed && v.watch.State != engine.SaleClosed {
		if err := c.k.r.cfg.Stock.SetState(ctx, c.k.sale, v.watch.Grip, to); err != nil {
			return true, fmt.Errorf("close by the clock: %w", err)
		}
	}
	return true, nil
}
