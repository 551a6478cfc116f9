package payment_test

import (
	"context"
	"net"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/doorbuster/doorbuster/engine"
	"github.com/doorbuster/doorbuster/engine/backing/backingtest"
	"github.com/doorbuster/doorbuster/engine/orders"
	"github.com/doorbuster/doorbuster/engine/postgres"
	"github.com/doorbuster/doorbuster/engine/queue"
	"github.com/doorbuster/doorbuster/payment"
	"github.com/doorbuster/doorbuster/payment/ledger"
	"github.com/doorbuster/doorbuster/payment/provider"
	"github.com/doorbuster/doorbuster/payment/provider/sandbox"
	"github.com/doorbuster/doorbuster/stock"
)

// site is a worker on real servers: a database, a queue prefix and a sale of the
// test's own.
type site struct {
	sale   engine.SaleID
	pool   *pgxpool.Pool
	orders *orders.Store
	books  *ledger.Store
	stock  *stock.Store
	queue  queue.Config
	pub    *queue.Publisher
	name   string
	p      provider.Provider
	epoch  int64
}

const units = 1_000_000

func newSite(t testing.TB, name string, p provider.Provider) *site {
	t.Helper()
	url := backingtest.Database(t)
	must(t, orders.Migrate(t.Context(), url))
	must(t, ledger.Migrate(t.Context(), url))
	pool, err := postgres.Open(t.Context(), url, postgres.Options{MaxConns: 10})
	must(t, err)
	t.Cleanup(pool.Close)
	r := &site{
		sale: backingtest.Sale(t), pool: pool, orders: orders.New(pool), books: ledger.New(pool),
		stock: stock.New(backingtest.Redis(t)), queue: queue.Config{URL: backingtest.AMQP(t), Prefix: backingtest.QueuePrefix(t)},
		name: name, p: p,
	}
	r.create(t)
	must(t, queue.Declare(t.Context(), r.queue))
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		if err := queue.Delete(ctx, r.queue); err != nil {
			t.Errorf("delete queues: %v", err)
		}
	})
	r.pub = queue.NewPublisher(r.queue)
	running(t, r.pub.Run)
	return r
}

// create makes the sale and opens it.
func (r *site) create(t testing.TB) {
	t.Helper()
	now := time.Now().UTC().Truncate(time.Millisecond)
	must(t, r.orders.CreateSale(t.Context(), engine.Sale{
		ID: r.sale, Name: "drop", KeyNumber: 1, Mode: engine.ModeStandard, Payment: engine.PayAtOrder, Provider: r.name, Currency: "KRW",
		Opens: now.Add(-time.Minute), Closes: now.Add(time.Hour), LimitPerBuyer: 2, HoldFor: time.Minute, ReplayWindow: time.Hour,
		Items: []engine.Item{{SKU: "MUG", Name: "mug", Price: 700, Units: units}},
	}, orders.Note{Who: "test", Why: "test"}))
	r.rebuild(t)
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// running runs a part of the house until the test ends.
func running(t testing.TB, run func(context.Context) error) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- run(ctx) }()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cancel()
			if err := <-ended; err != nil {
				t.Errorf("run: %v", err)
			}
		})
	}
	t.Cleanup(stop)
	return stop
}

// rebuild moves the sale to its next epoch, as recovery does.
func (r *site) rebuild(t testing.TB) {
	t.Helper()
	r.thaw(t, r.cut(t))
}

// cut begins a rebuild: the sale is frozen in its next epoch.
func (r *site) cut(t testing.TB) orders.Image {
	t.Helper()
	img, err := r.orders.Cut(t.Context(), r.sale, r.epoch)
	must(t, err)
	r.epoch = img.Sale.Epoch
	return img
}

// thaw ends a rebuild.
func (r *site) thaw(t testing.TB, img orders.Image) {
	t.Helper()
	ctx := t.Context()
	const incarnation = 1
	live := make([]stock.LiveOrder, len(img.Live))
	for i, o := range img.Live {
		live[i] = stock.LiveOrder{Order: o.Order, Settled: o.Settled, Finished: o.Finished}
	}
	must(t, r.stock.Build(ctx, stock.Image{Sale: img.Sale, Epoch: r.epoch, Incarnation: incarnation, Live: live}))
	must(t, r.stock.Load(ctx, r.sale, incarnation))
	if ok, err := r.orders.Unfreeze(ctx, r.sale, r.epoch); err != nil || !ok {
		t.Fatalf("unfreeze: %v, %v", ok, err)
	}
}

