package status_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/valyala/fasthttp"
	"go.uber.org/goleak"

	"github.com/doorbuster/doorbuster/engine"
	"github.com/doorbuster/doorbuster/engine/backing/backingtest"
	"github.com/doorbuster/doorbuster/engine/orders"
	"github.com/doorbuster/doorbuster/engine/postgres"
	"github.com/doorbuster/doorbuster/engine/status"
	"github.com/doorbuster/doorbuster/engine/ticket"
	"github.com/doorbuster/doorbuster/stock"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, // fasthttp leaves these two asleep for some seconds
		goleak.IgnoreAnyFunction("github.com/valyala/fasthttp.updateServerDate.func1"),
		goleak.IgnoreAnyFunction("github.com/valyala/fasthttp.(*workerPool).Start.func2"))
}

// bundle is a sale of 10 mugs, loaded, with a status server beside it.
type bundle struct {
	*orders.Store
	t       *testing.T
	pool    *pgxpool.Pool
	stock   *stock.Store
	sale    engine.Sale
	tickets *ticket.Keys
	key     *engine.OrderKey
	private ed25519.PrivateKey
	url     string
	status  *status.Status
	stop    func() // ends Run and waits for it
	n       int
}

const (
	issuer, audience, keyID = "doorbuster.test", "doorbuster", "k1"
	poll                    = 5 * time.Millisecond
)

func setup(t *testing.T, change func(*status.Config)) *bundle {
	t.Helper()
	b := &bundle{t: t}
	url := backingtest.Database(t)
	b.ok(orders.Migrate(t.Context(), url))
	pool, err := postgres.Open(t.Context(), url, postgres.Options{})
	b.ok(err)
	t.Cleanup(pool.Close)
	rdb, err := stock.Open(backingtest.RedisURL(t))
	b.ok(err)
	t.Cleanup(func() { _ = rdb.Close() })
	b.Store, b.pool, b.stock = orders.New(pool), pool, stock.New(rdb)
	b.load(backingtest.Sale(t))
	b.tickets, err = ticket.NewKeys(1, map[uint8][]byte{1: bytes.Repeat([]byte("k"), 32)})
	b.ok(err)
	b.key, err = engine.NewOrderKey(bytes.Repeat([]byte("o"), 32), 1, b.sale.ID)
	b.ok(err)
	public, private, err := ed25519.GenerateKey(nil)
	b.ok(err)
	b.private = private
	cfg := status.Config{
		Orders: b.Store, Stock: b.stock, Tickets: b.tickets, PollEvery: poll,
		Tokens: status.TokenConfig{Issuer: issuer, Audience: audience, Keys: map[string]ed25519.PublicKey{keyID: public}},
	}
	if change != nil {
		change(&cfg)
	}
	b.status, err = status.New(cfg)
	b.ok(err)
	b.serve()
	return b
}

func (b *bundle) load(id engine.SaleID) {
	b.t.Helper()
	ctx := b.t.Context()
	b.sale = engine.Sale{
		ID: id, Mode: engine.ModeStandard, Payment: engine.PayCheckout, Provider: "instant", Currency: "KRW", KeyNumber: 1,
		Opens: time.Now().Add(-time.Hour).UTC(), Closes: time.Now().Add(time.Hour).UTC(), HoldFor: time.Hour, ReplayWindow: time.Hour,
		Items: []engine.Item{{SKU: "MUG", Name: "Mug", Price: 1500, Units: 10}},
	}
	b.ok(b.CreateSale(ctx, b.sale, orders.Note{Who: "test", Why: "test"}))
	img, err := b.Cut(ctx, id, 0)
	b.ok(err)
	server, err := b.stock.Server(ctx, id)
	b.ok(err)
	inc, err := b.Incarnation(ctx, server.RunID+string(id)) // its own: the database is fresh, the server is not
	b.ok(err)
	b.ok(b.stock.Build(ctx, stock.Image{Sale: img.Sale, Epoch: img.Sale.Epoch, Incarnation: inc}))
	_, err = b.Unfreeze(ctx, id, img.Sale.Epoch)
	b.ok(err)
	b.ok(b.stock.Load(ctx, id, inc))
}

// serve runs the status server as cmd does: short write deadlines, so that a
// stream that relied on them would break.
func (b *bundle) serve() {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	b.ok(err)
	b.url = "http://" + ln.Addr().String()
	srv := &fasthttp.Server{
		WriteTimeout: 200 * time.Millisecond, CloseOnShutdown: true,
		Handler: func(ctx *fasthttp.RequestCtx) {
			if !b.status.Handle(ctx) {
				ctx.Error("not its own", http.StatusTeapot)
			}
		},
	}
	served, ran := make(chan error, 1), make(chan error, 1)
	go func() { served <- srv.Serve(ln) }()
	ctx, cancel := context.WithCancel(context.Background())
	go func() { ran <- b.status.Run(ctx) }()
	stopped := false
	b.stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-ran; err != nil {
			b.t.Error(err)
		}
	}
	b.t.Cleanup(func() {
		b.stop()
		if err := srv.Shutdown(); err != nil {
			b.t.Error(err)
		}
		_ = ln.Close() // Shutdown does not, if it was faster than Serve
		b.t.Log("served:", <-served)
		http.DefaultClient.CloseIdleConnections()
	})
}

func (b *bundle) ok(err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
}

