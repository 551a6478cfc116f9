package recovery_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/redis/go-redis/v9"
	"go.uber.org/goleak"

	"github.com/doorbuster/doorbuster/engine"
	"github.com/doorbuster/doorbuster/engine/backing/backingtest"
	"github.com/doorbuster/doorbuster/engine/orders"
	"github.com/doorbuster/doorbuster/engine/postgres"
	"github.com/doorbuster/doorbuster/engine/queue"
	"github.com/doorbuster/doorbuster/engine/recovery"
	"github.com/doorbuster/doorbuster/engine/relay"
	"github.com/doorbuster/doorbuster/stock"
)

// TestMain lets more tests run at once than there are cores: most of their time
// they wait for leases to run out.
func TestMain(m *testing.M) {
	flag.Parse()
	if err := flag.Set("test.parallel", "6"); err != nil {
		panic(err)
	}
	goleak.VerifyTestMain(m)
}

var note = orders.Note{Who: "tester", Why: "a test"}

// world is one sale on real servers, with recovery, relay and a worker that
// ingests and nothing more.
type world struct {
	t      testing.TB
	sale   engine.SaleID
	rdb    redis.UniversalClient
	stock  *stock.Store
	orders *orders.Store
	url    string // of PostgreSQL
	db     *pgxpool.Pool
	queue  queue.Config
	pub    *queue.Publisher
	key    *engine.OrderKey
	log    *slog.Logger

	buyers atomic.Int64
	halt   sync.Mutex // held: the worker stands still
}

const (
	mugs = 100
	caps = 40
)

// setup makes the world, without recovery. redisURL may be empty: the shared one.
func setup(t testing.TB, redisURL string) *world {
	t.Helper()
	w := &world{t: t, sale: backingtest.Sale(t), url: backingtest.Database(t), log: slog.New(slog.DiscardHandler)}
	if testing.Verbose() {
		w.log = slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	if redisURL == "" {
		redisURL = backingtest.RedisURL(t)
	}
	ctx := t.Context()
	var err error
	w.rdb, err = stock.Open(redisURL)
	w.ok(err)
	t.Cleanup(func() { _ = w.rdb.Close() })
	w.stock = stock.New(w.rdb)
	w.ok(orders.Migrate(ctx, w.url))
	w.db, err = pgxpool.New(ctx, w.url)
	w.ok(err)
	t.Cleanup(w.db.Close)
	w.orders = w.pool()
	w.queue = queue.Config{URL: backingtest.AMQP(t), Prefix: backingtest.QueuePrefix(t)}
	w.ok(queue.Declare(ctx, w.queue))
	t.Cleanup(func() { w.ok(queue.Delete(context.Background(), w.queue)) })
	w.pub = queue.NewPublisher(w.queue)
	w.run("publisher", w.pub.Run)
	w.run("worker", w.work)
	w.key, err = engine.NewOrderKey([]byte(strings.Repeat("k", 32)), 1, w.sale)
	w.ok(err)
	w.ok(w.orders.CreateSale(ctx, w.definition(), note))
	return w
}

func (w *world) pool() *orders.Store {
	w.t.Helper()
	pool, err := postgres.Open(w.t.Context(), w.url, postgres.Options{MaxConns: 6})
	w.ok(err)
	w.t.Cleanup(pool.Close)
	return orders.New(pool)
}

func (w *world) definition() engine.Sale {
	opens := time.Now().Add(-time.Minute).UTC().Truncate(time.Millisecond)
	return engine.Sale{
		ID: w.sale, Name: "A drop", Mode: engine.ModeStandard, Payment: engine.PayAtOrder, Provider: "instant", Currency: "KRW",
		KeyNumber: 1, Opens: opens, Closes: opens.Add(2 * time.Hour), LimitPerBuyer: 3,
		HoldFor: time.Hour, ReplayWindow: time.Hour,
		Items: []engine.Item{{SKU: "CAP", Name: "Cap", Price: 900, Units: caps}, {SKU: "MUG", Name: "Mug", Price: 1500, Units: mugs}},
	}
}

// run runs f until the test ends, and insists that it then ends without error.
func (w *world) run(name string, f func(context.Context) error) (stop func()) {
	w.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := f(ctx); err != nil {
			w.t.Errorf("%s: %v", name, err)
		}
	})
	stop = sync.OnceFunc(func() { cancel(); wg.Wait() })
	w.t.Cleanup(stop)
	return stop
}

