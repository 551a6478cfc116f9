package payment_test

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"github.com/doorbuster/doorbuster/engine"
	"github.com/doorbuster/doorbuster/payment"
	"github.com/doorbuster/doorbuster/payment/provider"
	"github.com/doorbuster/doorbuster/stock"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/jackc/pgx/v5/pgxpool.(*Pool).backgroundHealthCheck"))
}

func orderID(n int) engine.OrderID {
	id := []byte(strings.Repeat("a", engine.OrderIDLen))
	for i := len(id) - 1; n > 0; i-- {
		id[i] = "abcdefghijklmnopqrstuvwxyz234567"[n%32]
		n /= 32
	}
	return engine.OrderID(id)
}

func order(n int, epoch int64) engine.Order {
	lines := []engine.Line{{SKU: "MUG", Quantity: 1, Price: 700}}
	return engine.Order{
		Basket: engine.Basket{
			Order: orderID(n), Buyer: engine.BuyerID("b" + string(orderID(n))), Lines: lines, Total: 700,
			Body: engine.BodyHash(lines, 700, "KRW"),
		},
		Hold: engine.Hold{Epoch: epoch, Seq: int64(n)}, AcceptedAt: time.Now().UnixMilli(), LimitBuyer: 2,
	}
}

func envelope(from, n int, epoch int64) []byte {
	e := engine.Envelope{Sale: "drop"}
	for i := range n {
		e.Orders = append(e.Orders, order(from+i, epoch))
	}
	return engine.AppendEnvelope(nil, &e)
}

// bench is a worker over fakes.
type bench struct {
	h       *house
	s       *shelf
	q       *pipe
	p       provider.Provider
	instant *provider.Instant
	stop    func()
	log     *slog.Logger
	reg     *prometheus.Registry
	payers  int
}

func newBench(t *testing.T) *bench {
	t.Helper()
	b := &bench{h: newHouse(), s: newShelf(1), q: newPipe(), instant: provider.NewInstant()}
	b.p = b.instant
	return b
}

