package door_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/doorbuster/doorbuster/engine"
	"github.com/doorbuster/doorbuster/engine/door"
	"github.com/doorbuster/doorbuster/engine/ticket"
	"github.com/doorbuster/doorbuster/stock"
)

// fakeArchive is PostgreSQL as far as a door asks it.
type fakeArchive struct {
	sales  map[engine.SaleID]engine.Sale
	orders map[engine.OrderID]door.Ended
	down   atomic.Bool
	silent atomic.Bool // it takes every question and answers none

	asked, now, most atomic.Int64
}

func (f *fakeArchive) question(ctx context.Context) error {
	f.asked.Add(1)
	f.most.Store(max(f.most.Load(), f.now.Add(1)))
	defer f.now.Add(-1)
	if f.silent.Load() {
		<-ctx.Done()
		return ctx.Err()
	}
	if f.down.Load() {
		return errReset
	}
	time.Sleep(time.Millisecond) // of synctest's clock
	return nil
}

func (f *fakeArchive) Sale(ctx context.Context, id engine.SaleID) (engine.Sale, bool, error) {
	if err := f.question(ctx); err != nil {
		return engine.Sale{}, false, err
	}
	s, ok := f.sales[id]
	return s, ok, nil
}

func (f *fakeArchive) Orders(ctx context.Context, ids []engine.OrderID) (known []door.Ended, err error) {
	if len(ids) > engine.MaxGroup {
		return nil, errors.New("too many")
	}
	if err := f.question(ctx); err != nil {
		return nil, err
	}
	for _, id := range ids {
		if e, ok := f.orders[id]; ok {
			known = append(known, e)
		}
	}
	return known, nil
}

// over is a door at a sale that is over and settled, after ann's order was confirmed
// and bob's cancelled.
func over(t *testing.T, f *fakeArchive) (b *bench, ann, bob reply) {
	t.Helper()
	b = setup(t, func(c *door.Config, _ *engine.Sale) { c.Archive = f })
	ann, bob = b.buy("ann", "k"), b.buy("bob", "k")
	b.want(ann, 202, "")
	b.want(bob, 202, "")
	settled := b.sale
	settled.State = engine.SaleSettled
	f.sales, f.orders = map[engine.SaleID]engine.Sale{testSale: settled}, map[engine.OrderID]door.Ended{}
	for _, o := range b.broker.orders(t) {
		e := door.Ended{Order: o, State: engine.Confirmed}
		if o.Buyer == "bob" {
			e.State = engine.Cancelled
		}
		f.orders[o.Order] = e
	}
	if err := b.stock.SetState(t.Context(), testSale, b.grip(), engine.SaleClosed); err != nil {
		t.Fatal(err)
	}
	b.stock.still.Store(true)
	if err := b.stock.Retire(t.Context(), testSale, 1, time.Hour); err != nil {
		t.Fatal(err)
	}
	time.Sleep(3 * time.Second) // every lease has run out
	return b, ann, bob
}

// Redis restarts after a sale was settled, and forgets its scripts, or its keys as well.
// Nobody brings it back: repeats hear from PostgreSQL how their orders ended.
func TestSettledSaleAfterRedisRestarted(t *testing.T) {
	for name, answer := range map[string]error{
		"scripts lost": fmt.Errorf("reserve: %w", stock.ErrFenced), "keys lost": fmt.Errorf("reserve: %w", stock.ErrNoSale),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := &fakeArchive{}
				b, ann, bob := over(t, f)
				if f.asked.Load() != 0 {
					t.Error("PostgreSQL was asked while Redis could answer")
				}
				b.stock.hook(&b.stock.reserve, func(int) error { return answer })
				for range 2 {
					again := b.buy("ann", "k", replay)
					b.want(again, 200, "")
					if again.order() != ann.order() || again.body["status"] != "confirmed" || again.body["hold"] != ann.body["hold"] ||
						again.body["accepted_at"] != ann.body["accepted_at"] || again.body["replayed"] != true {
						t.Errorf("%s, first %s", again.raw, ann.raw)
					}
				}
				if again := b.buy("bob", "k", replay); again.status != 200 || again.order() != bob.order() || again.body["status"] != "cancelled" {
					t.Error(again.raw)
				}
				b.want(b.do(ask{ticket: b.ticket("ann"), key: "k", body: twoMugs, headers: []string{replay}}), 422, "idempotency-mismatch")
				b.want(b.buy("cid", "k", replay), 409, "closed")
				b.want(b.buy("cid", "k"), 409, "closed")

				// A return wakes it: recovery will bring it back, and until then nothing is certain.
				woken := f.sales[testSale]
				woken.State = engine.SaleClosed
				time.Sleep(2 * time.Second)
				f.sales[testSale] = woken
				b.want(b.buy("ann", "k", replay), 503, "sale-frozen")

				// PostgreSQL is away, and comes back.
				f.sales[testSale] = engine.Sale{State: engine.SaleSettled}
				f.down.Store(true)
				time.Sleep(2 * time.Second)
				b.want(b.buy("ann", "k", replay), 503, "sale-frozen")
				f.down.Store(false)
				time.Sleep(2 * time.Second)
				b.want(b.buy("ann", "k", replay), 200, "")
			})
		})
	}
}

