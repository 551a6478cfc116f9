package door_test

import (
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/doorbuster/doorbuster/engine"
	"github.com/doorbuster/doorbuster/engine/door"
	"github.com/doorbuster/doorbuster/stock"
)

func TestLeaseRunsOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := setup(t)
		b.want(b.buy("ann", "k"), 202, "")
		b.stock.still.Store(true) // recovery is gone
		time.Sleep(1800 * time.Millisecond)
		b.want(b.buy("bob", "k"), 202, "")
		time.Sleep(260 * time.Millisecond)
		calls := b.stock.reserves.Load()
		b.want(b.buy("cid", "k"), 503, "sale-frozen")
		if b.stock.reserves.Load() != calls {
			t.Error("the script was asked without a lease")
		}
		b.want(b.buy("ann", "k", replay), 503, "sale-frozen")
		b.stock.still.Store(false)
		time.Sleep(150 * time.Millisecond)
		b.want(b.buy("cid", "k"), 202, "")
	})
}

// The lease ends while the confirm is waited for: no 202, whatever the broker says.
func TestLeaseEndsBeforeTheConfirm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := setup(t)
		b.want(b.buy("ann", "k"), 202, "")
		b.stock.still.Store(true)
		time.Sleep(1500 * time.Millisecond)
		hold := make(chan struct{})
		b.broker.set(nil, hold)
		go func() { time.Sleep(time.Second); close(hold) }()
		b.want(b.buy("bob", "k"), 503, "outcome-unknown")
		synctest.Wait()
	})
}

// The watch may see a sale well, and a call be fenced all the same.
func TestFencedCallEndsTheLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := setup(t)
		b.want(b.buy("ann", "k"), 202, "")
		b.stock.hook(&b.stock.reserve, func(int) error { return stock.ErrFenced })
		b.want(b.buy("bob", "k"), 503, "sale-frozen")
		b.stock.hook(&b.stock.reserve, nil)
		calls := b.stock.reserves.Load()
		b.want(b.buy("bob", "k"), 503, "sale-frozen")
		if b.stock.reserves.Load() != calls {
			t.Error("the script was asked without a lease")
		}
		time.Sleep(150 * time.Millisecond)
		b.want(b.buy("bob", "k"), 202, "")
	})
}

// And a call may work while the watch sees that the sale is gone.
func TestFencedWatchEndsTheLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := setup(t)
		b.want(b.buy("ann", "k"), 202, "")
		b.stock.hook(&b.stock.watch, func(int) error { return stock.ErrFenced })
		time.Sleep(60 * time.Millisecond)
		b.want(b.buy("bob", "k"), 503, "sale-frozen")
	})
}

// What the memory refuses by is never old: a watch that hangs clears the flags.
func TestOldFlagsDoNotCount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := setup(t, units(1))
		b.want(b.buy("ann", "k"), 202, "")
		time.Sleep(60 * time.Millisecond)
		b.want(b.buy("bob", "k"), 409, "sold-out")
		b.stock.hook(&b.stock.watch, func(int) error { return errReset })
		b.settle(b.broker.orders(t)[0])
		move := engine.Move{ID: 7, Sale: testSale, Op: engine.Restock, Lines: []engine.Line{{SKU: "MUG", Quantity: 1}}}
		if _, err := b.stock.Apply(t.Context(), testSale, b.grip(), []engine.Move{move}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(160 * time.Millisecond)
		b.want(b.buy("bob", "k"), 202, "")
	})
}

// The lease ends while a request gathers: the script is not asked.
func TestLeaseEndsWhileARequestWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := setup(t)
		b.want(b.buy("ann", "k"), 202, "")
		b.stock.still.Store(true)
		time.Sleep(1900 * time.Millisecond)
		b.stock.hook(&b.stock.reserve, func(int) error { time.Sleep(300 * time.Millisecond); return errReset })
		calls := b.stock.reserves.Load()
		for _, r := range all(2, func(i int) reply {
			time.Sleep(time.Duration(i) * time.Millisecond)
			return b.buy(strconv.Itoa(i), "k")
		}) {
			if r.status != 503 {
				t.Error(r.raw)
			}
		}
		if got := b.stock.reserves.Load() - calls; got != 1 {
			t.Errorf("%d calls, want only the one under the lease", got)
		}
	})
}

