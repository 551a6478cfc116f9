package recovery_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/doorbuster/doorbuster/engine"
	"github.com/doorbuster/doorbuster/engine/orders"
	"github.com/doorbuster/doorbuster/engine/recovery"
	"github.com/doorbuster/doorbuster/stock"
)

// stopped is everything a recovery process reaches, until halt: from then on every
// call of it waits for wake, as those of a process that got a SIGSTOP do.
type stopped struct {
	mu   sync.Mutex
	gate chan struct{}
	at   chan string // names of the first calls that were held up
}

func (s *stopped) halt() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gate = make(chan struct{})
}

func (s *stopped) wake() { close(s.gate) }

func (s *stopped) pass(call string) {
	s.mu.Lock()
	gate := s.gate
	s.mu.Unlock()
	if gate == nil {
		return
	}
	select {
	case s.at <- call:
	default:
	}
	<-gate
}

type stoppedStock struct {
	recovery.Stock
	*stopped
}

func (s stoppedStock) Build(ctx context.Context, img stock.Image) error {
	s.pass("build")
	return s.Stock.Build(ctx, img)
}

func (s stoppedStock) Watch(ctx context.Context, sale engine.SaleID, epoch int64) (stock.Watch, error) {
	s.pass("watch")
	return s.Stock.Watch(ctx, sale, epoch)
}

type stoppedPulse struct {
	recovery.Pulse
	*stopped
}

func (s stoppedPulse) Beat(ctx context.Context, sale engine.SaleID, epoch int64) error {
	s.pass("beat")
	return s.Pulse.Beat(ctx, sale, epoch)
}

type stoppedLead struct {
	recovery.Lead
	*stopped
}

func (s stoppedLead) Round(ctx context.Context) ([]orders.Led, error) {
	s.pass("round")
	return s.Lead.Round(ctx)
}

// refused notes what the leader's transactions heard.
type refused struct {
	recovery.Orders
	*stopped
	errs chan error
}

func (r refused) Under(l orders.Lead) recovery.Orders {
	return refused{r.Orders.Under(l), r.stopped, r.errs}
}

func (r refused) note(err error) {
	if err != nil {
		select {
		case r.errs <- err:
		default:
		}
	}
}

func (r refused) Fence(ctx context.Context, sale engine.SaleID) (orders.Fence, error) {
	r.pass("fence")
	return r.Orders.Fence(ctx, sale)
}

func (r refused) MarkMoved(ctx context.Context, sale engine.SaleID, epoch int64, rows []orders.Moved) (int, bool, error) {
	r.pass("mark")
	n, moved, err := r.Orders.MarkMoved(context.WithoutCancel(ctx), sale, epoch, rows)
	r.note(err)
	return n, moved, err
}

// recoverStopped runs a process that can be halted.
func (w *world) recoverStopped() (*stopped, chan error) {
	w.t.Helper()
	s, errs := &stopped{at: make(chan string, 1)}, make(chan error, 100)
	cfg := w.config()
	cfg.Stock, cfg.Pulse = stoppedStock{w.stock, s}, stoppedPulse{w.stock, s}
	cfg.Orders, cfg.Lead = refused{cfg.Orders, s, errs}, stoppedLead{cfg.Lead, s}
	w.run("the one that stops", recovery.New(cfg).Run)
	return s, errs
}

