package orders_test

import (
	"context"
	"errors"
	"reflect"
	"sync"
	"testing"
	"time"

	"github.com/doorbuster/doorbuster/engine"
	"github.com/doorbuster/doorbuster/engine/orders"
	"github.com/doorbuster/doorbuster/engine/postgres"
)

func TestCutIsAnImageOfTheSale(t *testing.T) {
	t.Parallel()
	b := setup(t)
	held, sold, gone, back := b.order("ann", 1), b.order("bob", 2), b.order("cid", 1), b.order("dan", 1)
	held.Identities = []engine.Identity{{5}}
	b.ingest(held, sold, gone, back)
	b.claim()
	b.settle(orders.Confirmed, sold, back)
	b.settle(orders.Declined, gone)
	_, err := b.Return(t.Context(), back.Order, note)
	b.ok(err)
	_, err = b.Restock(t.Context(), b.sale.ID, "MUG", 3, note)
	b.ok(err)
	withdraw, err := b.RequestWithdraw(t.Context(), b.sale.ID, "MUG", 1, note)
	b.ok(err)
	img, err := b.Cut(t.Context(), b.sale.ID, 1)
	b.ok(err)
	if img.Sale.Epoch != 2 || img.Sale.Items[0].Units != 13 || len(img.Live) != 2 || len(img.Tombstones) != 2 {
		t.Fatalf("image %+v", img)
	}
	for _, l := range img.Live {
		want := held
		if l.Settled {
			want = sold
		}
		want.Total = l.Total // what is not of interest to the slot
		if l.Order.Order != want.Order || !reflect.DeepEqual(l.Order.Identities, want.Identities) || l.Hold != want.Hold || l.Body != want.Body ||
			!reflect.DeepEqual(l.Lines, want.Lines) || l.LimitBuyer != 3 || l.AcceptedAt != want.AcceptedAt || (l.Finished > 0) != l.Settled {
			t.Errorf("live %+v, want %+v", l, want)
		}
	}
	for _, s := range img.Tombstones {
		if s.Settled != (s.Order == back.Order) || s.Finished == 0 || s.Body == 0 || s.Hold.Epoch != 1 {
			t.Errorf("tombstone %+v", s)
		}
	}
	// Two rows of outcomes, the return and the restock are in it. The withdraw is not.
	if ms := b.moves(); img.Covered != 4 || len(ms) != 1 || ms[0].ID != withdraw {
		t.Errorf("covered %d, pending %+v", img.Covered, ms)
	}
	f, err := b.Fence(t.Context(), b.sale.ID)
	if b.ok(err); f.Epoch != 2 || !f.Frozen || f.Seq != 0 {
		t.Errorf("fence %+v", f)
	}
	b.laws()
}

func TestCutWithoutAReplayWindowLeavesTombstonesOut(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.confirmed(b.order("ann", 1))
	gone := b.reserved(b.order("bob", 1))
	b.claim()
	b.settle(orders.Declined, gone)
	def := b.sale
	def.Opens, def.Closes, def.ReplayWindow = def.Opens.Add(-3*time.Hour), def.Opens.Add(-2*time.Hour), time.Hour
	_, err := b.Redefine(t.Context(), def, note)
	b.ok(err)
	if img := b.load(b.sale.ID, 1); len(img.Live) != 1 || len(img.Tombstones) != 0 {
		t.Errorf("image %+v", img)
	}
}

func TestCutComparesTheEpoch(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for _, epoch := range []int64{0, 2} {
		if _, err := b.Cut(t.Context(), b.sale.ID, epoch); !errors.Is(err, orders.ErrEpochMoved) {
			t.Errorf("epoch %d: %v", epoch, err)
		}
		for name, f := range map[string]func(context.Context, engine.SaleID, int64) (bool, error){"freeze": b.Freeze, "unfreeze": b.Unfreeze} {
			if ok, err := f(t.Context(), b.sale.ID, epoch); ok || err != nil {
				t.Errorf("%s at epoch %d: %v, %v", name, epoch, ok, err)
			}
		}
	}
	if _, err := b.Freeze(t.Context(), "nowhere", 1); !errors.Is(err, orders.ErrNoSale) {
		t.Errorf("unknown sale: %v", err)
	}
	var wg sync.WaitGroup
	won := make(chan bool, 4)
	for range 4 {
		wg.Go(func() {
			_, err := b.Cut(t.Context(), b.sale.ID, 1)
			won <- err == nil
		})
	}
	wg.Wait()
	n := 0
	for range 4 {
		if <-won {
			n++
		}
	}
	if n != 1 {
		t.Errorf("%d leaders cut one epoch", n)
	}
}

