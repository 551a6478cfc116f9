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

func TestPanicInACallAnswersEveryMember(t *testing.T) {
	b := setup(t)
	b.want(b.buy("ann", "k"), 202, "")
	b.stock.hook(&b.stock.reserve, func(int) error { panic("nil map") })
	b.want(b.buy("bob", "k"), 503, "outcome-unknown")
	b.stock.hook(&b.stock.reserve, nil)
	b.want(b.buy("bob", "k"), 202, "")
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