// A leader that is stopped while it has a move applied and not marked loses the
// lead, though its connections live on. When it wakes, its transaction is refused.
func TestStoppedLeaderIsOvertaken(t *testing.T) {
	t.Parallel()
	w := setup(t, "")
	s, errs := w.recoverStopped()
	w.sells(1)
	b := w.buy(3)
	w.known(b)
	s.halt()
	w.pay(b, orders.Confirmed)
	w.recover()
	w.eventually("the other applied the moves", func() bool {
		n, err := w.orders.Backlog(t.Context(), w.sale)
		return err == nil && n == 0
	})
	before := w.sells(1)
	w.eventually("the other raises the heartbeat", func() bool {
		watch, err := w.stock.Watch(t.Context(), w.sale, 1)
		return err == nil && watch.Heartbeat > before.Heartbeat+2
	})
	w.counts(mugs-3, 0, 3)
	s.wake()
	select {
	case err := <-errs:
		if !errors.Is(err, orders.ErrDeposed) {
			t.Errorf("the first that it heard: %v, want ErrDeposed", err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("the woken leader was never refused")
	}
	if f, err := w.orders.Fence(t.Context(), w.sale); err != nil || f.Epoch != 1 {
		t.Errorf("taking the lead over needed a rebuild: %+v, %v", f, err)
	}
}

// A leader that is stopped between the cut and the keys wakes when its successor
// has built the next epoch: its keys are refused by Redis' pointer.
func TestStoppedRebuildIsOvertaken(t *testing.T) {
	t.Parallel()
	w := setup(t, "")
	_, stop := w.recover()
	w.sells(1)
	b := w.buy(4)
	w.known(b)
	stop()
	w.wipe()
	built := make(chan error, 1)
	s := &stopped{at: make(chan string, 1)}
	s.halt()
	cfg := w.config()
	cfg.Stock = onlyBuild{w.stock, s, built}
	lead := &mute{Lead: cfg.Lead}
	cfg.Lead = lead
	w.run("the one that stops", recovery.New(cfg).Run)
	if got := <-s.at; got != "build" {
		t.Fatalf("held up at %s", got)
	}
	lead.mute()
	w.recover()
	w.sells(3)
	w.counts(mugs-4, 4, 0)
	s.wake()
	if err := <-built; !errors.Is(err, stock.ErrFenced) {
		t.Errorf("keys of a leader that was overtaken: %v, want ErrFenced", err)
	}
	w.known(w.buy(1))
	w.counts(mugs-5, 5, 0)
	if f, err := w.orders.Fence(t.Context(), w.sale); err != nil || f.Epoch != 3 {
		t.Errorf("%+v, %v", f, err)
	}
}

// mute is a lead whose rounds fail from some time on: it cannot be renewed.
type mute struct {
	recovery.Lead
	mu   sync.Mutex
	gone bool
}

func (m *mute) mute() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.gone = true
}

func (m *mute) Round(ctx context.Context) ([]orders.Led, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.gone {
		return nil, errDead
	}
	return m.Lead.Round(ctx)
}

type onlyBuild struct {
	recovery.Stock
	*stopped
	built chan error
}

func (o onlyBuild) Build(ctx context.Context, img stock.Image) error {
	o.pass("build")
	err := o.Stock.Build(context.WithoutCancel(ctx), img)
	select {
	case o.built <- err:
	default:
	}
	return err
}

// The wait of a rebuild counts from the last heartbeat of whoever led before: a
// process that took the lead over and must rebuild at once does not cut before
// the leases of doors that saw it have run out.
func TestCutWaitsForTheHeartbeatsOfOthers(t *testing.T) {
	t.Parallel()
	w := setup(t, startServer(t).url())
	cfg := w.config()
	w.run("the first", recovery.New(cfg).Run)
	w.sells(1)
	w.recover()
	key := "s:{" + string(w.sale) + "}:1:st"
	// The lead ends while the first is well, and beats; the sale is broken when the
	// other takes it over.
	w.eventually("given to the other", func() bool {
		tag, err := w.db.Exec(t.Context(), `UPDATE leads l SET number = number + 1, leader = o.name FROM leaders o WHERE o.name <> l.leader`)
		w.ok(err)
		return tag.RowsAffected() == 1
	})
	w.ok(w.rdb.ScriptFlush(t.Context()).Err())
	var beat int64
	var rose, cut time.Time
	w.eventually("cut", func() bool {
		n, err := w.rdb.HGet(t.Context(), key, "hb").Int64()
		w.ok(err)
		if n != beat {
			beat, rose = n, time.Now()
		}
		f, err := w.orders.Fence(t.Context(), w.sale)
		w.ok(err)
		cut = time.Now()
		return f.Epoch == 2
	})
	if waited := cut.Sub(rose); waited < 2*time.Second {
		t.Errorf("the cut came %v after the last heartbeat, a lease is 2 s", waited)
	}
}
