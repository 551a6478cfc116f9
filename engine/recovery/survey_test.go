package recovery_test

import (
	"context"
	"sync/atomic"
	"testing"

	"github.com/doorbuster/doorbuster/engine"
	"github.com/doorbuster/doorbuster/engine/orders"
	"github.com/doorbuster/doorbuster/engine/recovery"
)

// surveyed does something between the survey and the cut that uses it.
type surveyed struct {
	recovery.Orders
	*between
}

type between struct {
	do   func()
	used atomic.Int64 // cuts after a survey
}

func (s surveyed) Under(l orders.Lead) recovery.Orders { return surveyed{s.Orders.Under(l), s.between} }

func (s surveyed) Survey(ctx context.Context, sale engine.SaleID) (*orders.Survey, error) {
	v, err := s.Orders.Survey(ctx, sale)
	s.do()
	return v, err
}

func (s surveyed) CutAfter(ctx context.Context, sale engine.SaleID, epoch int64, after *orders.Survey) (orders.Image, error) {
	if after != nil {
		s.used.Add(1)
	}
	return s.Orders.CutAfter(ctx, sale, epoch, after)
}

// A large sale is read while the leases run out. What becomes of orders between that and
// the cut is in the new keys.
func TestLargeSaleIsSurveyed(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	w := setup(t, s.url())
	_, stop := w.recover()
	w.sells(1)
	w.restockMany()
	stop()
	const many = 2300
	w.fill(many, false)
	b := &between{}
	cfg := w.config()
	cfg.Orders = surveyed{cfg.Orders, b}
	w.run("recovery", recovery.New(cfg).Run)
	w.sells(1)
	some := w.buy(10)
	w.known(some)
	b.do = func() {
		w.pay(some[:4], orders.Confirmed)
		w.pay(some[4:], orders.Declined)
	}
	s.kill()
	s.start()
	w.sells(2)
	w.counts(mugs+1_000_000-many-4, many, 4)
	if b.used.Load() == 0 {
		t.Error("the cut read every order")
	}
}
