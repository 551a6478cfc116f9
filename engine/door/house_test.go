package door_test

import (
	"bufio"
	"bytes"
	"context"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/valyala/fasthttp"

	"github.com/doorbuster/doorbuster/engine"
	"github.com/doorbuster/doorbuster/engine/backing/backingtest"
	"github.com/doorbuster/doorbuster/engine/client"
	"github.com/doorbuster/doorbuster/engine/door"
	"github.com/doorbuster/doorbuster/engine/queue"
	"github.com/doorbuster/doorbuster/engine/ticket"
	"github.com/doorbuster/doorbuster/stock"
)

// house is a door over a real Redis and RabbitMQ, behind TCP.
type house struct {
	*testing.T
	sale  engine.Sale
	store *stock.Store
	queue queue.Config
	keys  *ticket.Keys
	addr  string
	epoch int64
}

func setupReal(t *testing.T, units int64) *house {
	t.Helper()
	return setupBehind(t, units, backingtest.AMQP(t))
}

// setupBehind lets the door reach its broker under the URL of a proxy.
func setupBehind(t *testing.T, units int64, broker string) *house {
	t.Helper()
	return setupOn(t, stock.New(backingtest.Redis(t)), broker, func(s *engine.Sale) { s.Items[0].Units = units })
}

// setupOn takes another Redis, too, and another sale.
func setupOn(t *testing.T, store *stock.Store, broker string, edit func(*engine.Sale)) *house {
	t.Helper()
	r := &house{
		T: t, store: store, queue: queue.Config{URL: backingtest.AMQP(t), Prefix: backingtest.QueuePrefix(t)},
		sale: engine.Sale{
			ID: backingtest.Sale(t), State: engine.SaleOpen, Version: 1, KeyNumber: 1, Currency: "KRW", LimitPerBuyer: 3,
			Opens: time.Now().Add(-time.Minute), Closes: time.Now().Add(time.Hour), Items: []engine.Item{{SKU: "MUG", Price: 1500, Units: 1000}},
		},
	}
	edit(&r.sale)
	var err error
	if r.keys, err = ticket.NewKeys(1, map[uint8][]byte{1: bytes.Repeat([]byte("t"), 32)}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	if err := queue.Declare(ctx, r.queue); err != nil {
		t.Fatal(err)
	}
	r.build(1, true)
	publisher := queue.NewPublisher(queue.Config{URL: broker, Prefix: r.queue.Prefix})
	d, err := door.New(door.Config{
		Stock: r.store, Publisher: publisher, Tickets: r.keys, OrderKeys: map[int][]byte{1: bytes.Repeat([]byte("o"), 32)},
		BuyerRate: 1e6, BuyerBurst: 1 << 20, CheckDurable: r.store.CheckDurable,
	})
	if err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	for _, run := range []func(context.Context) error{d.Run, publisher.Run, r.beat} {
		running.Go(func() {
			if err := run(ctx); err != nil {
				t.Error(err)
			}
		})
	}
	t.Cleanup(func() {
		cancel()
		running.Wait()
		if err := queue.Delete(context.Background(), r.queue); err != nil {
			t.Error(err)
		}
	})
	r.addr, _ = serve(t, func(ctx *fasthttp.RequestCtx) { d.Handle(ctx) })
	return r
}

// build brings the sale up in an epoch, with or without its scripts.
func (r *house) build(epoch int64, load bool) {
	r.Helper()
	ctx := context.Background()
	incarnation := time.Now().UnixNano() % 1e12 // a text of its own, so that no other test has loaded it
	if load {
		if err := r.store.Load(ctx, r.sale.ID, incarnation); err != nil {
			r.Fatal(err)
		}
	}
	if err := r.store.Build(ctx, stock.Image{Sale: r.sale, Epoch: epoch, Incarnation: incarnation}); err != nil {
		r.Fatal(err)
	}
	r.epoch = epoch
}

// beat does what recovery does while it leads.
func (r *house) beat(ctx context.Context) error {
	for tick := time.NewTicker(100 * time.Millisecond); ; {
		select {
		case <-tick.C:
			if w, err := r.store.Watch(ctx, r.sale.ID, 0); err == nil {
				_ = r.store.Beat(ctx, r.sale.ID, w.Epoch)
			}
		case <-ctx.Done():
			tick.Stop()
			return nil
		}
	}
}

func (r *house) ticket(buyer string) string {
	r.Helper()
	s, err := r.keys.Mint(&ticket.Ticket{Sale: r.sale.ID, Buyer: engine.BuyerID(buyer), NotAfter: time.Now().Add(time.Hour).UnixMilli()})
	if err != nil {
		r.Fatal(err)
	}
	return s
}

// buy asks once.
func (r *house) buy(buyer string, headers ...string) reply {
	r.Helper()
	resp, err := r.do(buyer, headers...)
	if err != nil {
		r.Fatal(err)
	}
	return resp
}

func (r *house) do(buyer string, headers ...string) (reply, error) {
	return r.send(ask{path: r.path(), ticket: r.ticket(buyer), key: "k", body: oneMug, headers: headers}.bytes())
}

func (r *house) path() string { return "/v1/sales/" + string(r.sale.ID) + "/orders" }

// send sends a request over a connection of its own.
func (r *house) send(raw []byte) (reply, error) {
	c, err := net.Dial("tcp", r.addr)
	if err != nil {
		return reply{}, err
	}
	defer func() { _ = c.Close() }()
	if _, err := c.Write(raw); err != nil {
		return reply{}, err
	}
	var resp fasthttp.Response
	if err := resp.Read(bufio.NewReader(c)); err != nil {
		return reply{}, err
	}
	return (&bench{TB: r.T}).read(&resp), nil
}

func TestRealServersSellEveryUnitOnce(t *testing.T) {
	t.Parallel()
	const units, buyers = 300, 700
	r := setupReal(t, units)
	c, err := client.New(client.Config{URL: "http://" + r.addr})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var mu sync.Mutex
	orders := map[string]bool{}
	next := make(chan int)
	var crowd sync.WaitGroup
	for range 64 {
		crowd.Go(func() {
			for i := range next {
				a, err := c.Order(t.Context(), client.Wish{
					Sale: r.sale.ID, Ticket: r.ticket("buyer" + strconv.Itoa(i)), Key: client.NewKey(),
					Lines: []engine.Line{{SKU: "MUG", Quantity: 1}}, Total: engine.Money{Amount: 1500, Currency: "KRW"},
				})
				mu.Lock()
				switch {
				case err == nil && a.Taken() && !orders[a.Order]:
					orders[a.Order] = true
				case err != nil || a.Type != "sold-out":
					t.Errorf("%+v %v", a, err)
				}
				mu.Unlock()
			}
		})
	}
	for i := range buyers {
		next <- i
	}
	close(next)
	crowd.Wait()
	w, err := r.store.Watch(t.Context(), r.sale.ID, 0)
	if err != nil || len(orders) != units || w.Items[0].Available != 0 || w.Items[0].Held != units {
		t.Fatalf("%d orders, %+v %v", len(orders), w.Items, err)
	}
	until(t, func() bool {
		entries, _, err := r.store.Outbox(t.Context(), r.sale.ID, 1, 10)
		return err == nil && len(entries) == 0
	})
	r.published(orders)
}

// published reads what came through the queue.
func (r *house) published(orders map[string]bool) {
	r.Helper()
	ctx, cancel := context.WithTimeout(r.Context(), 10*time.Second)
	defer cancel()
	left := map[string]bool{}
	for id := range orders {
		left[id] = true
	}
	err := queue.Consume(ctx, r.queue, queue.IngestQueue(r.sale.ID), queue.ConsumeOptions{}, func(_ context.Context, ds []*queue.Delivery) {
		for _, d := range ds {
			e, bad, err := engine.ParseEnvelope(d.Body)
			if err != nil || len(bad) > 0 {
				r.Errorf("%v %v", err, bad)
			}
			for _, o := range e.Orders {
				delete(left, string(o.Order))
			}
			_ = d.Ack()
		}
		if len(left) == 0 {
			cancel()
		}
	})
	if err != nil || len(left) > 0 {
		r.Errorf("%d accepted orders are not in the queue (%v)", len(left), err)
	}
}

// What the door publishes is, byte for byte, what the script put into the outbox.
func TestRealEnvelopeIsTheOutboxEntry(t *testing.T) {
	t.Parallel()
	r := setupReal(t, 10)
	b := setup(t)
	b.sale = r.sale
	g, err := r.store.Watch(t.Context(), r.sale.ID, 0)
	if err != nil {
		t.Fatal(err)
	}
	keep := &outboxKeeper{Store: r.store}
	d, err := door.New(door.Config{Stock: keep, Publisher: b.broker, Tickets: b.keys, OrderKeys: map[int][]byte{1: bytes.Repeat([]byte("o"), 32)}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- d.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	b.serve = door.NewServer(func(ctx *fasthttp.RequestCtx) { d.Handle(ctx) }, door.ServerOptions{}).Handler
	b.want(b.do(ask{path: "/v1/sales/" + string(r.sale.ID) + "/orders", ticket: b.ticket("ann", func(t *ticket.Ticket) { t.Sale, t.Max = r.sale.ID, 2 }), key: "k", body: oneMug}), 202, "")
	entries, _, err := r.store.Outbox(t.Context(), r.sale.ID, g.Epoch, 10)
	if err != nil || len(entries) != 1 || !bytes.Equal(entries[0].Body, b.broker.bodies[0]) {
		t.Fatalf("outbox %+v %v\npublished %s", entries, err, b.broker.bodies)
	}
}

// outboxKeeper is a stock whose outbox is never emptied.
type outboxKeeper struct{ *stock.Store }

func (*outboxKeeper) Mark(context.Context, engine.SaleID, int64, []int64) error { return nil }

func TestRealFenceAndRestock(t *testing.T) {
	t.Parallel()
	r := setupReal(t, 1)
	// On a busy machine the broker may be late, and say outcome-unknown: each buyer repeats
	// under his key, or a unit that he has unheard would be missing.
	until(t, func() bool { return r.buy("ann", replay).status == 202 })
	until(t, func() bool { return r.buy("bob").problem == "sold-out" })
	w, err := r.store.Watch(t.Context(), r.sale.ID, 0)
	if err != nil {
		t.Fatal(err)
	}
	until(t, func() bool { // the door's memory knows it too
		page, err := r.send(ask{method: "GET", path: "/v1/sales/" + string(r.sale.ID)}.bytes())
		return err == nil && strings.Contains(page.raw, `"available":0`)
	})
	if _, err := r.store.Apply(t.Context(), r.sale.ID, w.Grip, []engine.Move{{ID: 1, Sale: r.sale.ID, Op: engine.Restock, Lines: []engine.Line{{SKU: "MUG", Quantity: 1}}}}); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	until(t, func() bool { return r.buy("cid").status == 202 })
	t.Logf("a restock was sold again after %v", time.Since(began).Round(time.Millisecond))

	r.build(2, false) // a new epoch whose scripts are not there: NOSCRIPT is the fence
	until(t, func() bool {
		rep := r.buy("dan")
		if rep.status == 202 {
			t.Fatalf("taken without scripts: %s", rep.raw)
		}
		return rep.problem == "sale-frozen"
	})
	r.build(3, true)
	until(t, func() bool { return r.buy("eve").status == 202 })
}