func TestEpochMovesUnderTheDoor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := setup(t)
		first := b.buy("ann", "k")
		b.want(first, 202, "")
		o := b.broker.orders(t)[0]
		_ = b.stock.Freeze(t.Context(), testSale, 1)
		b.want(b.buy("bob", "k"), 503, "sale-frozen") // the script fences; the watch has not seen it yet
		b.build(2, stock.LiveOrder{Order: o})
		b.want(b.buy("bob", "k"), 503, "sale-frozen") // the new epoch has no lease yet
		time.Sleep(200 * time.Millisecond)
		b.want(b.buy("bob", "k"), 202, "")
		again := b.buy("ann", "k", replay)
		b.want(again, 202, "")
		if again.order() != first.order() || again.body["hold"] != "1.1" {
			t.Errorf("%s", again.raw)
		}
	})
}

// A number that falls comes from an older copy of the slot.
func TestLowerHeartbeatEndsTheLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := setup(t)
		for range 5 {
			_ = b.stock.Beat(t.Context(), testSale, 1)
		}
		b.want(b.buy("ann", "k"), 202, "")
		b.stock.still.Store(true)
		b.sale.Version = 1
		b.stock.Lose()
		b.build(1) // same epoch, number 0
		time.Sleep(60 * time.Millisecond)
		b.want(b.buy("bob", "k"), 503, "sale-frozen")
	})
}

func TestRedisEmptyIsNoReasonToSayNotFound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := setup(t)
		b.want(b.buy("ann", "k"), 202, "")
		b.stock.Lose()
		time.Sleep(200 * time.Millisecond)
		b.want(b.buy("bob", "k"), 503, "sale-frozen")
		time.Sleep(3 * time.Second)
		b.want(b.buy("ann", "k", replay), 503, "sale-frozen")
		if r := b.do(ask{method: "GET", path: "/v1/sales/drop"}); r.body["state"] != "frozen" {
			t.Errorf("%s", r.raw)
		}
		time.Sleep(time.Minute) // long out of use
		b.want(b.buy("ann", "k", replay), 503, "sale-frozen")
		r := b.buy("bob", "k") // his ticket is signed for the sale: there is one
		b.want(r, 503, "sale-frozen")
		if r.header("Retry-After") == "" {
			t.Errorf("no Retry-After: %s", r.raw)
		}
		b.want(b.do(ask{method: "GET", path: "/v1/sales/drop"}), 404, "not-found")
		b.build(2)
		time.Sleep(100 * time.Millisecond) // a ticket holder does not wait for the janitor
		b.want(b.buy("bob", "k"), 202, "")
	})
}

// A sale nobody asks for costs nothing, and comes back with the next request.
func TestIdleSalesCostNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := setup(t)
		b.want(b.buy("ann", "k"), 202, "")
		time.Sleep(20 * time.Second)
		n := b.stock.watches.Load()
		time.Sleep(time.Minute)
		if got := b.stock.watches.Load(); got != n {
			t.Errorf("%d reads of an idle sale", got-n)
		}
		b.want(b.buy("bob", "k"), 202, "")
	})
}

// A sale that is only looked at is read slowly, and at full pace with the first
// order.
func TestCalmWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := setup(t)
		look := func(seconds int) int64 {
			n := b.stock.watches.Load()
			for range seconds {
				b.want(b.do(ask{method: "GET", path: "/v1/sales/drop"}), 200, "")
				time.Sleep(time.Second)
			}
			return (b.stock.watches.Load() - n) / int64(seconds)
		}
		if got := look(10); got > 3 {
			t.Errorf("%d reads per second of a sale that is looked at", got)
		}
		b.want(b.buy("ann", "k"), 202, "")
		if got := look(5); got < 18 {
			t.Errorf("%d reads per second of a sale in use", got)
		}
		look(10)
		if got := look(5); got > 3 {
			t.Errorf("%d reads per second later", got)
		}
	})
}

