package door_test

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/doorbuster/doorbuster/engine"
	"github.com/doorbuster/doorbuster/engine/door"
	"github.com/doorbuster/doorbuster/engine/ticket"
	"github.com/doorbuster/doorbuster/stock"
)

// all runs n requests at once and returns what they heard, by number.
func all(n int, do func(i int) reply) []reply {
	replies := make([]reply, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { replies[i] = do(i) })
	}
	wg.Wait()
	return replies
}

// The confirms are held back while the last units go: nobody who may have an
// order ever hears "sold out", and each gets his own on repeating.
func TestConfirmHeldBackWhileTheLastUnitGoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const sold = 20
		b := setup(t, units(sold))
		b.want(b.do(ask{method: "GET", path: "/v1/sales/drop"}), 200, "")
		b.broker.set(nil, make(chan struct{})) // never confirms
		tickets := make([]string, 2*sold)
		for i := range tickets {
			tickets[i] = b.ticket(fmt.Sprint("buyer", i))
		}
		try := func(i int, headers ...string) reply {
			return b.do(ask{ticket: tickets[i], key: "k", body: oneMug, headers: headers})
		}
		first := all(len(tickets), func(i int) reply { return try(i) })
		b.broker.set(nil, nil)
		time.Sleep(60 * time.Millisecond) // the door knows now that it is sold out
		b.want(b.buy("late", "k"), 409, "sold-out")
		unknown, seen := 0, map[string]bool{}
		for i, r := range first {
			if r.problem == "sold-out" {
				continue
			}
			b.want(r, 503, "outcome-unknown")
			unknown++
			if r.header("Retry-After") == "" || r.order() == "" {
				t.Fatalf("no Retry-After or order: %s", r.raw)
			}
			var headers []string
			if i%2 == 0 {
				headers = []string{replay} // the others are remembered by the door
			}
			again := try(i, headers...)
			b.want(again, 202, "")
			if again.order() != r.order() || seen[r.order()] {
				t.Fatalf("first %s, again %s", r.raw, again.raw)
			}
			seen[r.order()] = true
		}
		if unknown != sold {
			t.Errorf("%d heard 503, want %d: one for each unit", unknown, sold)
		}
		published := map[engine.OrderID]bool{}
		for _, o := range b.broker.orders(t) {
			published[o.Order] = true
		}
		for id := range seen {
			if !published[engine.OrderID(id)] {
				t.Errorf("order %s was never published", id)
			}
		}
	})
}

func TestRepeatIsRememberedForAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := setup(t, units(1))
		b.broker.set(errReset, nil)
		b.want(b.buy("ann", "k"), 503, "outcome-unknown")
		b.broker.set(nil, nil)
		b.want(b.buy("ann", "k"), 202, "")
		time.Sleep(10 * time.Second)
		b.want(b.buy("ann", "k"), 202, "")
		time.Sleep(51 * time.Second)
		_ = b.do(ask{method: "GET", path: "/v1/sales/drop"})
		b.want(b.buy("bob", "k"), 409, "sold-out")
		b.want(b.buy("ann", "k"), 409, "sold-out") // without the header, she is anybody now
		b.want(b.buy("ann", "k", replay), 202, "")
	})
}

func TestFiftyRequestsUnderOneKey(t *testing.T) {
	for _, one := range []bool{false, true} {
		b := setup(t, func(c *door.Config, _ *engine.Sale) { c.GroupOfOne = one })
		token := b.ticket("ann")
		fresh := 0
		replies := all(50, func(int) reply { return b.do(ask{ticket: token, key: "k", body: oneMug}) })
		for _, r := range replies {
			b.want(r, 202, "")
			if r.order() != replies[0].order() {
				t.Fatal("two orders under one key")
			}
			if r.body["replayed"] == nil {
				fresh++
			}
		}
		w, _ := b.stock.Model.Watch(t.Context(), testSale, 0)
		if fresh != 1 || w.Items[1].Available != 999 || w.Seq != 1 {
			t.Errorf("%d heard of a new order; %+v", fresh, w.Items)
		}
	}
}

