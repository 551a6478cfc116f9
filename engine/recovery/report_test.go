package recovery_test

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/doorbuster/doorbuster/engine"
	"github.com/doorbuster/doorbuster/engine/orders"
	"github.com/doorbuster/doorbuster/engine/recovery"
)

// report asks about the world's sale.
func (w *world) report() recovery.Report {
	w.t.Helper()
	o := recovery.Observer{Orders: w.orders, Stock: w.stock}
	all, err := o.Reports(w.t.Context(), w.sale)
	w.ok(err)
	if len(all) != 1 || all[0].Sale != w.sale {
		w.t.Fatalf("%+v", all)
	}
	return all[0]
}

// What an operator is told: nobody leads; then who does, since when, how the load
// went; then the rebuild that is under way, where it stands and why; and what failed.
func TestReport(t *testing.T) {
	t.Parallel()
	w := setup(t, "")
	if r := w.report(); r.Leader != nil || r.Rebuild != nil || r.Epoch != 0 || r.State != engine.SaleScheduled {
		t.Errorf("before anybody led: %+v", r)
	}
	hold, release := make(chan struct{}), make(chan struct{})
	b := &builder{Stock: w.stock}
	w.counted(func(cfg *recovery.Config) { cfg.Stock, cfg.Notes = b, w.orders.NoteRecoveries })
	w.sells(1)
	w.known(w.buy(4))
	w.reserve(2)
	var r recovery.Report
	w.eventually("the load is noted", func() bool { r = w.report(); return r.Rebuild != nil && !r.Rebuild.Running })
	if r.Rebuild.Why != "new" || len(r.Rebuild.Steps) != 5 || r.Rebuild.Steps[0].Phase != recovery.Freezing {
		t.Errorf("the load: %+v", r.Rebuild)
	}
	host, _ := os.Hostname()
	if r.Leader == nil || r.Leader.Process != fmt.Sprintf("%s:%d", host, os.Getpid()) || r.Leader.LeftMS <= 0 || r.Leader.Number != 1 {
		t.Errorf("leader %+v", r.Leader)
	}
	if h := r.Heartbeat; h == nil || !h.Rising || h.Number == 0 || r.Outbox == nil || *r.Outbox != 1 || r.Incarnation == nil || r.ClockSkewMS == nil {
		t.Errorf("Redis: %+v, heartbeat %+v", r, h)
	}

	b.mu.Lock()
	b.hold = func(engine.SaleID) { close(hold); <-release }
	b.mu.Unlock()
	w.wipe()
	<-hold
	w.eventually("the step is noted", func() bool { r = w.report(); return r.Rebuild.Phase == recovery.Building })
	b.mu.Lock()
	b.hold = nil
	b.mu.Unlock()
	var done []string
	for _, s := range r.Rebuild.Steps {
		done = append(done, string(s.Phase))
	}
	if !r.Frozen || !r.Rebuild.Running || r.Rebuild.Why != "missing" || strings.Join(done, " ") != "freezing waiting draining queued cutting" {
		t.Errorf("while it is rebuilt: %+v, steps %q", r.Rebuild, done)
	}
	close(release)
	w.sells(2)
	w.eventually("the end is noted", func() bool { r = w.report(); return !r.Rebuild.Running && !r.Frozen })
	if len(r.Rebuild.Steps) != 7 || r.Rebuild.Phase != recovery.NoPhase || r.Epoch != 2 {
		t.Errorf("after it was rebuilt: %+v", r.Rebuild)
	}
	o := recovery.Observer{Orders: w.orders, Stock: w.stock}
	if _, err := o.Reports(t.Context(), "nope"); !errors.Is(err, orders.ErrNoSale) {
		t.Errorf("a sale that is not there: %v", err)
	}
}