// recover runs one recovery process: its own pool, its own leader.
func (w *world) recover() (r *recovery.Recovery, stop func()) {
	w.t.Helper()
	r = recovery.New(w.config())
	return r, w.run("recovery", r.Run)
}

// config is that of one recovery process.
func (w *world) config() recovery.Config {
	store := w.pool()
	return recovery.Config{
		Stock: w.stock, Pulse: w.stock, Orders: recovery.Books(store), Lead: store.Leader(), Publisher: w.pub,
		Drainer: w.relay(), Logger: w.log, Notes: store.NoteRecoveries,
	}
}

func (w *world) relay() *relay.Relay {
	return relay.New(relay.Config{Stock: w.stock, Sales: w.orders, Publisher: w.pub, Logger: w.log})
}

func (w *world) ok(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// eventually polls until ok, for twenty seconds at most.
func (w *world) eventually(what string, ok func() bool) {
	w.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			watch, err := w.stock.Watch(context.Background(), w.sale, 0)
			w.t.Fatalf("not within 20 s: %s\nwatch %+v, err %v", what, watch, err)
		}
	}
}

// sells waits until the sale can be sold in the epoch or a later one: a heartbeat
// is raised, and PostgreSQL is not frozen.
func (w *world) sells(epoch int64) stock.Watch {
	w.t.Helper()
	var watch stock.Watch
	w.eventually(fmt.Sprintf("sells in epoch %d", epoch), func() bool {
		f, err := w.orders.Fence(context.Background(), w.sale)
		if err != nil || f.Frozen || f.Epoch < epoch {
			return false
		}
		watch, err = w.stock.Watch(context.Background(), w.sale, epoch)
		return err == nil && watch.Epoch == f.Epoch && watch.Heartbeat > 0 && !watch.Frozen
	})
	return watch
}

// counts waits until the mugs are as wanted.
func (w *world) counts(available, held, sold int64) {
	w.t.Helper()
	w.eventually(fmt.Sprintf("mugs available %d, held %d, sold %d", available, held, sold), func() bool {
		watch, err := w.stock.Watch(context.Background(), w.sale, 0)
		if err != nil || len(watch.Items) != 2 {
			return false
		}
		m := watch.Items[1]
		return m.Available == available && m.Held == held && m.Sold == sold
	})
}

// baskets asks for one mug each, by buyers nobody else is.
func (w *world) baskets(n int) []engine.Basket {
	out := make([]engine.Basket, n)
	for i := range out {
		buyer := engine.BuyerID(fmt.Sprint("buyer-", w.buyers.Add(1)))
		lines := []engine.Line{{SKU: "MUG", Quantity: 1, Price: 1500}}
		out[i] = engine.Basket{
			Order: w.key.ID(buyer, []byte("key")), Buyer: buyer, Lines: lines, Total: 1500, Body: engine.BodyHash(lines, 1500, "KRW"),
		}
	}
	return out
}

// reserve takes one mug for each of n new buyers. What the script accepted is in
// the outbox, and nowhere else yet.
func (w *world) reserve(n int) []engine.Basket {
	w.t.Helper()
	b := w.baskets(n)
	watch, err := w.stock.Watch(context.Background(), w.sale, 0)
	w.ok(err)
	var d stock.Decision
	w.ok(w.stock.Reserve(context.Background(), w.sale, watch.Grip, b, &d))
	for i, v := range d.Verdicts {
		if v.Outcome != engine.Accepted {
			w.t.Fatalf("basket %d: %v", i, v.Outcome)
		}
	}
	return b
}

// buy reserves and publishes: what a door does for a 202.
func (w *world) buy(n int) []engine.Basket {
	w.t.Helper()
	b := w.reserve(n)
	w.publish()
	return b
}

// publish publishes and marks the whole outbox.
func (w *world) publish() {
	w.t.Helper()
	watch, err := w.stock.Watch(context.Background(), w.sale, 0)
	w.ok(err)
	entries, _, err := w.stock.Outbox(context.Background(), w.sale, watch.Epoch, 1000)
	w.ok(err)
	for _, e := range entries {
		w.eventually("published", func() bool { return w.pub.Publish(context.Background(), w.sale, e.Body) == nil })
		w.ok(w.stock.Mark(context.Background(), w.sale, watch.Epoch, []int64{e.ID}))
	}
}

