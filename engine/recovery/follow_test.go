package recovery_test

import (
	"testing"
	"time"

	"github.com/doorbuster/doorbuster/engine"
	"github.com/doorbuster/doorbuster/engine/orders"
)

// Who paused a sale died between PostgreSQL and Redis, or a rebuild came between.
func TestRedisFollowsPostgreSQL(t *testing.T) {
	t.Parallel()
	w := setup(t, "")
	w.recover()
	w.sells(1)
	w.ok(w.orders.SetSaleState(t.Context(), w.sale, engine.SalePaused, note))
	w.eventually("paused in Redis", func() bool {
		watch, err := w.stock.Watch(t.Context(), w.sale, 1)
		return err == nil && watch.State == engine.SalePaused
	})
	def, _, err := w.orders.Sale(t.Context(), w.sale)
	w.ok(err)
	def.LimitPerBuyer = 2
	version, err := w.orders.Redefine(t.Context(), def, note)
	w.ok(err)
	w.ok(w.orders.SetSaleState(t.Context(), w.sale, engine.SaleOpen, note))
	w.eventually("defined and open in Redis", func() bool {
		watch, err := w.stock.Watch(t.Context(), w.sale, 1)
		return err == nil && watch.State == engine.SaleOpen && watch.Version == version && watch.LimitBuyer == 2
	})
}

// A rebuild brings the state that PostgreSQL holds.
func TestRebuildKeepsThePause(t *testing.T) {
	t.Parallel()
	w := setup(t, "")
	w.recover()
	w.sells(1)
	w.ok(w.orders.SetSaleState(t.Context(), w.sale, engine.SalePaused, note))
	w.wipe()
	w.eventually("paused in epoch 2", func() bool {
		watch, err := w.stock.Watch(t.Context(), w.sale, 2)
		return err == nil && watch.Epoch == 2 && watch.State == engine.SalePaused
	})
}

// The heartbeat is PostgreSQL's word: frozen there, it stands still.
func TestNoHeartbeatWhileFrozen(t *testing.T) {
	t.Parallel()
	w := setup(t, "")
	_, stop := w.recover()
	w.sells(1)
	stop()
	froze, err := w.orders.Freeze(t.Context(), w.sale, 1)
	w.ok(err)
	if !froze {
		t.Fatal("not frozen")
	}
	before, err := w.stock.Watch(t.Context(), w.sale, 1)
	w.ok(err)
	w.recover() // finds it frozen, waits for leases, rebuilds
	w.sells(2)
	after, err := w.rdb.HGet(t.Context(), "s:{"+string(w.sale)+"}:1:st", "hb").Int64()
	w.ok(err)
	if after != before.Heartbeat {
		t.Errorf("the heartbeat of the frozen epoch rose from %d to %d", before.Heartbeat, after)
	}
}

func TestRestockAndWithdraw(t *testing.T) {
	t.Parallel()
	w := setup(t, "")
	r, _ := w.recover()
	w.sells(1)
	w.known(w.buy(90))
	_, err := w.orders.Restock(t.Context(), w.sale, "MUG", 25, note)
	w.ok(err)
	r.Nudge(w.sale)
	w.counts(mugs+25-90, 90, 0)
	_, err = w.orders.RequestWithdraw(t.Context(), w.sale, "MUG", 1000, note) // more than is there
	w.ok(err)
	w.counts(0, 90, 0)
	w.eventually("units follow in PostgreSQL", func() bool {
		def, _, err := w.orders.Sale(t.Context(), w.sale)
		n, err2 := w.orders.Backlog(t.Context(), w.sale)
		return err == nil && err2 == nil && n == 0 && def.Items[1].Units == 90
	})
}

// A row that the stock cannot follow stops no other.
func TestBadRowStopsNoOther(t *testing.T) {
	t.Parallel()
	w := setup(t, "")
	r, _ := w.recover()
	w.sells(1)
	key := "s:{" + string(w.sale) + "}:1:st"
	for _, prefix := range []string{"a:", "h:", "s:", "u:", "p:"} { // the slot forgets the cap
		w.ok(w.rdb.HDel(t.Context(), key, prefix+"CAP").Err())
	}
	_, err := w.orders.Restock(t.Context(), w.sale, "CAP", 1, note)
	w.ok(err)
	b := w.buy(5)
	w.known(b)
	w.pay(b, orders.Confirmed)
	r.Nudge(w.sale)
	w.eventually("sold", func() bool {
		watch, err := w.stock.Watch(t.Context(), w.sale, 1)
		return err == nil && len(watch.Items) == 1 && watch.Items[0].Sold == 5
	})
	w.eventually("only the row at fault waits", func() bool {
		n, err := w.orders.Backlog(t.Context(), w.sale)
		return err == nil && n == 1
	})
}

// A restock of an item that Redis does not have yet is applied as soon as it has.
func TestRestockOfANewItem(t *testing.T) {
	t.Parallel()
	w := setup(t, "")
	w.recover()
	w.sells(1)
	def, _, err := w.orders.Sale(t.Context(), w.sale)
	w.ok(err)
	def.Items = append(def.Items, engine.Item{SKU: "PEN", Name: "Pen", Price: 100})
	_, err = w.orders.Redefine(t.Context(), def, note) // and Redis is not told
	w.ok(err)
	_, err = w.orders.Restock(t.Context(), w.sale, "PEN", 7, note)
	w.ok(err)
	w.eventually("the pens are there, before the row is tried again by itself", func() bool {
		watch, err := w.stock.Watch(t.Context(), w.sale, 1)
		return err == nil && len(watch.Items) == 3 && watch.Items[2].Available == 7
	})
	w.settled()
}

// The lag that the doors read rises while the worker stands still, and falls.
func TestLagIsWritten(t *testing.T) {
	t.Parallel()
	w := setup(t, "")
	w.recover()
	w.sells(1)
	w.halt.Lock()
	w.buy(2)
	w.eventually("lag of a second", func() bool {
		watch, err := w.stock.Watch(t.Context(), w.sale, 1)
		return err == nil && watch.Lag >= time.Second.Milliseconds()
	})
	w.halt.Unlock()
	w.eventually("no lag", func() bool {
		watch, err := w.stock.Watch(t.Context(), w.sale, 1)
		return err == nil && watch.Lag == 0
	})
}