func TestUnknownSalesAreNotAskedForAgainAndAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := setup(t)
		for range 100 {
			b.want(b.do(ask{method: "GET", path: "/v1/sales/nosuch"}), 404, "not-found")
		}
		if got := b.stock.watches.Load(); got != 1 {
			t.Errorf("%d reads", got)
		}
		b.sale.ID = "nosuch"
		b.build(1)
		time.Sleep(3 * time.Second)
		b.want(b.do(ask{method: "GET", path: "/v1/sales/nosuch"}), 200, "")
	})
}

// Redis is away when the first request of a sale comes, and then it is there and
// knows no such sale, and then it does.
func TestSaleThatIsMissingAfterAFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := setup(t)
		b.stock.hook(&b.stock.watch, func(int) error { return errReset })
		get := func() reply { return b.do(ask{method: "GET", path: "/v1/sales/later"}) }
		b.want(get(), 503, "sale-frozen")
		b.stock.hook(&b.stock.watch, nil)
		time.Sleep(600 * time.Millisecond)
		b.want(get(), 404, "not-found")
		time.Sleep(3 * time.Second)
		reads := b.stock.watches.Load()
		time.Sleep(time.Minute)
		if got := b.stock.watches.Load(); got != reads {
			t.Errorf("%d reads of a sale that is not there", got-reads)
		}
		b.sale.ID = "later"
		b.build(1)
		b.want(get(), 200, "")
	})
}

// Who shows no ticket cannot make the door ask Redis as often as he likes.
func TestManyUnknownSalesAreNotAllLookedUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := setup(t)
		refused := 0
		for i := range 5000 {
			switch r := b.do(ask{method: "GET", path: "/v1/sales/nosuch-" + strconv.Itoa(i)}); r.problem {
			case "overloaded":
				refused++
			case "not-found":
			default:
				t.Fatal(r.raw)
			}
		}
		if got := b.stock.watches.Load(); got > 2000 || refused != 5000-int(got) {
			t.Errorf("%d reads, %d refused", got, refused)
		}
		b.want(b.buy("ann", "k"), 202, "") // who has a ticket is not kept waiting by them
	})
}

// A clock of Redis that leaps must not open or close a sale: the door stands still
// until recovery can have judged it. What an NTP daemon does is no leap.
func TestClockLeapEndsTheLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := setup(t, func(_ *door.Config, s *engine.Sale) { s.Opens = time.Now().Add(9 * time.Minute) })
		b.want(b.buy("ann", "k"), 409, "not-open")
		b.leap.Store(900)
		time.Sleep(150 * time.Millisecond)
		b.leap.Store((10 * time.Minute).Milliseconds())
		time.Sleep(150 * time.Millisecond)
		b.want(b.buy("ann", "k"), 503, "sale-frozen")
		time.Sleep(4500 * time.Millisecond)
		b.want(b.buy("ann", "k"), 503, "sale-frozen")
		if n := b.stock.reserves.Load(); n != 0 {
			t.Errorf("the script was asked %d times", n)
		}
		time.Sleep(700 * time.Millisecond) // nobody paused the sale: the clock was set right
		b.want(b.buy("ann", "k"), 202, "")
		b.leap.Store((9*time.Minute + 30*time.Second).Milliseconds())
		time.Sleep(150 * time.Millisecond)
		b.want(b.buy("bob", "k"), 503, "sale-frozen")
		time.Sleep(5500 * time.Millisecond)
		b.leap.Add(-900)
		time.Sleep(150 * time.Millisecond)
		b.want(b.buy("bob", "k"), 202, "")

		// What leaps while the sale is paused has been judged.
		state := func(to engine.SaleState) {
			if err := b.stock.SetState(t.Context(), testSale, b.grip(), to); err != nil {
				t.Fatal(err)
			}
		}
		state(engine.SalePaused)
		b.leap.Add(-10_000)
		time.Sleep(150 * time.Millisecond)
		b.want(b.buy("cid", "k"), 503, "paused")
		state(engine.SaleOpen)
		time.Sleep(150 * time.Millisecond)
		b.want(b.buy("cid", "k"), 202, "")
	})
}