func (b *bench) start(t *testing.T) {
	t.Helper()
	b.reg = prometheus.NewRegistry()
	w, err := payment.New(payment.Config{
		Orders: b.h, Stock: b.s, Ledger: b.h, Providers: map[string]provider.Provider{"p": b.p},
		Source: b.q.source, Payers: b.payers, DrainFor: 2 * time.Second, Logger: b.log, Registerer: b.reg,
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- w.Run(ctx) }()
	var once sync.Once
	b.stop = func() {
		once.Do(func() {
			cancel()
			if err := <-ended; err != nil {
				t.Errorf("Run: %v", err)
			}
		})
	}
	t.Cleanup(b.stop)
}

// atRest waits until n orders are terminal and nothing is owed to the provider.
func (b *bench) atRest(t *testing.T, n int) {
	t.Helper()
	b.h.until(t, "everything at rest", func() bool {
		c := b.h.counts()
		return c[engine.Confirmed]+c[engine.Cancelled] == n && c[engine.Paying]+c[engine.Reserved] == 0 && len(b.h.tasks) == 0
	})
}

// lawSix stops the worker and compares the provider's book with the orders.
func (b *bench) lawSix(t *testing.T) {
	t.Helper()
	b.stop() // what follows reads without locks
	live := map[engine.OrderID]provider.Charge{}
	for c, err := range b.instant.Ledger(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		if c.State == provider.StateAuthorised || c.Captured > c.Refunded {
			if _, twice := live[c.Order]; twice {
				t.Errorf("order %s charged twice", c.Order)
			}
			live[c.Order] = c
		}
	}
	for id, r := range b.h.rows {
		c, charged := live[id]
		if want := r.state == engine.Confirmed; charged != want {
			t.Errorf("order %s is %v (%v), charged: %v", id, r.state, r.reason, charged)
		}
		if charged && c.Captured != 700 {
			t.Errorf("order %s: captured %d of 700", id, c.Captured)
		}
		if charged && b.h.postings[provider.Key(id, 1)] != 700 {
			t.Errorf("order %s: posted %d", id, b.h.postings[provider.Key(id, 1)])
		}
	}
}

func TestEnvelopesAreConfirmedOnceHoweverOftenTheyCome(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	for range 3 {
		b.q.publish(envelope(1, 256, 1), envelope(257, 100, 1))
	}
	b.start(t)
	b.atRest(t, 356)
	b.lawSix(t)
	if c := b.h.counts(); c[engine.Confirmed] != 356 || b.q.acked+len(b.q.ready) != 6 {
		t.Errorf("%v, %d acked, %d not taken yet", c, b.q.acked, len(b.q.ready))
	}
}

func TestOnePoisonOrderTakesNobodyWithIt(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.h.poison = orderID(77)
	body := strings.Replace(string(envelope(1, 256, 1)), string(orderID(99))+"|1.99|", string(orderID(99))+"|1.99x|", 1)
	b.q.publish([]byte(body))
	b.start(t)
	b.atRest(t, 254)
	b.h.until(t, "rejects", func() bool { return len(b.h.rejected) == 2 })
	b.lawSix(t)
	poison, unread := b.h.rejected[orderID(77)], b.h.rejected[orderID(99)]
	if poison.Known == nil || poison.Known.Hold != (engine.Hold{Epoch: 1, Seq: 77}) || !strings.Contains(body, "\n"+string(poison.Bytes)+"\n") {
		t.Errorf("poison: %+v, bytes %q", poison, poison.Bytes)
	}
	if unread.Known != nil || !strings.HasPrefix(string(unread.Bytes), string(orderID(99))) {
		t.Errorf("unreadable: %+v", unread)
	}
}

func TestUnreadableMessageIsPutAside(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.q.publish([]byte("9E|drop\nx"), envelope(1, 2, 1), []byte(""))
	b.start(t)
	b.atRest(t, 2)
	b.h.until(t, "dead letters", func() bool { b.q.mu.Lock(); defer b.q.mu.Unlock(); return len(b.q.dead) == 2 })
}

// While the database is down nothing is acknowledged and nothing is dropped.
func TestDatabaseDownDelaysAndLosesNothing(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	var down atomic.Bool
	var tries atomic.Int64
	seen := make(chan struct{})
	b.h.before = func(step string) error {
		if !down.Load() {
			return nil
		}
		if step == "ingest" && tries.Add(1) == 3 {
			close(seen)
		}
		return errDown
	}
	down.Store(true)
	b.q.publish([]byte("1M|n1"), envelope(1, 10, 1)) // as handed over together
	b.start(t)
	<-seen
	b.q.mu.Lock()
	if b.q.acked != 0 || len(b.q.dead) != 0 {
		t.Errorf("acked %d, dead %d while the database was down", b.q.acked, len(b.q.dead))
	}
	b.q.mu.Unlock()
	down.Store(false)
	b.atRest(t, 10)
	b.h.until(t, "marker", func() bool { return len(b.h.markers) == 1 && b.h.markers[0] == "n1 behind 10" })
	b.lawSix(t)
}

// A worker that stops while the database is down leaves its messages to the next.
func TestStopWhileDownLeavesTheMessages(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	tried := make(chan struct{})
	var once sync.Once
	b.h.before = func(step string) error {
		if step == "ingest" {
			once.Do(func() { close(tried) })
		}
		return errDown
	}
	b.q.publish(envelope(1, 10, 1))
	b.start(t)
	<-tried
	b.stop()
	if len(b.q.ready) != 1 || b.q.acked != 0 {
		t.Fatalf("%d messages left, %d acked", len(b.q.ready), b.q.acked)
	}
	b.h.before = func(string) error { return nil }
	b.start(t)
	b.atRest(t, 10)
}

func TestDeclinedIsCancelledAndNothingIsLeft(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.instant.Decline = func(r provider.Request) bool { return r.Order == orderID(3) }
	b.q.publish(envelope(1, 5, 1))
	b.start(t)
	b.atRest(t, 5)
	b.lawSix(t)
	if r := b.h.rows[orderID(3)]; r.state != engine.Cancelled || r.reason != engine.ReasonDeclined {
		t.Errorf("%v %v", r.state, r.reason)
	}
}

func TestStaleOrdersAreTakenAgain(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.h.epoch = 2
	b.s.watch.Epoch = 2
	b.s.watch.Frozen = true
	b.s.refuse[orderID(5)] = engine.SoldOut
	var tries atomic.Int64
	b.s.before = func(step string) error {
		switch n := tries.Add(1); {
		case step == "watch" && n == 2:
			b.s.mu.Lock()
			b.s.watch.Frozen = false
			b.s.mu.Unlock()
		case step == "retake" && n < 5:
			return stock.ErrFenced
		}
		return nil
	}
	b.q.publish(envelope(1, 300, 1)) // taken again in two groups
	b.start(t)
	b.atRest(t, 300)
	b.lawSix(t)
	for id, r := range b.h.rows {
		if id == orderID(5) {
			if r.state != engine.Cancelled || r.reason != engine.ReasonEpoch || r.Hold != (engine.Hold{Epoch: 1, Seq: 5}) {
				t.Errorf("refused: %v %v %v", r.state, r.reason, r.Hold)
			}
		} else if r.state != engine.Confirmed || r.Hold.Epoch != 2 {
			t.Errorf("%s: %v under %v", id, r.state, r.Hold)
		}
	}
	for _, k := range b.s.taken {
		if k.Max != 2 {
			t.Fatalf("taken again under limit %d, accepted under 2", k.Max)
		}
	}
	if len(b.s.marked) != 2 {
		t.Errorf("entries marked: %v", b.s.marked)
	}
}

// The epoch moves between the take and the commit: taken again once more.
func TestEpochMovesDuringRetake(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.h.epoch, b.s.watch.Epoch = 2, 2
	var once sync.Once
	b.s.before = func(step string) error {
		if step == "retake" {
			once.Do(func() {
				b.h.mu.Lock()
				b.h.epoch = 3
				b.h.mu.Unlock()
				b.s.mu.Lock()
				b.s.watch.Epoch = 3 // the grip in hand is of 2 still
				b.s.mu.Unlock()
			})
		}
		return nil
	}
	b.q.publish(envelope(1, 4, 1))
	b.start(t)
	b.atRest(t, 4)
	b.lawSix(t)
	for id, r := range b.h.rows {
		if r.Hold.Epoch != 3 {
			t.Errorf("%s under %v", id, r.Hold)
		}
	}
}

func TestShutdownDrainsWhatWasTaken(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	asked, goOn := make(chan struct{}), make(chan struct{})
	var once sync.Once
	b.p = &troubled{b.instant, func(call, _ string) (error, bool) {
		if call == "authorise" {
			once.Do(func() { close(asked) })
			<-goOn
		}
		return nil, true
	}}
	b.q.publish(envelope(1, 20, 1))
	b.start(t)
	<-asked
	stopped := make(chan struct{})
	go func() { defer close(stopped); b.stop() }()
	close(goOn)
	<-stopped
	if c := b.h.counts(); c[engine.Confirmed] != 20 || len(b.h.tasks) != 0 {
		t.Errorf("after the drain: %v, %d tasks", c, len(b.h.tasks))
	}
	b.lawSix(t)
}

// When the payers are busy, ingest goes on without claiming, and a poll takes what
// it wrote.
func TestIngestDoesNotWaitForPayers(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.payers = 1
	goOn := make(chan struct{})
	b.p = &troubled{b.instant, func(call, _ string) (error, bool) {
		if call == "authorise" {
			<-goOn
		}
		return nil, true
	}}
	for i := range 12 {
		b.q.publish(envelope(1+10*i, 10, 1))
	}
	b.start(t)
	b.h.until(t, "all written", func() bool { return len(b.h.rows) == 120 })
	close(goOn)
	b.atRest(t, 120)
	b.lawSix(t)
}

func TestNewRefuses(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	good := payment.Config{Orders: b.h, Stock: b.s, Ledger: b.h, Providers: map[string]provider.Provider{"p": b.p}, Source: b.q.source}
	for name, change := range map[string]func(*payment.Config){
		"no orders":          func(c *payment.Config) { c.Orders = nil },
		"no provider":        func(c *payment.Config) { c.Providers = nil },
		"no source":          func(c *payment.Config) { c.Source = nil },
		"too many envelopes": func(c *payment.Config) { c.Envelopes = payment.MaxEnvelopes + 1 },
	} {
		c := good
		change(&c)
		if _, err := payment.New(c); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
