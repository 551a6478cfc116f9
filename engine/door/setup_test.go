package door_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/valyala/fasthttp"
	"go.uber.org/goleak"

	"github.com/doorbuster/doorbuster/engine"
	"github.com/doorbuster/doorbuster/engine/door"
	"github.com/doorbuster/doorbuster/engine/ticket"
	"github.com/doorbuster/doorbuster/stock"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, // fasthttp's own: the clock of Date, and cleaners that sleep 10 s before they see the end
		goleak.IgnoreAnyFunction("github.com/valyala/fasthttp.updateServerDate.func1"),
		goleak.IgnoreAnyFunction("github.com/valyala/fasthttp.(*workerPool).Start.func2"))
}

const testSale = engine.SaleID("drop")

// fakeStock is the Go model of the stock with its failures on strings. It keeps
// nothing of what the door lends it.
type fakeStock struct {
	*stock.Model
	still atomic.Bool // recovery does not beat

	mu          sync.Mutex
	reserve     func(n int) error // before the n-th call, from 1; its error is returned
	lost        func(n int) error // after the n-th call: the call was done, the answer got lost
	watch       func(n int) error
	reserves    atomic.Int64
	watches     atomic.Int64
	marks       atomic.Int64
	marked      atomic.Int64
	largest     atomic.Int64
	simultan    atomic.Int64
	mostAtOnce  atomic.Int64
	baskets     atomic.Int64
	markedEpoch atomic.Int64
}

func (f *fakeStock) hook(what *func(int) error, set func(int) error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	*what = set
}

func (f *fakeStock) call(what *func(int) error, n int64) error {
	f.mu.Lock()
	fn := *what
	f.mu.Unlock()
	if fn == nil {
		return nil
	}
	return fn(int(n))
}

func (f *fakeStock) Watch(ctx context.Context, sale engine.SaleID, epoch int64) (stock.Watch, error) {
	if err := f.call(&f.watch, f.watches.Add(1)); err != nil {
		return stock.Watch{}, err
	}
	if w, err := f.Model.Watch(ctx, sale, epoch); err == nil && !f.still.Load() {
		_ = f.Beat(ctx, sale, w.Epoch)
	}
	return f.Model.Watch(ctx, sale, epoch)
}

func (f *fakeStock) Reserve(ctx context.Context, sale engine.SaleID, g stock.Grip, baskets []engine.Basket, d *stock.Decision) error {
	n := f.reserves.Add(1)
	at := f.simultan.Add(1)
	defer f.simultan.Add(-1)
	f.baskets.Add(int64(len(baskets)))
	f.mostAtOnce.Store(max(at, f.mostAtOnce.Load()))
	f.largest.Store(max(int64(len(baskets)), f.largest.Load()))
	if err := f.call(&f.reserve, n); err != nil {
		return err
	}
	own := slices.Clone(baskets)
	for i := range own {
		own[i].Identities = slices.Clone(own[i].Identities)
		own[i].Lines = slices.Clone(own[i].Lines)
	}
	if err := f.Model.Reserve(ctx, sale, g, own, d); err != nil {
		return err
	}
	return f.call(&f.lost, n)
}

func (f *fakeStock) Mark(ctx context.Context, sale engine.SaleID, epoch int64, entries []int64) error {
	f.marks.Add(1)
	f.marked.Add(int64(len(entries)))
	f.markedEpoch.Store(epoch)
	return f.Model.Mark(ctx, sale, epoch, entries)
}

// fakePublisher is a broker that confirms at once, unless told otherwise.
type fakePublisher struct {
	blocked atomic.Bool
	mu      sync.Mutex
	fail    error
	hold    chan struct{} // confirms wait until it is closed
	bodies  [][]byte      // confirmed
	waiting atomic.Int64
}

func (p *fakePublisher) Blocked() bool { return p.blocked.Load() }

