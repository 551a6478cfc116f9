package payment_test

import (
	"testing"
	"time"

	"github.com/doorbuster/doorbuster/engine/backing/backingtest"
	"github.com/doorbuster/doorbuster/engine/queue"
	"github.com/doorbuster/doorbuster/payment/provider"
)

// neighbour is another open sale on the same servers, in the same ingest queue.
func (r *site) neighbour(t testing.TB) *site {
	t.Helper()
	other := *r
	other.epoch = 0
	for other.sale == r.sale || queue.IngestQueue(other.sale) != queue.IngestQueue(r.sale) {
		other.sale = backingtest.Sale(t)
	}
	other.create(t)
	return &other
}

// ended counts the sale's orders that came to their end.
func (r *site) ended(t testing.TB) (n int64) {
	t.Helper()
	must(t, r.pool.QueryRow(t.Context(), `SELECT count(*) FROM orders WHERE finished_at IS NOT NULL
		AND sale_no = (SELECT no FROM sales WHERE id = $1)`, r.sale).Scan(&n))
	return n
}

// until polls PostgreSQL, which gives no signal.
func until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

// A rebuild of one sale hangs, and its queue is full of its stale envelopes, more than
// a consumer may hold. The other sale of the queue goes on; a worker that dies
// meanwhile takes nothing with it; after the thaw the first sale's orders are taken
// again, all of them.
func TestRealFrozenSaleHoldsUpNoOther(t *testing.T) {
	t.Parallel()
	frozen := newSite(t, "instant", provider.NewInstant())
	lively := frozen.neighbour(t)
	const stale, perEnvelope, fresh = 120, 2, 40 // 60 envelopes; a consumer holds 24
	for n := 1; n <= stale; n += perEnvelope {
		frozen.publish(t, frozen.envelopes(n, perEnvelope))
	}
	img := frozen.cut(t)
	lively.publish(t, lively.envelopes(1001, fresh))
	stop := frozen.start(t)
	until(t, "the other sale's orders", func() bool { return lively.ended(t) == fresh })
	if n := frozen.ended(t); n != 0 {
		t.Errorf("%d orders of the frozen sale ended", n)
	}
	parked := func() int64 {
		n, err := frozen.orders.ParkedOrders(t.Context())
		must(t, err)
		return n
	}
	until(t, "all of the frozen sale's orders set aside", func() bool { return parked() == stale })
	stop()
	frozen.thaw(t, img)
	frozen.start(t)
	f := frozen.atRest(t, stale+fresh)
	if f.confirmed != stale+fresh || f.captured != f.confirmed || f.claimed != f.confirmed {
		t.Errorf("%+v", f)
	}
	until(t, "nothing set aside", func() bool { return parked() == 0 })
	w, err := frozen.stock.Watch(t.Context(), frozen.sale, frozen.epoch)
	must(t, err)
	if w.Seq != stale || w.Items[0].Held != stale {
		t.Errorf("Redis: seq %d, held %d, want %d", w.Seq, w.Items[0].Held, stale)
	}
}