// known waits until PostgreSQL has all these orders.
func (w *world) known(b []engine.Basket) {
	w.t.Helper()
	w.eventually("ingested", func() bool {
		for i := range b {
			if _, err := w.orders.Order(context.Background(), b[i].Order); err != nil {
				return false
			}
		}
		return true
	})
}

// pay ends orders: confirmed or declined.
func (w *world) pay(b []engine.Basket, result orders.PaymentResult) {
	w.t.Helper()
	ids := map[engine.OrderID]bool{}
	for i := range b {
		ids[b[i].Order] = true
	}
	ctx := context.Background()
	for len(ids) > 0 {
		due, err := w.orders.Claim(ctx, orders.ClaimOptions{Sale: w.sale, Limit: 1000, Lease: time.Millisecond})
		w.ok(err)
		var ends []orders.Payment
		for _, p := range due {
			if ids[p.Order] {
				ends = append(ends, orders.Payment{Order: p.Order, Attempt: p.Attempt, Result: result})
				delete(ids, p.Order)
			}
		}
		_, err = w.orders.Settle(ctx, w.sale, ends, nil)
		w.ok(err)
	}
}

// work ingests like the worker role, stale orders taken again, markers noted.
func (w *world) work(ctx context.Context) error { return w.workOn(ctx, queue.IngestQueue(w.sale)) }

func (w *world) workOn(ctx context.Context, q int) error {
	return queue.Consume(ctx, w.queue, q, queue.ConsumeOptions{}, func(ctx context.Context, batch []*queue.Delivery) {
		for _, d := range batch {
			for ctx.Err() == nil {
				w.halt.Lock()
				err := w.ingest(ctx, d.Body)
				w.halt.Unlock()
				if err == nil {
					_ = d.Ack()
					break
				}
				time.Sleep(20 * time.Millisecond)
			}
		}
	})
}

var errAgain = errors.New("again")

func (w *world) ingest(ctx context.Context, body []byte) error {
	if nonce, ok := queue.MarkerNonce(body); ok {
		return w.orders.MarkMarker(ctx, nonce)
	}
	env, bad, err := engine.ParseEnvelope(body)
	if err != nil || len(bad) > 0 {
		w.t.Errorf("envelope: %v %v", err, bad)
		return nil
	}
	arrivals := make([]orders.Arrival, len(env.Orders))
	for i := range env.Orders {
		arrivals[i].Order = env.Orders[i]
	}
	rep, err := w.orders.Ingest(ctx, env.Sale, arrivals)
	if err != nil || rep.Moved || len(rep.Stale) == 0 {
		return err
	}
	watch, err := w.stock.Watch(ctx, env.Sale, 0)
	if err != nil {
		return err
	}
	baskets := make([]engine.Basket, len(rep.Stale))
	for i := range rep.Stale {
		baskets[i] = rep.Stale[i].Basket
	}
	var d stock.Decision
	if err := w.stock.Retake(ctx, env.Sale, watch.Grip, baskets, &d); err != nil {
		return err
	}
	var again []orders.Arrival
	for i, v := range d.Verdicts {
		a := orders.Arrival{Order: rep.Stale[i], Retaken: v.Outcome.Took(), Refused: !v.Outcome.Took(), Epoch: watch.Epoch}
		if a.Retaken {
			a.Hold = v.Hold
		}
		again = append(again, a)
	}
	rep, err = w.orders.Ingest(ctx, env.Sale, again)
	if err == nil && rep.Moved {
		err = errAgain
	}
	if err == nil && d.First > 0 {
		err = w.stock.Mark(ctx, env.Sale, watch.Epoch, []int64{d.First})
	}
	return err
}

// wipe deletes every key of the sale.
func (w *world) wipe() {
	w.t.Helper()
	ctx := context.Background()
	keys := w.rdb.(*redis.Client).Scan(ctx, 0, "*{"+string(w.sale)+"}*", 1000).Iterator()
	for keys.Next(ctx) {
		w.ok(w.rdb.Unlink(ctx, keys.Val()).Err())
	}
	w.ok(keys.Err())
}
