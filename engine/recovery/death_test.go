package recovery_test

import (
	"context"
	"sync"
	"testing"

	"github.com/doorbuster/doorbuster/engine"
	"github.com/doorbuster/doorbuster/engine/orders"
	"github.com/doorbuster/doorbuster/engine/recovery"
	"github.com/doorbuster/doorbuster/stock"
)

// mortal is a recovery process that dies right after one step of a rebuild: the step
// is done, its caller never hears so, and no later call reaches anybody.
type mortal struct {
	after string

	mu   sync.Mutex
	dead bool
	died chan struct{}
}

// alive is asked before each call.
func (m *mortal) alive() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.dead {
		return errDead
	}
	return nil
}

// done is told after each step.
func (m *mortal) done(step string, err error) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.dead {
		return errDead
	}
	if err == nil && step == m.after {
		m.dead = true
		close(m.died)
		return errDead
	}
	return err
}

type mortalStock struct {
	recovery.Stock
	*mortal
}

func (s mortalStock) Watch(ctx context.Context, sale engine.SaleID, epoch int64) (stock.Watch, error) {
	if err := s.alive(); err != nil {
		return stock.Watch{}, err
	}
	return s.Stock.Watch(ctx, sale, epoch)
}

func (s mortalStock) Freeze(ctx context.Context, sale engine.SaleID, epoch int64) error {
	if err := s.alive(); err != nil {
		return err
	}
	return s.done("freeze in Redis", s.Stock.Freeze(ctx, sale, epoch))
}

func (s mortalStock) Build(ctx context.Context, img stock.Image) error {
	if err := s.alive(); err != nil {
		return err
	}
	return s.done("build", s.Stock.Build(ctx, img))
}

func (s mortalStock) Load(ctx context.Context, sale engine.SaleID, inc int64) error {
	if err := s.alive(); err != nil {
		return err
	}
	return s.done("load", s.Stock.Load(ctx, sale, inc))
}

type mortalOrders struct {
	recovery.Orders
	*mortal
}

func (o mortalOrders) Under(lead orders.Lead) recovery.Orders {
	return mortalOrders{o.Orders.Under(lead), o.mortal}
}

func (o mortalOrders) Freeze(ctx context.Context, sale engine.SaleID, epoch int64) (bool, error) {
	if err := o.alive(); err != nil {
		return false, err
	}
	ok, err := o.Orders.Freeze(ctx, sale, epoch)
	return ok, o.done("freeze in PostgreSQL", err)
}

func (o mortalOrders) CutAfter(ctx context.Context, sale engine.SaleID, epoch int64, after *orders.Survey) (orders.Image, error) {
	if err := o.alive(); err != nil {
		return orders.Image{}, err
	}
	img, err := o.Orders.CutAfter(ctx, sale, epoch, after)
	return img, o.done("cut", err)
}

func (o mortalOrders) RaiseIncarnation(ctx context.Context, server string, from int64) (int64, error) {
	if err := o.alive(); err != nil {
		return 0, err
	}
	n, err := o.Orders.RaiseIncarnation(ctx, server, from)
	return n, o.done("raise the incarnation", err)
}

func (o mortalOrders) Unfreeze(ctx context.Context, sale engine.SaleID, epoch int64) (bool, error) {
	if err := o.alive(); err != nil {
		return false, err
	}
	ok, err := o.Orders.Unfreeze(ctx, sale, epoch)
	return ok, o.done("unfreeze", err)
}

type mortalDrainer struct {
	recovery.Drainer
	*mortal
}

func (d mortalDrainer) Drain(ctx context.Context, sale engine.SaleID) error {
	if err := d.alive(); err != nil {
		return err
	}
	return d.done("drain", d.Drainer.Drain(ctx, sale))
}

type mortalLead struct {
	recovery.Lead
	*mortal
}

func (l mortalLead) Round(ctx context.Context) ([]orders.Led, error) {
	if err := l.alive(); err != nil {
		return nil, err
	}
	return l.Lead.Round(ctx)
}

