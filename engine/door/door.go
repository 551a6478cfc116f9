package door

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/valyala/fasthttp"

	"github.com/doorbuster/doorbuster/engine"
	"github.com/doorbuster/doorbuster/engine/ticket"
	"github.com/doorbuster/doorbuster/stock"
)

// Stock is what the door needs of *stock.Store. Baskets, and what they point to,
// are valid during the call only.
type Stock interface {
	Watch(ctx context.Context, sale engine.SaleID, epoch int64) (stock.Watch, error)
	Reserve(ctx context.Context, sale engine.SaleID, g stock.Grip, baskets []engine.Basket, d *stock.Decision) error
	Mark(ctx context.Context, sale engine.SaleID, epoch int64, entries []int64) error
}

// Publisher is what the door needs of *queue.Publisher.
type Publisher interface {
	Publish(ctx context.Context, sale engine.SaleID, body []byte) error
	Blocked() bool
}

// Config says what a door works with. Stock, Publisher, Tickets and OrderKeys
// are needed; the zero value of everything else works.
type Config struct {
	Stock     Stock
	Publisher Publisher
	Tickets   *ticket.Keys
	OrderKeys map[int][]byte // master keys of order ids by number: engine.NewOrderKey

	Logger     *slog.Logger
	Registerer prometheus.Registerer

	// CheckDurable tells why Redis is not fit for a sale of durable mode
	// (stock.ErrNotDurable); nothing of it is sold then. nil: nobody looks.
	CheckDurable func(ctx context.Context, sale engine.SaleID) error

	// Archive answers for settled sales that Redis no longer serves. nil: nobody does.
	Archive Archive

	GroupMax   int           // most baskets of one script call; default and at most engine.MaxGroup
	Calls      int           // script calls of a sale in flight; default 1: a slot runs one at a time
	InFlight   int           // groups of a sale between script and confirm; default 4
	GroupOfOne bool          // every request its own call and message: the benches' baseline
	GateMin    int           // least requests of a sale in flight; default 512, and never above GateMax
	GateMax    int           // most; default 16384
	GateTarget time.Duration // p99 the gate keeps; default 25 ms
	LagMax     time.Duration // ingest that is further behind closes the gate; default 15 s
	BuyerRate  float64       // requests per second of one buyer that go past the memory; default 5
	BuyerBurst int           // of them at once; default 10
}

const (
	defaultCalls    = 1
	defaultInFlight = 4
	defaultLagMax   = 15 * time.Second
)

// Door is the front door. Make it with New; it serves while Run runs.
type Door struct {
	cfg     Config
	log     *slog.Logger
	metrics *metrics
	zero    time.Time // of the door's own clock
	steps   *Clock    // of Steps, in its place; nil: the real one

	sales    *table
	past     *past
	recall   recall
	buckets  *buckets
	lookers  *meter // first reads of a sale for those who show no ticket
	requests sync.Pool
	groups   sync.Pool

	life   *life
	closed atomic.Bool     // no request is taken any more
	ctx    context.Context // of the watches; ends with Run
	end    context.CancelFunc
}

// New returns a door, or an error that says what is wrong with cfg.
func New(cfg Config) (*Door, error) {
	if cfg.Stock == nil || cfg.Publisher == nil || cfg.Tickets == nil {
		return nil, errors.New("door: needs Stock, Publisher and Tickets")
	}
	if len(cfg.OrderKeys) == 0 {
		return nil, errors.New("door: needs at least one of OrderKeys")
	}
	for number, key := range cfg.OrderKeys {
		if _, err := engine.NewOrderKey(key, number, "check"); err != nil {
			return nil, fmt.Errorf("door: %w", err)
		}
	}
	cfg = withDefaults(cfg)
	d := newDoor(cfg)
	d.buckets = newBuckets(cfg.BuyerRate, cfg.BuyerBurst)
	var err error
	if d.metrics, err = newMetrics(d, cfg.Registerer); err != nil {
		return nil, fmt.Errorf("door: metrics: %w", err)
	}
	return d, nil
}

// newDoor returns a door without metrics, and without a table of buyers: nobody comes
// too often.
func newDoor(cfg Config) *Door {
	d := &Door{
		cfg: cfg, log: cfg.Logger, zero: time.Now(), sales: newTable(), past: newPast(cfg.Archive), life: newLife(),
		lookers:  newMeter(lookRate, lookBurst),
		requests: sync.Pool{New: newRequest}, groups: sync.Pool{New: newGroup},
	}
	d.ctx, d.end = context.WithCancel(context.Background())
	return d
}

func withDefaults(cfg Config) Config {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Registerer == nil {
		cfg.Registerer = prometheus.NewRegistry()
	}
	if cfg.GroupMax <= 0 || cfg.GroupMax > engine.MaxGroup {
		cfg.GroupMax = engine.MaxGroup
	}
	for _, n := range []struct {
		at    *int
		value int
	}{
		{&cfg.Calls, defaultCalls},
		{&cfg.InFlight, defaultInFlight},
		{&cfg.GateMin, defaultGateMin},
		{&cfg.GateMax, defaultGateMax},
		{&cfg.BuyerBurst, defaultBuyerBurst},
	} {
		if *n.at <= 0 {
			*n.at = n.value
		}
	}
	cfg.GateMin = min(cfg.GateMin, cfg.GateMax)
	if cfg.GateTarget <= 0 {
		cfg.GateTarget = defaultGateTarget
	}
	if cfg.LagMax <= 0 {
		cfg.LagMax = defaultLagMax
	}
	if cfg.BuyerRate <= 0 {
		cfg.BuyerRate = defaultBuyerRate
	}
	return cfg
}

// Run serves until ctx ends and everything the door started has ended. It returns
// nil. A Door runs once; requests handled before Run or after its end are told to
// try again. Shut the HTTP server down before ctx ends.
func (d *Door) Run(ctx context.Context) error {
	tick := time.NewTicker(janitorPace)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			d.sweep()
		case <-ctx.Done():
			d.closed.Store(true)
			d.end()
			d.life.stop()
			return nil
		}
	}
}

// clock is the door's own monotonic clock, in nanoseconds since New.
func (d *Door) clock() int64 {
	if d.steps != nil {
		return d.steps.Now()
	}
	return int64(time.Since(d.zero))
}

// Handle answers the request if its route is one of the door's, and tells so.
func (d *Door) Handle(ctx *fasthttp.RequestCtx) bool {
	sale, rest, ok := route(ctx.Request.Header.RequestURI())
	switch {
	case !ok:
		return false
	case rest == "":
		d.show(ctx, sale)
	default:
		d.order(ctx, sale)
	}
	return true
}
