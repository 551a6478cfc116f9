package recovery_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/doorbuster/doorbuster/engine"
	"github.com/doorbuster/doorbuster/engine/orders"
	"github.com/doorbuster/doorbuster/engine/recovery"
)

// aged is a stock whose held records were all accepted a minute ago.
type aged struct{ recovery.Stock }

func (a aged) Records(ctx context.Context, sale engine.SaleID, epoch int64, cursor uint64) ([]engine.Record, uint64, error) {
	recs, next, err := a.Stock.Records(ctx, sale, epoch, cursor)
	for i := range recs {
		recs[i].Order.AcceptedAt -= time.Minute.Milliseconds()
	}
	return recs, next, err
}

// recoverWith runs recovery on another face of the stock.
func (w *world) recoverWith(s recovery.Stock) *recovery.Recovery {
	w.t.Helper()
	store := w.pool()
	r := recovery.New(recovery.Config{
		Stock: s, Pulse: w.stock, Orders: recovery.Books(store), Lead: store.Leader(), Publisher: w.pub, Drainer: w.relay(), Logger: w.log,
	})
	w.run("recovery", r.Run)
	return r
}

// swept runs sweeps until one did what is wanted; a sweep right after a change
// may still see the sale as it was a second ago.
func (w *world) swept(r *recovery.Recovery, what string, ok func(recovery.SweepCounts) bool) {
	w.t.Helper()
	w.eventually(what, func() bool {
		c, err := recovery.SweepOnce(context.Background(), r, w.sale)
		w.ok(err)
		return ok(c)
	})
}

// Messages that were confirmed and then purged come back from the records.
func TestSweepPublishesLostOrders(t *testing.T) {
	t.Parallel()
	w := setup(t, "")
	r := w.recoverWith(aged{w.stock})
	w.sells(1)
	w.known(w.buy(4))
	b := w.reserve(6)
	watch, err := w.stock.Watch(t.Context(), w.sale, 0)
	w.ok(err)
	entries, _, err := w.stock.Outbox(t.Context(), w.sale, watch.Epoch, 10)
	w.ok(err)
	for _, e := range entries { // marked, and the message is nowhere
		w.ok(w.stock.Mark(t.Context(), w.sale, watch.Epoch, []int64{e.ID}))
	}
	w.swept(r, "six orders published again", func(c recovery.SweepCounts) bool { return c.Unknown == 6 && c.Published == 6 })
	w.known(b)
	w.counts(mugs-10, 10, 0)
	w.swept(r, "nothing unknown", func(c recovery.SweepCounts) bool { return c.Held == 10 && c.Unknown == 0 && c.Published == 0 })
}

// What was published again is given the time to arrive, and young orders are on
// their way.
func TestSweepIsPatient(t *testing.T) {
	t.Parallel()
	w := setup(t, "")
	r := w.recoverWith(aged{w.stock})
	w.sells(1)
	w.halt.Lock()
	b := w.buy(3)
	w.eventually("seen as held", func() bool {
		first, second, err := recovery.SweepTwice(context.Background(), r, w.sale)
		w.ok(err)
		return first.Published == 3 && second.Unknown == 3 && second.Published == 0
	})
	w.halt.Unlock()
	w.known(b)

	young := setup(t, "")
	r, _ = young.recover()
	young.sells(1)
	young.halt.Lock()
	defer young.halt.Unlock()
	young.buy(2)
	young.swept(r, "two unknown, none published", func(c recovery.SweepCounts) bool { return c.Unknown == 2 && c.Published == 0 })
}

// An old epoch's keys stay while they hold what PostgreSQL does not know, and go
// when they do not.
func TestOldEpochIsDroppedWhenEmpty(t *testing.T) {
	t.Parallel()
	w := setup(t, "")
	r := w.recoverWith(aged{w.stock})
	w.sells(1)
	w.known(w.buy(2))
	w.reserve(1)
	entries, _, err := w.stock.Outbox(t.Context(), w.sale, 1, 10)
	w.ok(err)
	w.ok(w.stock.Mark(t.Context(), w.sale, 1, []int64{entries[0].ID})) // only its record knows it
	w.halt.Lock()
	goOn := sync.OnceFunc(w.halt.Unlock)
	defer goOn()
	w.ok(w.rdb.HSet(t.Context(), fmt.Sprintf("s:{%s}:1:st", w.sale), "seq", 0).Err()) // behind: rebuild
	w.sells(2)
	recovery.AgeEpoch(r, w.sale, time.Hour)
	w.swept(r, "one unknown in the old epoch", func(c recovery.SweepCounts) bool { return c.Unknown == 1 && c.Dropped == 0 })
	goOn()
	w.counts(mugs-3, 3, 0) // taken again
	w.swept(r, "the old epoch is dropped", func(c recovery.SweepCounts) bool { return c.Dropped == 1 })
	keys, err := w.rdb.Keys(t.Context(), fmt.Sprintf("s:{%s}:1:*", w.sale)).Result()
	w.ok(err)
	if len(keys) > 0 {
		t.Errorf("still there: %v", keys)
	}
	w.counts(mugs-3, 3, 0)
}

func TestPruneAfterTheReplayWindow(t *testing.T) {
	t.Parallel()
	w := setup(t, "")
	r, _ := w.recover()
	w.sells(1)
	b := w.buy(8)
	w.known(b)
	w.pay(b[:3], orders.Confirmed)
	w.pay(b[3:5], orders.Declined)
	w.counts(mugs-6, 3, 3)
	w.eventually("sound", func() bool {
		c, err := recovery.PruneOnce(t.Context(), r, w.sale, time.Now())
		w.ok(err)
		return c.Pruned == 0
	})
	late := w.definition().Closes.Add(time.Hour + time.Minute)
	c, err := recovery.PruneOnce(t.Context(), r, w.sale, late)
	w.ok(err)
	if c.Read != 8 || c.Pruned != 5 {
		t.Errorf("%+v, want 5 of 8 pruned", c)
	}
	for i := range b {
		_, found, err := w.stock.Record(t.Context(), w.sale, b[i].Order)
		w.ok(err)
		if found != (i >= 5) {
			t.Errorf("order %d: found %v", i, found)
		}
	}
	w.counts(mugs-6, 3, 3)
}