func (l mortalLead) Resign(ctx context.Context) error {
	if err := l.alive(); err != nil {
		return err
	}
	return l.Lead.Resign(ctx)
}

// A leader dies after each step of a rebuild, with orders held, sold, in the outbox
// and in the queue, and moves that Redis has not followed. Another one, which has to
// wait until the dead one's lead has run out, finishes the work: everything that was
// accepted is there once, and units are neither lost nor found.
func TestAnotherFinishesAfterEachStep(t *testing.T) {
	t.Parallel()
	for _, step := range []string{
		"freeze in PostgreSQL", "freeze in Redis", "drain", "cut", "raise the incarnation", "build", "unfreeze", "load",
	} {
		t.Run(step, func(t *testing.T) {
			t.Parallel()
			w := setup(t, startServer(t).url())
			_, stop := w.recover()
			w.sells(1)
			b := w.buy(12)
			w.known(b)
			w.pay(b[:4], orders.Confirmed)
			w.counts(mugs-12, 8, 4)
			stop()
			w.pay(b[4:6], orders.Confirmed) // moves that nobody applies
			w.pay(b[6:9], orders.Declined)
			w.halt.Lock()
			late := w.buy(5)       // in the queue
			outbox := w.reserve(3) // not even there
			w.ok(w.rdb.ScriptFlush(t.Context()).Err())

			m := &mortal{after: step, died: make(chan struct{})}
			cfg := w.config()
			cfg.Stock, cfg.Orders = mortalStock{cfg.Stock, m}, mortalOrders{cfg.Orders, m}
			cfg.Drainer, cfg.Lead = mortalDrainer{cfg.Drainer, m}, mortalLead{cfg.Lead, m}
			died := w.run("mortal", recovery.New(cfg).Run)
			select {
			case <-m.died:
			case <-t.Context().Done():
			}
			w.recover()
			w.halt.Unlock()
			w.sells(2)
			w.known(late)
			w.known(outbox)
			w.counts(mugs-17, 11, 6)
			w.balanced(17)
			more := w.buy(2)
			w.known(more)
			w.pay(more, orders.Declined)
			w.counts(mugs-17, 11, 6)
			w.balanced(17)
			died()
		})
	}
}

// balanced is what the laws say of the mugs: PostgreSQL has as many claimed as Redis
// holds and sold, and every live order has one hold, its own.
func (w *world) balanced(live int64) {
	w.t.Helper()
	_, status, err := w.orders.Sale(w.t.Context(), w.sale)
	w.ok(err)
	if n := status.Claimed[1].Units; n != live {
		w.t.Errorf("PostgreSQL has %d mugs claimed, want %d", n, live)
	}
	var orders, holds int64
	w.ok(w.db.QueryRow(w.t.Context(), `SELECT count(*), count(DISTINCT (hold_epoch, hold_seq)) FROM orders
		WHERE state <> 4 AND NOT stray`).Scan(&orders, &holds))
	if orders != live || holds != live {
		w.t.Errorf("%d live orders under %d holds, want %d", orders, holds, live)
	}
	watch, err := w.stock.Watch(w.t.Context(), w.sale, 0)
	w.ok(err)
	for _, it := range watch.Items {
		if it.Available+it.Held+it.Sold != it.Units || min(it.Available, it.Held, it.Sold) < 0 {
			w.t.Errorf("%+v", it)
		}
	}
	var records int64
	for cursor, first := uint64(0), true; first || cursor != 0; first = false {
		recs, next, err := w.stock.Records(w.t.Context(), w.sale, watch.Epoch, cursor)
		w.ok(err)
		for i := range recs {
			if recs[i].State != engine.RecordReleased {
				records++
			}
		}
		cursor = next
	}
	if records != live {
		w.t.Errorf("Redis has %d records of live orders, want %d", records, live)
	}
}