func (r *site) start(t testing.TB) (stop func()) {
	t.Helper()
	w, err := payment.New(payment.Config{
		Orders: r.orders, Stock: r.stock, Ledger: r.books, Providers: map[string]provider.Provider{r.name: r.p}, Queue: r.queue,
	})
	must(t, err)
	return running(t, w.Run)
}

// envelopes writes n orders of this epoch, numbers from up, as the door does.
func (r *site) envelopes(from, n int) (bodies [][]byte) {
	for at := 0; at < n; at += engine.MaxGroup {
		e := engine.Envelope{Sale: r.sale}
		for i := at; i < min(at+engine.MaxGroup, n); i++ {
			o := order(from+i, r.epoch)
			o.Identities = []engine.Identity{{1, byte(i >> 16), byte(i >> 8), byte(i)}}
			e.Orders = append(e.Orders, o)
		}
		bodies = append(bodies, engine.AppendEnvelope(nil, &e))
	}
	return bodies
}

func (r *site) publish(t testing.TB, bodies [][]byte) {
	t.Helper()
	var calls sync.WaitGroup
	at := make(chan []byte)
	for range 16 {
		calls.Go(func() {
			for b := range at {
				for {
					ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
					err := r.pub.Publish(ctx, r.sale, b)
					cancel()
					if err == nil {
						break
					}
					if t.Context().Err() != nil {
						return
					}
				}
			}
		})
	}
	for _, b := range bodies {
		at <- b
	}
	close(at)
	calls.Wait()
}

// figures is what PostgreSQL knows.
type figures struct{ confirmed, cancelled, open, charges, captured, postings, posted, claimed, owed, rejected int64 }

func (r *site) figures(t testing.TB) (f figures) {
	t.Helper()
	must(t, r.pool.QueryRow(t.Context(), `SELECT
		(SELECT count(*) FROM orders WHERE state = 3), (SELECT count(*) FROM orders WHERE state = 4), (SELECT count(*) FROM orders WHERE state < 3),
		(SELECT count(*) FROM charges), (SELECT count(*) FROM charges WHERE state = 2), (SELECT count(*) FROM postings),
		(SELECT coalesce(sum(amount), 0) FROM postings)::bigint, (SELECT sum(claimed) FROM items)::bigint,
		(SELECT coalesce(sum(cardinality(orders)), 0) FROM tasks)::bigint, (SELECT count(*) FROM rejected)`).
		Scan(&f.confirmed, &f.cancelled, &f.open, &f.charges, &f.captured, &f.postings, &f.posted, &f.claimed, &f.owed, &f.rejected))
	return f
}

// atRest polls until n orders have ended and nothing is owed.
func (r *site) atRest(t testing.TB, n int64) figures {
	t.Helper()
	deadline := time.Now().Add(60 * time.Second)
	for {
		f := r.figures(t)
		if f.confirmed+f.cancelled == n && f.open == 0 && f.owed == 0 {
			return f
		}
		if time.Now().After(deadline) {
			t.Fatalf("not at rest: %+v, want %d orders", f, n)
		}
		time.Sleep(20 * time.Millisecond) // of a poll, bounded by the deadline
	}
}