// A call that failed took units, or did not: nobody hears anything final, and
// those it took are found on repeating.
func TestNothingFinalAfterAFailedCall(t *testing.T) {
	for name, c := range map[string]struct {
		before, after error
		problem       string
	}{
		"answer lost":        {after: errReset, problem: "outcome-unknown"},
		"call lost":          {before: errReset, problem: "outcome-unknown"},
		"call timed out":     {before: context.DeadlineExceeded, problem: "outcome-unknown"},
		"Redis not there":    {before: fmt.Errorf("reserve: %w", &net.OpError{Op: "dial", Err: errReset}), problem: "sale-frozen"},
		"fenced":             {before: fmt.Errorf("reserve: %w", stock.ErrFenced), problem: "sale-frozen"},
		"state gone":         {before: stock.ErrNoSale, problem: "sale-frozen"},
		"definition changes": {before: stock.ErrStale, problem: "sale-frozen"},
	} {
		b := setup(t, units(1))
		b.want(b.do(ask{ticket: b.ticket("eve"), key: "k", body: `{"lines":[{"sku":"CAP.red","quantity":1}],"total":{"amount":900,"currency":"KRW"}}`}), 202, "")
		b.stock.hook(&b.stock.reserve, func(int) error { return c.before })
		b.stock.hook(&b.stock.lost, func(int) error { return c.after })
		tickets := make([]string, 30)
		for i := range tickets {
			tickets[i] = b.ticket(fmt.Sprint("buyer", i))
		}
		for _, r := range all(len(tickets), func(i int) reply { return b.do(ask{ticket: tickets[i], key: "k", body: oneMug}) }) {
			if r.status != 503 || r.problem != c.problem && r.problem != "sale-frozen" {
				t.Errorf("%s: %d %s", name, r.status, r.raw)
			}
		}
		b.stock.hook(&b.stock.reserve, nil)
		b.stock.hook(&b.stock.lost, nil)
		taken := 0
		for i := range tickets {
			until(t, func() bool {
				r := b.do(ask{ticket: tickets[i], key: "k", body: oneMug, headers: []string{replay}})
				if r.status == 202 {
					taken++
				}
				return r.status != 503
			})
		}
		if taken != 1 {
			t.Errorf("%s: %d have the unit", name, taken)
		}
	}
}

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
		b.want(b.buy("bob", "k"), 404, "not-found")
		b.build(2)
		time.Sleep(2500 * time.Millisecond)
		b.want(b.buy("bob", "k"), 202, "")
	})
}

func TestDefinitionChangesUnderTheDoor(t *testing.T) {
	b := setup(t)
	b.want(b.buy("ann", "k"), 202, "")
	b.sale.Version, b.sale.Items[0].Price = 2, 1600
	if err := b.stock.Redefine(t.Context(), testSale, b.grip(), b.sale); err != nil {
		t.Fatal(err)
	}
	b.want(b.do(ask{ticket: b.ticket("bob"), key: "k", body: `{"lines":[{"sku":"MUG","quantity":1}],"total":{"amount":1600,"currency":"KRW"}}`}), 202, "")
	orders := b.broker.orders(t)
	if last := orders[len(orders)-1]; last.Lines[0].Price != 1600 {
		t.Errorf("%+v", last)
	}
	b.want(b.buy("cid", "k"), 409, "price-changed")
	b.want(b.buy("ann", "k", replay), 202, "")
}

// Requests gather while a call is in flight, and no more groups are between
// script and confirm than may be.
func TestRequestsGather(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := setup(t)
		b.want(b.buy("first", "k"), 202, "")
		calls := b.stock.reserves.Load()
		b.stock.hook(&b.stock.reserve, func(int) error { time.Sleep(time.Millisecond); return nil })
		hold := make(chan struct{})
		b.broker.set(nil, hold)
		tickets := make([]string, 600)
		for i := range tickets {
			tickets[i] = b.ticket(fmt.Sprint("buyer", i))
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			for i, r := range all(len(tickets), func(i int) reply {
				time.Sleep(time.Duration(i) * 10 * time.Microsecond) // one by one
				return b.do(ask{ticket: tickets[i], key: "k", body: oneMug})
			}) {
				if r.status != 202 {
					t.Errorf("%d: %d %s", i, r.status, r.raw)
				}
			}
		}()
		time.Sleep(100 * time.Millisecond)
		if got := b.stock.reserves.Load() - calls; got != 4 {
			t.Errorf("%d calls while no confirm came, want 4", got)
		}
		if got := b.broker.waiting.Load(); got != 4 {
			t.Errorf("%d groups in flight, want 4", got)
		}
		close(hold)
		<-done
		if got := b.stock.mostAtOnce.Load(); got != 1 {
			t.Errorf("%d calls at once", got)
		}
		if got := b.stock.reserves.Load() - calls; got > 12 || b.stock.largest.Load() > engine.MaxGroup {
			t.Errorf("%d calls for 600 requests, the largest %d", got, b.stock.largest.Load())
		}
		synctest.Wait()
		if got := b.stock.marked.Load(); got != b.stock.reserves.Load() {
			t.Errorf("%d entries marked", got)
		}
	})
}

