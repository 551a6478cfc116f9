package door_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/doorbuster/doorbuster/engine"
	"github.com/doorbuster/doorbuster/engine/door"
)

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
		time.Sleep(100 * time.Millisecond)
		if got, batches := b.stock.marked.Load(), b.stock.marks.Load(); got != b.stock.reserves.Load() || batches > 5 {
			t.Errorf("%d entries marked in %d batches", got, batches)
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

// The gate narrows when the answers become slower than they can be, and widens
// again.
func TestGateAdapts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg := prometheus.NewRegistry()
		b := setup(t, units(1<<20), func(c *door.Config, s *engine.Sale) {
			c.Registerer, c.GateMin, c.GateMax, s.LimitPerBuyer = reg, 32, 256, 0
		})
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

// A gate that is told to be narrower than its usual minimum stays as narrow when its
// answers are late, and those that it refuses are never counted as being in.
func TestGateStaysBelowItsMost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const most = 8
		reg := prometheus.NewRegistry()
		b := setup(t, units(1<<20), func(c *door.Config, s *engine.Sale) {
			c.Registerer, c.GateMax, c.BuyerRate, c.BuyerBurst, s.LimitPerBuyer = reg, most, 1e6, 1e6, 0
		})
		b.want(b.buy("first", "k"), 202, "")
		b.stock.hook(&b.stock.reserve, func(int) error { time.Sleep(60 * time.Millisecond); return nil })
		tickets := make([]string, 100)
		for i := range tickets {
			tickets[i] = b.ticket(fmt.Sprint("buyer", i))
		}
		for n := range 15 { // a buyer has at most 20 orders of a sale
			accepted := 0
			for _, r := range all(len(tickets), func(i int) reply { return b.do(ask{ticket: tickets[i], key: strconv.Itoa(n), body: oneMug}) }) {
				if r.status == 202 {
					accepted++
				}
			}
			if limit := gathered(t, reg, "doorbuster_door_gate_limit_requests"); accepted != most || limit != most {
				t.Fatalf("round %d: %d accepted at once, limit %v; want %d", n, accepted, limit, most)
			}
		}
		if got := b.stock.largest.Load(); got > most {
			t.Errorf("a group of %d", got)
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

// Several calls at once: a lane that finds its requests taken by another ends, and
// every group is still one of at most four.
func TestSeveralCallsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		b := setup(t, func(c *door.Config, _ *engine.Sale) { c.Calls, c.Logger = 3, slog.New(slog.NewTextHandler(&log, nil)) })
		b.want(b.buy("first", "k"), 202, "")
		b.stock.hook(&b.stock.reserve, func(int) error { time.Sleep(3 * time.Millisecond); return nil })
		tickets := make([]string, 500)
		for i := range tickets {
			tickets[i] = b.ticket(fmt.Sprint("buyer", i))
		}
		orders := map[string]bool{}
		for i, r := range all(len(tickets), func(i int) reply {
			time.Sleep(time.Duration(i/4) * time.Millisecond) // some while calls are in flight, some between them
			return b.do(ask{ticket: tickets[i], key: "k", body: oneMug})
		}) {
			if r.status != 202 || orders[r.order()] {
				t.Errorf("%d: %d %s", i, r.status, r.raw)
			}
			orders[r.order()] = true
		}
		if got := b.stock.mostAtOnce.Load(); got < 2 || got > 3 {
			t.Errorf("%d calls at once, want 2 or 3", got)
		}
		if w, _ := b.stock.Model.Watch(t.Context(), testSale, 0); w.Seq != 501 {
			t.Errorf("%d orders taken, want 501", w.Seq)
		}
		b.stop()
		if log.Len() > 0 {
			t.Errorf("the door complains:\n%.400s", log.String())
		}
	})
}