// accept reserves a mug in Redis, as a door does.
func (b *bundle) accept(buyer engine.BuyerID) engine.Order {
	b.t.Helper()
	b.n++
	lines := []engine.Line{{SKU: "MUG", Quantity: 1, Price: 1500}}
	basket := engine.Basket{
		Order: b.key.ID(buyer, fmt.Append(nil, "key", b.n)), Buyer: buyer, Lines: lines, Total: 1500,
		Body: engine.BodyHash(lines, 1500, "KRW"),
	}
	w, err := b.stock.Watch(b.t.Context(), b.sale.ID, 0)
	b.ok(err)
	var d stock.Decision
	b.ok(b.stock.Reserve(b.t.Context(), b.sale.ID, w.Grip, []engine.Basket{basket}, &d))
	if d.Verdicts[0].Outcome != engine.Accepted {
		b.t.Fatalf("not accepted: %v", d.Verdicts[0].Outcome)
	}
	return engine.Order{Basket: basket, Hold: d.Verdicts[0].Hold, AcceptedAt: d.At}
}

// reserve accepts an order and ingests it.
func (b *bundle) reserve(buyer engine.BuyerID) engine.Order {
	b.t.Helper()
	o := b.accept(buyer)
	b.ingest(o)
	return o
}

func (b *bundle) ingest(o engine.Order) {
	b.t.Helper()
	rep, err := b.Ingest(b.t.Context(), b.sale.ID, []orders.Arrival{{Order: o}})
	b.ok(err)
	if len(rep.Reserved) != 1 {
		b.t.Fatalf("not reserved: %+v", rep)
	}
}

func (b *bundle) pay(o engine.Order) {
	b.t.Helper()
	_, ok, err := b.BeginCheckout(b.t.Context(), b.sale.ID, o.Order, time.Hour)
	b.ok(err)
	if !ok {
		b.t.Fatal("checkout did not begin")
	}
}

func (b *bundle) settle(o engine.Order, result orders.PaymentResult) {
	b.t.Helper()
	_, err := b.Settle(b.t.Context(), b.sale.ID, []orders.Payment{{Order: o.Order, Attempt: 1, Result: result}}, nil)
	b.ok(err)
}

func (b *bundle) ticket(buyer engine.BuyerID) string {
	b.t.Helper()
	s, err := b.tickets.Mint(&ticket.Ticket{Sale: b.sale.ID, Buyer: buyer, NotAfter: 1})
	b.ok(err)
	return "Ticket " + s
}

func (b *bundle) bearer(buyer string, expires time.Time) string {
	b.t.Helper()
	s, err := status.MintToken(b.private, status.Token{KeyID: keyID, Issuer: issuer, Audience: audience, Buyer: buyer, Expires: expires})
	b.ok(err)
	return "Bearer " + s
}

// head asks, and returns the answer without its body.
func (b *bundle) head(method, path, auth string) (code int, h http.Header) {
	b.t.Helper()
	resp := b.request(method, path, auth)
	b.ok(resp.Body.Close())
	return resp.StatusCode, resp.Header
}

func (b *bundle) request(method, path, auth string) *http.Response {
	b.t.Helper()
	req, err := http.NewRequestWithContext(b.t.Context(), method, b.url+path, nil)
	b.ok(err)
	if auth != "" {
		req.Header.Set("Authorization", auth)
	}
	resp, err := http.DefaultClient.Do(req)
	b.ok(err)
	return resp
}

// reply is what any answer of ours may say.
type reply struct {
	status.Order
	Type   string         `json:"type"`
	Code   int            `json:"-"`
	Orders []status.Order `json:"orders"`

	Complete bool `json:"complete"`
}

func (b *bundle) ask(method, path, auth string) reply {
	b.t.Helper()
	resp := b.request(method, path, auth)
	defer func() { _ = resp.Body.Close() }()
	var r reply
	// A problem's "status" is a number, an order's a word.
	var raw map[string]json.RawMessage
	b.ok(json.NewDecoder(resp.Body).Decode(&raw))
	if resp.StatusCode >= 400 {
		if ct := resp.Header.Get("Content-Type"); ct != "application/problem+json" {
			b.t.Errorf("content type %q", ct)
		}
		delete(raw, "status")
	}
	if cc := resp.Header.Get("Cache-Control"); cc != "no-store" {
		b.t.Errorf("Cache-Control %q", cc)
	}
	again, err := json.Marshal(raw)
	b.ok(err)
	b.ok(json.Unmarshal(again, &r))
	r.Code = resp.StatusCode
	return r
}

// live is an open event stream.
type live struct {
	b     *bundle
	resp  *http.Response
	lines *bufio.Scanner
}

func (b *bundle) listen(o engine.OrderID, auth string) *live {
	b.t.Helper()
	resp := b.request(http.MethodGet, "/v1/orders/"+string(o)+"/events", auth)
	b.t.Cleanup(func() { _ = resp.Body.Close() })
	if resp.StatusCode != http.StatusOK || resp.Header.Get("Content-Type") != "text/event-stream" {
		b.t.Fatalf("events: %d %s", resp.StatusCode, resp.Header.Get("Content-Type"))
	}
	return &live{b: b, resp: resp, lines: bufio.NewScanner(resp.Body)}
}

// next returns the next event's name and order; "" at the end of the stream.
func (l *live) next() (event string, o status.Order) {
	l.b.t.Helper()
	for l.lines.Scan() {
		line := l.lines.Text()
		if name, ok := strings.CutPrefix(line, "event: "); ok {
			event = name
		}
		if data, ok := strings.CutPrefix(line, "data: "); ok {
			l.b.ok(json.Unmarshal([]byte(data), &o))
			return event, o
		}
	}
	return "", o
}

func (l *live) want(states ...string) {
	l.b.t.Helper()
	for _, s := range states {
		if event, o := l.next(); event != "order" || o.Status != s {
			l.b.t.Fatalf("event %q, status %q, want %q", event, o.Status, s)
		}
	}
}