// lawSix compares the provider's book with the orders, and both with the postings.
func (r *site) lawSix(t testing.TB, book provider.Auditor, f figures) {
	t.Helper()
	rows, err := r.pool.Query(t.Context(), `SELECT id, state FROM orders`)
	must(t, err)
	states := map[engine.OrderID]engine.OrderState{}
	for rows.Next() {
		var id engine.OrderID
		var st engine.OrderState
		must(t, rows.Scan(&id, &st))
		states[id] = st
	}
	must(t, rows.Err())
	charged := map[engine.OrderID]int{}
	for c, err := range book.Ledger(t.Context()) {
		must(t, err)
		if c.State == provider.StateAuthorised {
			t.Errorf("order %s, which is %v: left authorised", c.Order, states[c.Order])
		}
		if c.State == provider.StateCaptured {
			charged[c.Order]++
			if c.Captured != 700 {
				t.Errorf("order %s: %d of 700 captured", c.Order, c.Captured)
			}
		}
	}
	for id, st := range states {
		want := 0
		if st == engine.Confirmed {
			want = 1
		}
		if charged[id] != want {
			t.Errorf("order %s is %v and was charged %d times", id, st, charged[id])
		}
	}
	want := figures{
		confirmed: f.confirmed, cancelled: f.cancelled, charges: f.confirmed, captured: f.confirmed,
		postings: 2 * f.confirmed, claimed: f.confirmed, rejected: f.rejected,
	}
	if f != want {
		t.Errorf("figures %+v, want %+v", f, want)
	}
	bs, err := r.books.TrialBalance(t.Context())
	must(t, err)
	if len(bs) != 2 || bs[0].Amount != 700*f.confirmed || bs[1].Amount != -700*f.confirmed {
		t.Errorf("trial balance %+v", bs)
	}
}

func TestRealEnvelopesToConfirmed(t *testing.T) {
	t.Parallel()
	p := provider.NewInstant()
	p.Decline = func(r provider.Request) bool { return r.Order[engine.OrderIDLen-1] == 'c' } // one of 32
	r := newSite(t, "instant", p)
	r.start(t)
	bodies := r.envelopes(1, 1000)
	r.publish(t, append(bodies, bodies...)) // everything twice
	f := r.atRest(t, 1000)
	if f.cancelled < 20 || f.cancelled > 40 {
		t.Errorf("%d cancelled, want about 31", f.cancelled)
	}
	r.lawSix(t, p, f)
	moves, err := r.orders.PendingMoves(t.Context(), r.sale, 5000)
	must(t, err)
	ops, once := map[engine.MoveOp]int64{}, map[engine.OrderID]bool{}
	for _, m := range moves {
		if !once[m.Order] { // one that came again had its outcome told again
			once[m.Order] = true
			ops[m.Op]++
		}
	}
	if ops[engine.Settle] != f.confirmed || ops[engine.Release] != f.cancelled {
		t.Errorf("moves %v for %+v", ops, f)
	}
}

func TestRealPoisonOrder(t *testing.T) {
	t.Parallel()
	p := provider.NewInstant()
	r := newSite(t, "instant", p)
	e := engine.Envelope{Sale: r.sale}
	for n := range engine.MaxGroup {
		e.Orders = append(e.Orders, order(n+1, r.epoch))
	}
	e.Orders[100].Lines = []engine.Line{{SKU: "HAT", Quantity: 1, Price: 700}} // readable; the sale has no such item
	r.start(t)
	r.publish(t, [][]byte{engine.AppendEnvelope(nil, &e)})
	f := r.atRest(t, 256) // the poisoned one is cancelled (rejected), with its bytes kept
	if f.rejected != 1 || f.confirmed != 255 || f.cancelled != 1 {
		t.Errorf("%+v", f)
	}
	r.lawSix(t, p, f)
}

// Both kinds of unknown, 500s, throttling, declines; the sandbox keeps the book.
func TestRealSandboxOfBadHabits(t *testing.T) {
	t.Parallel()
	p := serveSandbox(t, sandbox.Script{
		Seed: 7, DeclinePerMille: 30, TimeoutStoredPerMille: 5, TimeoutLostPerMille: 5, ErrorStoredPerMille: 20, ErrorLostPerMille: 20, ThrottlePerMille: 20,
	})
	r := newSite(t, "sandbox", p)
	r.start(t)
	r.publish(t, r.envelopes(1, 1500))
	f := r.atRest(t, 1500)
	if f.cancelled < 20 || f.cancelled > 80 {
		t.Errorf("%d cancelled, want about 45", f.cancelled)
	}
	r.lawSix(t, p, f)
}