func TestGateClosesBeforeAnyDecrement(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := setup(t, func(c *door.Config, _ *engine.Sale) { c.GateMin, c.GateMax = 40, 40 })
		b.want(b.buy("first", "k"), 202, "")
		hold := make(chan struct{})
		b.broker.set(nil, hold)
		go func() { time.Sleep(100 * time.Millisecond); close(hold) }()
		refused, waits := 0, map[string]bool{}
		tickets := make([]string, 100)
		for i := range tickets {
			tickets[i] = b.ticket(fmt.Sprint("buyer", i))
		}
		for _, r := range all(len(tickets), func(i int) reply { return b.do(ask{ticket: tickets[i], key: "k", body: oneMug}) }) {
			if r.status == 202 {
				continue
			}
			b.want(r, 503, "overloaded")
			refused++
			waits[r.header("Retry-After")] = true
		}
		if refused != 60 || len(waits) < 2 {
			t.Errorf("%d refused, Retry-After %v", refused, waits)
		}
		if w, _ := b.stock.Model.Watch(t.Context(), testSale, 0); w.Seq != 41 {
			t.Errorf("%d units taken", w.Seq)
		}
		b.broker.set(nil, nil)
		b.broker.blocked.Store(true)
		b.want(b.buy("ann", "k"), 503, "overloaded")
		b.broker.blocked.Store(false)
		_ = b.stock.SetLag(t.Context(), testSale, b.grip(), 60_000)
		time.Sleep(60 * time.Millisecond)
		b.want(b.buy("ann", "k"), 503, "overloaded")
		_ = b.stock.SetLag(t.Context(), testSale, b.grip(), 0)
		time.Sleep(60 * time.Millisecond)
		b.want(b.buy("ann", "k"), 202, "")
	})
}

func TestPanicInACallAnswersEveryMember(t *testing.T) {
	b := setup(t)
	b.want(b.buy("ann", "k"), 202, "")
	b.stock.hook(&b.stock.reserve, func(int) error { panic("nil map") })
	b.want(b.buy("bob", "k"), 503, "outcome-unknown")
	b.stock.hook(&b.stock.reserve, nil)
	b.want(b.buy("bob", "k"), 202, "")
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

func TestStoppedDoorTakesNothing(t *testing.T) {
	b := setup(t)
	b.want(b.buy("ann", "k"), 202, "")
	b.stop()
	for i := range 3 {
		b.want(b.buy("bob", strconv.Itoa(i)), 503, "sale-frozen")
	}
	b.want(b.do(ask{path: "/v1/sales/other/orders", ticket: b.ticket("bob", func(t *ticket.Ticket) { t.Sale = "other" }), key: "k", body: oneMug}), 503, "sale-frozen")
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

// The gate narrows when the answers become slower than they can be, and widens
// again.
func TestGateAdapts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg := prometheus.NewRegistry()
		b := setup(t, units(1<<20), func(c *door.Config, s *engine.Sale) { c.Registerer, c.GateMax, s.LimitPerBuyer = reg, 256, 0 })
		pace := func(d time.Duration) {
			b.stock.hook(&b.stock.reserve, func(int) error { time.Sleep(d); return nil })
		}
		limit := func() float64 { return gathered(t, reg, "doorbuster_door_gate_limit_requests") }
		tickets := make([]string, 200)
		for i := range tickets {
			tickets[i] = b.ticket(fmt.Sprint("buyer", i))
		}
		n := 0
		storm := func(rounds int) {
			for range rounds {
				n++
				all(len(tickets), func(i int) reply { return b.do(ask{ticket: tickets[i], key: strconv.Itoa(n), body: oneMug}) })
			}
		}
		pace(time.Millisecond)
		storm(200)
		if got := limit(); got != 256 {
			t.Errorf("limit %v after a storm in time, want all that may be", got)
		}
		pace(40 * time.Millisecond)
		storm(20)
		narrow := limit()
		if narrow > 192 || narrow < 32 {
			t.Errorf("limit %v after a slow storm", narrow)
		}
		pace(time.Millisecond)
		storm(400)
		if wide := limit(); wide <= narrow {
			t.Errorf("limit %v of %v after it was quick again", wide, narrow)
		}
	})
}

func gathered(t *testing.T, reg *prometheus.Registry, name string) float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			return f.GetMetric()[0].GetGauge().GetValue()
		}
	}
	t.Fatalf("no metric %s", name)
	return 0
}
