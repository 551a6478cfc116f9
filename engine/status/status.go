package status

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/valyala/fasthttp"

	"github.com/doorbuster/doorbuster/engine"
	"github.com/doorbuster/doorbuster/engine/orders"
	"github.com/doorbuster/doorbuster/engine/ticket"
	"github.com/doorbuster/doorbuster/stock"
)

// Bounds.
const (
	DefaultMaxStreams  = 10_000
	DefaultMaxQueries  = 8
	MaxStreamsPerBuyer = 8
	MaxMine            = engine.MaxOrdersPerBuyer // orders listed

	queryWait    = 500 * time.Millisecond // for a turn at PostgreSQL or Redis, before 503
	queryTimeout = 2 * time.Second        // of one question to PostgreSQL or Redis
	answerIn     = 3 * time.Second        // of all questions behind one answer
	doubtFor     = time.Minute            // after a rebuild, orders that Redis lost may be on their way yet
	salesFor     = 5 * time.Second        // how long the list of sales in use is believed
	maxSalesTry  = 32                     // sales that are searched for an order not yet ingested
)

// Orders is what it asks of engine/orders; *orders.Store has it.
type Orders interface {
	Order(ctx context.Context, id engine.OrderID) (orders.View, error)
	Orders(ctx context.Context, ids []engine.OrderID) ([]orders.View, error)
	OrdersOf(ctx context.Context, sale engine.SaleID, buyer engine.BuyerID, limit int) ([]orders.View, error)
	MayLack(ctx context.Context, sale engine.SaleID, within time.Duration) (bool, error)
	Cancel(ctx context.Context, buyer engine.BuyerID, order engine.OrderID) (orders.CancelOutcome, error)
	Sales(ctx context.Context) ([]engine.SaleID, error)
}

// Records is what it asks of stock; *stock.Store has it.
type Records interface {
	Record(ctx context.Context, sale engine.SaleID, order engine.OrderID) (engine.Record, bool, error)
	Watch(ctx context.Context, sale engine.SaleID, epoch int64) (stock.Watch, error)
	Standing(ctx context.Context, sale engine.SaleID, buyer engine.BuyerID) (stock.Standing, error)
	HeldOf(ctx context.Context, sale engine.SaleID, at stock.Slice, wanted func(engine.BuyerID) bool) ([]engine.Record, uint64, error)
}

// Tickets is what it asks of engine/ticket; *ticket.Keys has it.
type Tickets interface {
	Verify(c *ticket.Claims, token []byte) error
}

// Config wires a Status. Orders, Stock and one of Tickets and Tokens are needed.
// The pools behind Orders and Stock should have MaxQueries connections or more and
// be used by nobody else: that is what keeps curious buyers from starving the
// workers and the doors.
type Config struct {
	Orders     Orders
	Stock      Records
	Tickets    Tickets
	Tokens     TokenConfig
	MaxStreams int           // live streams at once; 0 is DefaultMaxStreams
	MaxQueries int           // questions to PostgreSQL, and to Redis, at once; 0 is DefaultMaxQueries
	PollEvery  time.Duration // how often watched orders are looked at; 0 is DefaultPollEvery
	Logger     *slog.Logger  // nil: none
	Registerer prometheus.Registerer
	Now        func() time.Time // nil: time.Now; for the expiry of bearer tokens
}

// Status answers the routes of this package.
type Status struct {
	cfg     Config
	tokens  *tokens
	books   *turns // at PostgreSQL
	slot    *turns // at Redis
	hub     *hub
	sales   salesInUse
	metrics *metrics
	beat    time.Duration // heartbeatEvery

	searches *searches
}

// New checks the configuration.
func New(cfg Config) (*Status, error) {
	if cfg.Orders == nil || cfg.Stock == nil {
		return nil, errors.New("status: needs Orders and Stock")
	}
	if cfg.Tickets == nil && len(cfg.Tokens.Keys) == 0 {
		return nil, errors.New("status: needs Tickets or keys for bearer tokens, else nobody can ask")
	}
	if cfg.MaxStreams <= 0 {
		cfg.MaxStreams = DefaultMaxStreams
	}
	if cfg.MaxQueries <= 0 {
		cfg.MaxQueries = DefaultMaxQueries
	}
	if cfg.PollEvery <= 0 {
		cfg.PollEvery = DefaultPollEvery
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Registerer == nil {
		cfg.Registerer = prometheus.NewRegistry()
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	t, err := newTokens(cfg.Tokens, cfg.Now)
	if err != nil {
		return nil, err
	}
	m := newMetrics(cfg.Registerer)
	s := &Status{
		cfg: cfg, tokens: t, metrics: m, beat: heartbeatEvery, searches: newSearches(),
		books: newTurns(cfg.MaxQueries, m.busy), slot: newTurns(cfg.MaxQueries, m.busy),
	}
	s.hub = newHub(cfg.MaxStreams, s.metrics)
	return s, nil
}

// Handle answers if the route is its own, and tells whether it was.
func (s *Status) Handle(ctx *fasthttp.RequestCtx) bool {
	r, id := route(ctx.Path())
	if r == noRoute {
		return false
	}
	s.answer(ctx, r, id)
	s.metrics.answered(r, ctx.Response.StatusCode())
	return true
}

func (s *Status) answer(ctx *fasthttp.RequestCtx, r routeID, id string) {
	if want := methods[r]; string(ctx.Method()) != want {
		ctx.Response.Header.Set(fasthttp.HeaderAllow, want)
		write(ctx, badMethod)
		return
	}
	who, ok := s.who(ctx)
	if !ok {
		ctx.Response.Header.Set(fasthttp.HeaderWWWAuthenticate, "Ticket, Bearer")
		write(ctx, notKnown)
		return
	}
	if r == mine {
		s.mine(ctx, who, engine.SaleID(id))
		return
	}
	order := engine.OrderID(id)
	if order.Validate() != nil {
		write(ctx, noOrder)
		return
	}
	switch r {
	case one:
		s.order(ctx, who, order)
	case events:
		s.events(ctx, who, order)
	case cancel:
		s.cancel(ctx, who, order)
	}
}
