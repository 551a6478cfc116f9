package recovery_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"

	"github.com/doorbuster/doorbuster/engine"
	"github.com/doorbuster/doorbuster/engine/orders"
	"github.com/doorbuster/doorbuster/engine/recovery"
	"github.com/doorbuster/doorbuster/stock"
)

// Two processes: one leads, the other takes over when it stops.
func TestAnotherTakesTheLead(t *testing.T) {
	t.Parallel()
	w := setup(t, "")
	_, stop := w.recover()
	before := w.sells(1)
	w.recover()
	stop()
	w.eventually("the other raises the heartbeat", func() bool {
		watch, err := w.stock.Watch(t.Context(), w.sale, 1)
		return err == nil && watch.Heartbeat > before.Heartbeat+3
	})
	w.known(w.buy(2))
	w.counts(mugs-2, 2, 0)
	if f, err := w.orders.Fence(t.Context(), w.sale); err != nil || f.Epoch != 1 {
		t.Errorf("taking the lead needed a rebuild: %+v, %v", f, err)
	}
}

// dying is a stock of whose calls of a rebuild the n-th, and all after it, fail:
// a leader that dies at that step.
type dying struct {
	recovery.Stock
	left atomic.Int64
}

var errDead = errors.New("the leader is dead")

func (d *dying) step() error {
	if d.left.Add(-1) < 0 {
		return errDead
	}
	return nil
}

func (d *dying) Freeze(ctx context.Context, sale engine.SaleID, epoch int64) error {
	if err := d.step(); err != nil {
		return err
	}
	return d.Stock.Freeze(ctx, sale, epoch)
}

func (d *dying) Server(ctx context.Context, sale engine.SaleID) (stock.Server, error) {
	if err := d.step(); err != nil {
		return stock.Server{}, err
	}
	return d.Stock.Server(ctx, sale)
}

func (d *dying) Build(ctx context.Context, img stock.Image) error {
	if err := d.step(); err != nil {
		return err
	}
	return d.Stock.Build(ctx, img)
}

func (d *dying) Load(ctx context.Context, sale engine.SaleID, inc int64) error {
	if err := d.step(); err != nil {
		return err
	}
	return d.Stock.Load(ctx, sale, inc)
}

// Whatever step a leader dies at, the next one finishes the work, and the counts
// are PostgreSQL's.
func TestLeaderDiesAtEachStep(t *testing.T) {
	t.Parallel()
	for steps := range int64(6) { // freeze, server, build, server, load, server
		t.Run("", func(t *testing.T) {
			t.Parallel()
			w := setup(t, "")
			_, stop := w.recover()
			w.sells(1)
			b := w.buy(9)
			w.known(b)
			w.pay(b[:4], orders.Confirmed)
			w.counts(mugs-9, 5, 4)
			stop()
			w.wipe()

			d := &dying{Stock: w.stock}
			d.left.Store(steps)
			cfg := w.config()
			cfg.Stock = d
			r := recovery.New(cfg)
			died := w.run("dying", r.Run)
			w.eventually("dead", func() bool { return d.left.Load() < 0 })
			died()

			w.recover()
			w.sells(2)
			w.counts(mugs-9, 5, 4)
			more := w.buy(2)
			w.known(more)
			w.pay(more, orders.Declined)
			w.counts(mugs-9, 5, 4)
		})
	}
}
