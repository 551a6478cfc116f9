package door

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/valyala/fasthttp"

	"github.com/doorbuster/doorbuster/engine"
	"github.com/doorbuster/doorbuster/engine/ticket"
	"github.com/doorbuster/doorbuster/stock"
)

// Stock is what the door needs of *stock.Store.
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

	GroupMax   int           // most baskets of one script call; default and at most engine.MaxGroup
	InFlight   int           // groups of a sale between script and confirm; default 4
	GroupOfOne bool          // every request its own call and message: the benches' baseline
	GateMin    int           // least requests of a sale in flight; default 32
	GateMax    int           // most; default 16384
	GateTarget time.Duration // p99 the gate keeps; default 25 ms
	BuyerRate  float64       // requests per second of one buyer that go past the memory; default 5
	BuyerBurst int           // of them at once; default 10
}

// Door is the front door. Make it with New; it serves while Run runs.
type Door struct {
	cfg Config
}

// New returns a door, or an error that says what is wrong with cfg.
func New(cfg Config) (*Door, error) { return &Door{cfg: cfg}, errors.ErrUnsupported }

// Run serves until ctx ends and everything it started has ended. It returns nil.
func (d *Door) Run(ctx context.Context) error { <-ctx.Done(); return nil }

// Handle answers the request if its route is one of the door's, and tells so.
func (d *Door) Handle(ctx *fasthttp.RequestCtx) bool { return false }
