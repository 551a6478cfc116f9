package loadtest_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/valyala/fasthttp"

	"github.com/doorbuster/doorbuster/engine"
	"github.com/doorbuster/doorbuster/engine/audit"
	"github.com/doorbuster/doorbuster/engine/backing/backingtest"
	"github.com/doorbuster/doorbuster/engine/door"
	"github.com/doorbuster/doorbuster/engine/orders"
	"github.com/doorbuster/doorbuster/engine/postgres"
	"github.com/doorbuster/doorbuster/engine/queue"
	"github.com/doorbuster/doorbuster/engine/recovery"
	"github.com/doorbuster/doorbuster/engine/relay"
	"github.com/doorbuster/doorbuster/engine/status"
	"github.com/doorbuster/doorbuster/engine/ticket"
	"github.com/doorbuster/doorbuster/loadtest"
	"github.com/doorbuster/doorbuster/payment"
	"github.com/doorbuster/doorbuster/payment/ledger"
	"github.com/doorbuster/doorbuster/payment/provider"
	"github.com/doorbuster/doorbuster/stock"
)

// house is a whole engine in this process, on real servers, with a queue prefix
// and a database of its own.
type house struct {
	sale    engine.SaleID
	orders  *orders.Store
	keys    *ticket.Keys
	meter   *audit.Meter
	auditor *audit.Auditor
	url     string // of the API
	metrics string // host:port
}

const houseStops = 30 * time.Second

// part runs something until the test ends. Parts stop in the reverse order of
// their start.
func part(t *testing.T, name string, run func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- run(ctx) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
		case <-time.After(houseStops):
			t.Errorf("%s did not stop", name)
		}
	})
}

func newHouse(t *testing.T, options ...func(*door.Config)) *house {
	t.Helper()
	ctx := t.Context()
	h := &house{sale: backingtest.Sale(t)}
	url := backingtest.Database(t)
	q := queue.Config{URL: backingtest.AMQP(t), Prefix: backingtest.QueuePrefix(t)}
	for _, err := range []error{orders.Migrate(ctx, url), ledger.Migrate(ctx, url), queue.Declare(ctx, q)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		if err := queue.Delete(context.Background(), q); err != nil {
			t.Error(err)
		}
	})
	reg := prometheus.NewRegistry()
	reg.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	q.Registerer = reg
	said := newSaid(t)
	pool := must(postgres.Open(ctx, url, postgres.Options{MaxConns: 24}))(t)
	t.Cleanup(pool.Close)
	rdb := must(stock.Open(backingtest.RedisURL(t)))(t)
	t.Cleanup(func() { _ = rdb.Close() })
	st := stock.New(rdb)
	st.OnUnreadable(must(stock.ReportUnreadable(said, reg))(t))
	h.orders = orders.New(pool)
	h.keys = must(ticket.NewKeys(1, map[uint8][]byte{1: bytes.Repeat([]byte("k"), ticket.MinKeyLen)}))(t)
	h.meter = must(audit.NewMeter(reg, nil))(t)
	h.auditor = must(audit.Open(audit.Config{DatabaseURL: url, RedisURL: backingtest.RedisURL(t), Queue: q}))(t)
	t.Cleanup(h.auditor.Close)

	h.metrics = serveMetrics(t, reg)
	pub := queue.NewPublisher(q)
	part(t, "publisher", pub.Run)
	rel := relay.New(relay.Config{Stock: st, Sales: h.orders, Publisher: pub, Registerer: reg, Logger: said})
	part(t, "relay", rel.Run)
	part(t, "measure", func(ctx context.Context) error { return queue.Measure(ctx, q) })
	rec := recovery.New(recovery.Config{
		Stock: st, Pulse: st, Orders: recovery.Books(h.orders), Lead: h.orders.Leader(), Publisher: pub, Registerer: reg, Logger: said,
		Drainer: relay.New(relay.Config{Stock: st, Sales: h.orders, Publisher: pub}),
	})
	part(t, "recovery", rec.Run)
	w := must(payment.New(payment.Config{
		Orders: h.orders, Stock: st, Ledger: ledger.New(pool), Queue: q, Registerer: reg, Logger: said,
		Providers: map[string]provider.Provider{"instant": provider.NewInstant()},
	}))(t)
	part(t, "worker", w.Run)
	s := must(status.New(status.Config{Orders: h.orders, Stock: st, Tickets: h.keys, Registerer: reg, Logger: said}))(t)
	part(t, "status", s.Run)
	cfg := door.Config{
		Stock: st, Publisher: pub, Tickets: h.keys, Registerer: reg, Logger: said,
		OrderKeys: map[int][]byte{1: bytes.Repeat([]byte("o"), 32)},
	}
	for _, option := range options {
		option(&cfg)
	}
	d := must(door.New(cfg))(t)
	part(t, "door", d.Run)
	h.url = serveAPI(t, said, func(ctx *fasthttp.RequestCtx) {
		if !d.Handle(ctx) && !s.Handle(ctx) {
			ctx.SetStatusCode(fasthttp.StatusNotFound)
		}
	})
	return h
}