func (p *fakePublisher) Publish(ctx context.Context, _ engine.SaleID, body []byte) error {
	p.mu.Lock()
	fail, hold := p.fail, p.hold
	p.mu.Unlock()
	if hold != nil {
		p.waiting.Add(1)
		defer p.waiting.Add(-1)
		select {
		case <-hold:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if fail == nil {
		p.mu.Lock()
		p.bodies = append(p.bodies, bytes.Clone(body))
		p.mu.Unlock()
	}
	return fail
}

func (p *fakePublisher) set(fail error, hold chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fail, p.hold = fail, hold
}

func (p *fakePublisher) orders(t testing.TB) []engine.Order {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	var all []engine.Order
	for _, b := range p.bodies {
		e, bad, err := engine.ParseEnvelope(b)
		if err != nil || len(bad) > 0 || e.Sale != testSale {
			t.Fatalf("envelope %q: %v %v", b, bad, err)
		}
		all = append(all, e.Orders...)
	}
	return all
}

// bench is a door with everything around it.
type bench struct {
	testing.TB
	stock  *fakeStock
	broker *fakePublisher
	keys   *ticket.Keys
	door   *door.Door
	serve  fasthttp.RequestHandler
	sale   engine.Sale
	leap   *atomic.Int64 // ms by which Redis' clock is ahead
	nonce  atomic.Int64
	stop   func()
}

type option func(*door.Config, *engine.Sale)

func units(n int64) option { return func(_ *door.Config, s *engine.Sale) { s.Items[0].Units = n } }

// setup starts a door over a sale that is open and plenty.
func setup(t testing.TB, options ...option) *bench {
	t.Helper()
	keys, err := ticket.NewKeys(1, map[uint8][]byte{1: bytes.Repeat([]byte("t"), 32)})
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	leap := new(atomic.Int64)
	b := &bench{
		TB: t, keys: keys, leap: leap, broker: &fakePublisher{},
		stock: &fakeStock{Model: stock.NewModel(func() int64 { return time.Now().UnixMilli() + leap.Load() })},
		sale: engine.Sale{
			ID: testSale, Name: "Drop", State: engine.SaleOpen, Version: 1, KeyNumber: 1, Currency: "KRW",
			Opens: now.Add(-time.Minute), Closes: now.Add(time.Hour), LimitPerBuyer: 10,
			Items: []engine.Item{{SKU: "MUG", Price: 1500, Units: 1000}, {SKU: "CAP.red", Price: 900, Units: 1000}},
		},
	}
	cfg := door.Config{
		Stock: b.stock, Publisher: b.broker, Tickets: keys, OrderKeys: map[int][]byte{1: bytes.Repeat([]byte("o"), 32)},
		BuyerRate: 1e6, BuyerBurst: 1 << 20,
	}
	for _, o := range options {
		o(&cfg, &b.sale)
	}
	b.build(1)
	if b.door, err = door.New(cfg); err != nil {
		t.Fatal(err)
	}
	b.serve = door.NewServer(b.route, door.ServerOptions{}).Handler
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- b.door.Run(ctx) }()
	b.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(b.stop)
	return b
}

func (b *bench) route(ctx *fasthttp.RequestCtx) {
	if !b.door.Handle(ctx) {
		ctx.SetStatusCode(fasthttp.StatusNotFound)
	}
}

// build brings the sale up in an epoch.
func (b *bench) build(epoch int64, live ...stock.LiveOrder) {
	b.Helper()
	ctx := context.Background()
	if err := b.stock.Build(ctx, stock.Image{Sale: b.sale, Epoch: epoch, Incarnation: epoch, Live: live}); err != nil {
		b.Fatal(err)
	}
	if err := b.stock.Load(ctx, b.sale.ID, epoch); err != nil {
		b.Fatal(err)
	}
}

func (b *bench) grip() stock.Grip {
	b.Helper()
	w, err := b.stock.Model.Watch(context.Background(), b.sale.ID, 0)
	if err != nil {
		b.Fatal(err)
	}
	return w.Grip
}

func (b *bench) ticket(buyer string, change ...func(*ticket.Ticket)) string {
	b.Helper()
	t := ticket.Ticket{
		Sale: testSale, Buyer: engine.BuyerID(buyer), NotAfter: time.Now().Add(time.Hour).UnixMilli(),
		Identities: []engine.Identity{{1, byte(b.nonce.Add(1)), byte(b.nonce.Load() >> 8), byte(b.nonce.Load() >> 16)}},
	}
	for _, c := range change {
		c(&t)
	}
	s, err := b.keys.Mint(&t)
	if err != nil {
		b.Fatal(err)
	}
	return s
}

const (
	oneMug   = `{"lines":[{"sku":"MUG","quantity":1}],"total":{"amount":1500,"currency":"KRW"}}`
	twoMugs  = `{"lines":[{"sku":"MUG","quantity":2}],"total":{"amount":3000,"currency":"KRW"}}`
	ordering = "/v1/sales/drop/orders"
)

// ask is one request as it goes over the wire.
type ask struct {
	method, path, ticket, key, body string
	headers                         []string
}

func (a ask) bytes() []byte {
	if a.method == "" {
		a.method = "POST"
	}
	if a.path == "" {
		a.path = ordering
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\nHost: doorbuster.example\r\nContent-Type: application/json\r\n", a.method, a.path)
	if a.ticket != "" {
		fmt.Fprintf(&b, "Authorization: Ticket %s\r\n", a.ticket)
	}
	if a.key != "" {
		fmt.Fprintf(&b, "Idempotency-Key: %s\r\n", a.key)
	}
	for _, h := range a.headers {
		b.WriteString(h + "\r\n")
	}
	if a.body != "" || a.method == "POST" {
		fmt.Fprintf(&b, "Content-Length: %d\r\n", len(a.body))
	}
	b.WriteString("\r\n" + a.body)
	return []byte(b.String())
}

const replay = "Idempotency-Replay: 1"

// reply is what came back.
type reply struct {
	status  int
	problem string // slug of the type
	header  func(string) string
	body    map[string]any
	raw     string
}

func (r reply) order() string { s, _ := r.body["order"].(string); return s }

// context reads a request as the server does.
func (b *bench) context(raw []byte) *fasthttp.RequestCtx {
	b.Helper()
	ctx := new(fasthttp.RequestCtx)
	ctx.Init(&fasthttp.Request{}, nil, nil)
	if err := ctx.Request.Read(bufio.NewReader(bytes.NewReader(raw))); err != nil {
		b.Fatalf("%v\n%s", err, raw)
	}
	return ctx
}

func (b *bench) do(a ask) reply {
	b.Helper()
	ctx := b.context(a.bytes())
	b.serve(ctx)
	return b.read(&ctx.Response)
}

func (b *bench) read(resp *fasthttp.Response) reply {
	b.Helper()
	r := reply{status: resp.StatusCode(), raw: string(resp.Body())}
	head := &resp.Header
	r.header = func(name string) string { return string(head.Peek(name)) }
	if len(r.raw) > 0 {
		if err := json.Unmarshal([]byte(r.raw), &r.body); err != nil {
			b.Errorf("body %q: %v", r.raw, err)
		}
	}
	kind, _ := r.body["type"].(string)
	r.problem = strings.TrimPrefix(kind, "/problems/")
	return r
}

// buy orders one mug.
func (b *bench) buy(buyer, key string, headers ...string) reply {
	b.Helper()
	return b.do(ask{ticket: b.ticket(buyer), key: key, body: oneMug, headers: headers})
}

// want fails the test unless the reply is so.
func (b *bench) want(r reply, status int, problem string) {
	b.Helper()
	if r.status != status || r.problem != problem {
		b.Fatalf("got %d %s, want %d %q", r.status, r.raw, status, problem)
	}
}

// watched waits until the door has read the sale once more, and the read counts.
func (b *bench) watched() {
	b.Helper()
	until(b, func() bool {
		n := b.stock.watches.Load()
		return pollUntil(func() bool { return b.stock.watches.Load() >= n+2 })
	})
}

// until polls a condition with a deadline.
func until(t testing.TB, cond func() bool) {
	t.Helper()
	if !pollUntil(cond) {
		t.Fatal("it did not come to pass in 5 s")
	}
}

func pollUntil(cond func() bool) bool {
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if cond() {
			return true
		}
	}
	return false
}

var errReset = errors.New("connection reset")