func serveSandbox(t testing.TB, script sandbox.Script) *provider.HTTP {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	file := filepath.Join(t.TempDir(), "ledger")
	p := provider.NewHTTP("http://" + ln.Addr().String()).WithTimeout(400 * time.Millisecond)
	running(t, func(ctx context.Context) error { return sandbox.Serve(ctx, ln, script, file) })
	t.Cleanup(p.Close)
	return p
}

// The queue is full when the sale is rebuilt: what was accepted in the epoch before
// is taken again under its own id, and the units are held in Redis for it.
func TestRealStaleOrders(t *testing.T) {
	t.Parallel()
	p := provider.NewInstant()
	r := newSite(t, "instant", p)
	r.publish(t, r.envelopes(1, 700))
	r.rebuild(t)
	r.publish(t, r.envelopes(1001, 300))
	r.start(t)
	f := r.atRest(t, 1000)
	if f.confirmed != 1000 {
		t.Errorf("%+v", f)
	}
	r.lawSix(t, p, f)
	w, err := r.stock.Watch(t.Context(), r.sale, r.epoch)
	must(t, err)
	if w.Seq != 700 || w.Items[0].Held != 700 {
		t.Errorf("Redis: seq %d, held %d; 700 were taken again, 300 never stood there", w.Seq, w.Items[0].Held)
	}
	entries, left, err := r.stock.Outbox(t.Context(), r.sale, r.epoch, 10)
	must(t, err)
	if left != 0 {
		t.Errorf("%d outbox entries left, first %v", left, entries)
	}
}

// A worker is cut off in the middle of everything, again and again; the last one
// ends it all.
func TestRealWorkersThatDie(t *testing.T) {
	t.Parallel()
	p := provider.NewInstant()
	r := newSite(t, "instant", p)
	r.publish(t, r.envelopes(1, 3000))
	for range 4 {
		w, err := payment.New(payment.Config{
			Orders: r.orders, Stock: r.stock, Ledger: r.books, Providers: map[string]provider.Provider{r.name: r.p}, Queue: r.queue,
			Envelopes: 1, DrainFor: time.Nanosecond,
		})
		must(t, err)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		before := r.figures(t)
		go func() { ended <- w.Run(ctx) }()
		for now := before; now.confirmed+now.open == before.confirmed+before.open; now = r.figures(t) {
		}
		cancel()
		must(t, <-ended)
	}
	// What the dead had leased is not waited for.
	_, err := r.pool.Exec(t.Context(), `WITH a AS (UPDATE orders SET due_at = now() WHERE state = 2), b AS (UPDATE work SET due_at = now()) UPDATE tasks SET due_at = now()`)
	must(t, err)
	r.start(t)
	r.lawSix(t, p, r.atRest(t, 3000))
}

// BenchmarkDrain measures from the queue to CONFIRMED, with charges captured and
// posted: everything is published first.
func BenchmarkDrain(b *testing.B) {
	for _, name := range []string{"instant", "sandbox"} {
		b.Run(name, func(b *testing.B) {
			var p provider.Provider = provider.NewInstant()
			if name == "sandbox" {
				p = serveSandbox(b, sandbox.Script{})
			}
			r := newSite(b, name, p)
			r.publish(b, r.envelopes(1, b.N))
			b.ResetTimer()
			began := time.Now()
			r.start(b)
			for {
				var confirmed int
				must(b, r.pool.QueryRow(b.Context(), `SELECT coalesce(sum(n), 0)::int FROM moves WHERE op = 0`).Scan(&confirmed))
				if confirmed >= b.N {
					break
				}
				time.Sleep(5 * time.Millisecond)
			}
			toConfirmed := time.Since(began)
			for owed := int64(1); owed > 0; {
				time.Sleep(5 * time.Millisecond)
				var err error
				owed, _, err = r.books.Owed(b.Context())
				must(b, err)
			}
			toCaptured := time.Since(began)
			f := r.atRest(b, int64(b.N))
			if f.confirmed != int64(b.N) {
				b.Fatalf("%+v", f)
			}
			b.ReportMetric(float64(b.N)/toConfirmed.Seconds(), "confirmed/s")
			b.ReportMetric(float64(b.N)/toCaptured.Seconds(), "captured/s")
		})
	}
}