// Redis came back empty after a sale was settled, and the door is a new one: it knows
// nothing of the sale, and hears all of it from PostgreSQL.
func TestSettledSaleThatRedisLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeArchive{}
		first, ann, _ := over(t, f)
		b := setup(t, func(c *door.Config, _ *engine.Sale) { c.Archive, c.BuyerRate, c.BuyerBurst = f, 1, 3 })
		b.stock.hook(&b.stock.watch, func(int) error { return stock.ErrNoSale })
		first.stop()
		f.sales[testSale] = engine.Sale{State: engine.SaleSettled, KeyNumber: 1}
		again := b.buy("ann", "k", replay)
		b.want(again, 200, "")
		if again.order() != ann.order() || again.body["status"] != "confirmed" || again.body["hold"] != ann.body["hold"] {
			t.Errorf("%s, first %s", again.raw, ann.raw)
		}
		b.want(b.do(ask{ticket: b.ticket("ann"), key: "k", body: twoMugs, headers: []string{replay}}), 422, "idempotency-mismatch")
		b.want(b.buy("ann", "another", replay), 409, "closed")
		b.want(b.buy("ann", "k", replay), 429, "throttled")
		b.want(b.buy("bob", "k"), 409, "closed")
		b.want(b.do(ask{ticket: b.ticket("bob"), key: "k", body: "{}", headers: []string{replay}}), 422, "invalid")
		b.want(b.do(ask{ticket: b.ticket("bob"), body: oneMug, headers: []string{replay}}), 422, "invalid")
		f.down.Store(true)
		b.want(b.buy("bob", "k", replay), 503, "sale-frozen")

		f.down.Store(false)
		time.Sleep(2 * time.Second)
		f.sales[testSale] = engine.Sale{State: engine.SaleSettled, KeyNumber: 7}
		b.want(b.buy("ann", "k", replay), 503, "sale-frozen") // of a key that this door has not
	})
}

// Somebody has a ticket for a sale that never was. He hears so, PostgreSQL is asked for
// it once a second, two such questions at once, and while it is away nobody says so. When
// the sale comes it is there within a second.
func TestTicketOfASaleThatNeverWas(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeArchive{sales: map[engine.SaleID]engine.Sale{"coming": {State: engine.SaleScheduled}}}
		b := setup(t, func(c *door.Config, _ *engine.Sale) { c.Archive = f })
		at := func(sale engine.SaleID, buyer string) reply {
			return b.do(ask{
				path: "/v1/sales/" + string(sale) + "/orders", key: "k", body: oneMug,
				ticket: b.ticket(buyer, func(t *ticket.Ticket) { t.Sale = sale }),
			})
		}
		b.want(b.buy("ann", "k"), 202, "")
		f.down.Store(true)
		b.want(at("never", "ann"), 503, "sale-frozen")
		f.down.Store(false)
		time.Sleep(1100 * time.Millisecond)

		f.asked.Store(0)
		for range 20 { // 2 s
			for _, r := range all(50, func(i int) reply { return at("never", fmt.Sprint("buyer", i)) }) {
				b.want(r, 404, "not-found")
			}
			time.Sleep(100 * time.Millisecond)
		}
		if n := f.asked.Load(); n > 3 {
			t.Errorf("PostgreSQL was asked %d times in 2 s", n)
		}
		b.want(at("coming", "ann"), 503, "sale-frozen")
		for _, r := range all(60, func(i int) reply { return at(engine.SaleID(fmt.Sprint("never", i)), "ann") }) {
			b.want(r, 404, "not-found")
		}
		if n := f.most.Load(); n > 2 {
			t.Errorf("%d questions at once", n)
		}
		f.silent.Store(true)
		began := time.Now()
		for _, r := range all(60, func(i int) reply { return at(engine.SaleID(fmt.Sprint("silent", i)), "ann") }) {
			b.want(r, 503, "sale-frozen")
		}
		if took := time.Since(began); took > 2*time.Second {
			t.Errorf("they waited %v for a silent PostgreSQL", took)
		}

		b.sale.ID = "never"
		b.build(1)
		time.Sleep(time.Second)
		b.want(at("never", "ann"), 202, "")
	})
}

// A thousand repeats at once ask PostgreSQL by groups, two questions at a time; when it
// is silent all of them hear so within seconds.
func TestSettledSaleDoesNotStormPostgreSQL(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeArchive{}
		b, _, _ := over(t, f)
		b.stock.hook(&b.stock.reserve, func(int) error { return stock.ErrFenced })
		repeats := func(status int) time.Duration {
			t.Helper()
			began := time.Now()
			for _, r := range all(1000, func(i int) reply { return b.buy(fmt.Sprint("buyer", i), "k", replay) }) {
				if r.status != status {
					t.Fatalf("%d %s", r.status, r.raw)
				}
			}
			return time.Since(began)
		}
		if repeats(409); f.most.Load() > 2 {
			t.Errorf("%d questions at once", f.most.Load())
		}
		f.silent.Store(true)
		time.Sleep(2 * time.Second)
		if took := repeats(503); took > 10*time.Second {
			t.Errorf("they waited %v", took)
		}
	})
}