// must fails the test on an error.
func must[T any](v T, err error) func(*testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// newSaid returns a logger whose lines are shown if the test fails.
func newSaid(t *testing.T) *slog.Logger {
	t.Helper()
	said := new(quiet)
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(said.text.String())
		}
	})
	return slog.New(slog.NewTextHandler(said, nil))
}

type quiet struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (q *quiet) Write(b []byte) (int, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.text.Write(b)
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	ln, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return ln
}

func serveAPI(t *testing.T, said *slog.Logger, handle fasthttp.RequestHandler) string {
	t.Helper()
	ln := listen(t)
	server := door.NewServer(handle, door.ServerOptions{Logger: said})
	part(t, "api", func(ctx context.Context) error {
		go func() { <-ctx.Done(); _ = server.Shutdown() }()
		return server.Serve(ln)
	})
	return "http://" + ln.Addr().String()
}

func serveMetrics(t *testing.T, reg *prometheus.Registry) string {
	t.Helper()
	ln := listen(t)
	server := &http.Server{Handler: promhttp.HandlerFor(reg, promhttp.HandlerOpts{}), ReadHeaderTimeout: time.Second}
	part(t, "metrics", func(ctx context.Context) error {
		go func() { <-ctx.Done(); _ = server.Close() }()
		if err := server.Serve(ln); err != http.ErrServerClosed {
			return err
		}
		return nil
	})
	return ln.Addr().String()
}

// create creates the house's sale.
func (h *house) create(t *testing.T, units int64, opens time.Time) {
	t.Helper()
	err := h.orders.CreateSale(t.Context(), engine.Sale{
		ID: h.sale, Name: "test", KeyNumber: 1, Mode: engine.ModeStandard, Payment: engine.PayAtOrder, Provider: "instant",
		Currency: "KRW", Opens: opens, Closes: opens.Add(time.Hour), LimitPerBuyer: 2, HoldFor: time.Minute, ReplayWindow: time.Hour,
		Items: []engine.Item{{SKU: "MUG", Name: "Mug", Price: 1500, Units: units}},
	}, orders.Note{Who: "test", Why: "test"})
	if err != nil {
		t.Fatal(err)
	}
}

// open tells whether the door sells.
func (h *house) open(ctx context.Context, t *testing.T) bool {
	t.Helper()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, h.url+"/v1/sales/"+string(h.sale), http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	req.Close = true
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	var page struct {
		State string `json:"state"`
	}
	err = json.NewDecoder(res.Body).Decode(&page)
	return err == nil && res.StatusCode == http.StatusOK && page.State == "open"
}

// tickets mints n of them.
func (h *house) tickets(t *testing.T, n int) []loadtest.Ticket {
	t.Helper()
	out := make([]loadtest.Ticket, n)
	for i := range out {
		buyer := engine.BuyerID(fmt.Sprintf("buyer-%d", i))
		token, err := h.keys.Mint(&ticket.Ticket{Sale: h.sale, Buyer: buyer, NotAfter: time.Now().Add(time.Hour).UnixMilli()})
		if err != nil {
			t.Fatal(err)
		}
		out[i] = loadtest.Ticket{Buyer: buyer, Token: token}
	}
	return out
}