// The cut waits for transactions that are under way, and sees what they wrote:
// a snapshot taken before the lock would not.
func TestCutSeesWhatItWaitedFor(t *testing.T) {
	t.Parallel()
	b := setup(t)
	tx, err := b.pool.Begin(t.Context())
	b.ok(err)
	b.ok(postgres.LockSaleShared(t.Context(), tx, b.sale.ID))
	got := make(chan orders.Image)
	go func() {
		img, err := b.Cut(context.Background(), b.sale.ID, 1)
		if err != nil {
			t.Error(err)
		}
		got <- img
	}()
	b.waitFor("the cut to wait", func() bool {
		var n int
		b.ok(b.pool.QueryRow(t.Context(), `SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted
			AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`).Scan(&n))
		return n == 1
	})
	_, err = tx.Exec(t.Context(), `UPDATE items SET units = 99 WHERE sku = 'MUG'`)
	b.ok(err)
	b.ok(tx.Commit(t.Context()))
	if img := <-got; img.Sale.Items[0].Units != 99 {
		t.Errorf("units %d, want 99", img.Sale.Items[0].Units)
	}
}

func TestFence(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.ingest(b.order("ann", 1), b.order("bob", 1))
	f, err := b.Fence(t.Context(), "drop")
	b.ok(err)
	if want := (orders.Fence{Sale: "drop", Epoch: 1, State: engine.SaleScheduled, Version: 1, Seq: 2, AcceptedAt: b.sale.Opens.UnixMilli() + 2}); f != want {
		t.Errorf("got %+v, want %+v", f, want)
	}
	if _, err := b.Fence(t.Context(), "nowhere"); !errors.Is(err, orders.ErrNoSale) {
		t.Errorf("unknown sale: %v", err)
	}
}

func TestIncarnations(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	get := func(n int64, err error) int64 { b.ok(err); return n }
	a, c := get(b.Incarnation(t.Context(), "a")), get(b.Incarnation(t.Context(), "c"))
	if a == c || a == 0 || get(b.Incarnation(t.Context(), "a")) != a {
		t.Errorf("a %d, c %d", a, c)
	}
	raised := get(b.RaiseIncarnation(t.Context(), "a", a))
	if raised <= a || raised == c || get(b.RaiseIncarnation(t.Context(), "a", a)) != raised || get(b.Incarnation(t.Context(), "a")) != raised {
		t.Errorf("raised from %d to %d", a, raised)
	}
	had := func(server string, n int64) bool {
		ok, err := b.HadIncarnation(t.Context(), server, n)
		b.ok(err)
		return ok
	}
	if !had("a", a) || !had("a", raised) || had("a", a-1) || had("a", raised+1) || had("c", a) || !had("c", c) || had("c", raised) || had("d", raised) {
		t.Errorf("a had %d to %d, c %d, d none", a, raised, c)
	}
}

func TestMarkers(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	seen := func(nonce string) bool { ok, err := b.SeenMarker(t.Context(), nonce); b.ok(err); return ok }
	if seen("x") {
		t.Error("seen before it came")
	}
	b.ok(b.MarkMarker(t.Context(), "x"))
	b.ok(b.MarkMarker(t.Context(), "x"))
	if !seen("x") || seen("y") {
		t.Error("x is not seen, or y is")
	}
}

func TestPing(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	b.ok(b.Ping(t.Context()))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := b.Ping(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("ctx ended: %v", err)
	}
}
