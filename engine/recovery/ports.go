package recovery

import (
	"context"
	"time"

	"github.com/doorbuster/doorbuster/engine"
	"github.com/doorbuster/doorbuster/engine/orders"
	"github.com/doorbuster/doorbuster/engine/queue"
	"github.com/doorbuster/doorbuster/stock"
)

// Stock is what recovery needs of Redis; *stock.Store is one.
type Stock interface {
	Watch(ctx context.Context, sale engine.SaleID, epoch int64) (stock.Watch, error)
	Apply(ctx context.Context, sale engine.SaleID, g stock.Grip, moves []engine.Move) ([]int64, error)
	Records(ctx context.Context, sale engine.SaleID, epoch int64, cursor uint64) ([]engine.Record, uint64, error)
	Outbox(ctx context.Context, sale engine.SaleID, epoch int64, limit int) ([]stock.Entry, int64, error)
	Prune(ctx context.Context, sale engine.SaleID, g stock.Grip, ids []engine.OrderID) (int64, error)
	SetState(ctx context.Context, sale engine.SaleID, g stock.Grip, state engine.SaleState) error
	Redefine(ctx context.Context, sale engine.SaleID, g stock.Grip, def engine.Sale) error
	SetLag(ctx context.Context, sale engine.SaleID, g stock.Grip, ms int64) error

	Retire(ctx context.Context, sale engine.SaleID, epoch int64, keep time.Duration) error
	Freeze(ctx context.Context, sale engine.SaleID, epoch int64) error
	Build(ctx context.Context, img stock.Image) error
	Loaded(ctx context.Context, sale engine.SaleID, incarnation int64) (bool, error)
	Load(ctx context.Context, sale engine.SaleID, incarnation int64) error
	Server(ctx context.Context, sale engine.SaleID) (stock.Server, error)
	Epochs(ctx context.Context, sale engine.SaleID) ([]int64, error)
	DropEpoch(ctx context.Context, sale engine.SaleID, epoch int64) error
}

// Pulse raises heartbeats; *stock.Store is one. It should have connections of its
// own, so that no heartbeat waits behind the keys that a rebuild writes.
type Pulse interface {
	Beat(ctx context.Context, sale engine.SaleID, epoch int64) error
}

// Orders is what recovery needs of PostgreSQL; Books makes one. It should have a
// pool of its own.
type Orders interface {
	// Under returns the same under that lead: every transaction of it is refused
	// with orders.ErrDeposed once the lead is another's.
	Under(lead orders.Lead) Orders

	Fence(ctx context.Context, sale engine.SaleID) (orders.Fence, error)
	Sale(ctx context.Context, id engine.SaleID) (engine.Sale, orders.Status, error)
	SetSaleState(ctx context.Context, sale engine.SaleID, to engine.SaleState, note orders.Note) error
	AdvanceSale(ctx context.Context, seen engine.Sale, to engine.SaleState, note orders.Note) error
	SettleSale(ctx context.Context, sale engine.SaleID, epoch int64, note orders.Note, also func(context.Context) error) (bool, error)
	PruneSettled(ctx context.Context, age time.Duration, limit int) (int, error)

	SalesWithMoves(ctx context.Context) ([]engine.SaleID, error)
	PendingMoves(ctx context.Context, sale engine.SaleID, limit int) ([]engine.Move, error)
	MarkMoved(ctx context.Context, sale engine.SaleID, epoch int64, rows []orders.Moved) (int, bool, error)
	Unknown(ctx context.Context, sale engine.SaleID, holds []orders.HoldOf) ([]orders.HoldOf, error)

	Freeze(ctx context.Context, sale engine.SaleID, epoch int64) (bool, error)
	Survey(ctx context.Context, sale engine.SaleID) (*orders.Survey, error)
	CutAfter(ctx context.Context, sale engine.SaleID, epoch int64, after *orders.Survey) (orders.Image, error)
	Unfreeze(ctx context.Context, sale engine.SaleID, epoch int64) (bool, error)
	Incarnation(ctx context.Context, server string) (int64, error)
	RaiseIncarnation(ctx context.Context, server string, from int64) (int64, error)
	HadIncarnation(ctx context.Context, server string, n int64) (bool, error)
	SeenMarker(ctx context.Context, nonce string) (bool, error)
}

// Books is PostgreSQL as recovery needs it.
func Books(s *orders.Store) Orders { return books{s} }

type books struct{ *orders.Store }

func (b books) Under(lead orders.Lead) Orders { return books{b.Store.Under(lead)} }

// Lead takes and renews the leads of this process; *orders.Leader is one. It
// should have a pool of its own: a round that waits behind other queries closes
// the doors.
type Lead interface {
	Round(ctx context.Context) ([]orders.Led, error)
	Resign(ctx context.Context) error
}

// Publisher is what recovery needs of RabbitMQ; *queue.Publisher is one.
type Publisher interface {
	Publish(ctx context.Context, sale engine.SaleID, body []byte) error
	PublishMarker(ctx context.Context, queue int, nonce string) error
}

// Drainer relays everything in a sale's outboxes; *relay.Relay is one.
type Drainer interface {
	Drain(ctx context.Context, sale engine.SaleID) error
}

var (
	_ Stock     = (*stock.Store)(nil)
	_ Pulse     = (*stock.Store)(nil)
	_ Orders    = books{}
	_ Lead      = (*orders.Leader)(nil)
	_ Publisher = (*queue.Publisher)(nil)
)
