package orders

import (
	"context"
	"errors"
	"time"

	"github.com/doorbuster/doorbuster/engine"
)

var errTODO = errors.New("not written yet")

// Status is what PostgreSQL knows of a sale beside its definition.
type Status struct {
	Frozen  bool      // a rebuild is under way: moves may not be marked
	Claimed []Claimed // in the order of Sale.Items
	Now     time.Time // PostgreSQL's clock, UTC
}

// Claimed are the units of one SKU that live orders hold.
type Claimed struct {
	SKU   engine.SKU
	Units int64
}

// CreateSale writes a new sale, scheduled and of epoch 0: not loaded. Its State
// and Epoch are ignored. ErrSaleExists if the id is taken.
func (s *Store) CreateSale(ctx context.Context, sale engine.Sale, note Note) error { return errTODO }

// Sale reads a sale. ErrNoSale.
func (s *Store) Sale(ctx context.Context, id engine.SaleID) (engine.Sale, Status, error) {
	return engine.Sale{}, Status{}, errTODO
}

// Fence is what recovery and the heartbeat compare.
type Fence struct {
	Sale    engine.SaleID
	Epoch   int64 // 0 is not loaded
	Frozen  bool
	State   engine.SaleState
	Version int64
	Seq     int64 // highest sequence number ingested in this epoch
}

// Fences reads the fence of every sale in use (loaded or to be loaded; not
// settled), in one query, by id.
func (s *Store) Fences(ctx context.Context) ([]Fence, error) { return nil, errTODO }

// Fence reads one sale's fence. ErrNoSale.
func (s *Store) Fence(ctx context.Context, sale engine.SaleID) (Fence, error) {
	return Fence{}, errTODO
}

// Sales lists the sales in use: not settled.
func (s *Store) Sales(ctx context.Context) ([]engine.SaleID, error) { return nil, errTODO }

// SetSaleState moves a sale along engine.NextSaleStates and writes the trail.
// Setting the state it has changes nothing and is no error. ErrNoSale, ErrState.
func (s *Store) SetSaleState(ctx context.Context, sale engine.SaleID, to engine.SaleState, note Note) error {
	return errTODO
}

// Redefine changes names, prices, limits, window, hold and replay times to those
// of def and returns the new version. It never adds or drops an item, and leaves
// units, currency, mode, payment, provider and key number alone.
func (s *Store) Redefine(ctx context.Context, def engine.Sale, note Note) (version int64, err error) {
	return 0, errTODO
}

// Restock adds n units of a SKU and writes the move that takes them to Redis
// (PostgreSQL first: loosening). The move's id comes back. ErrNoSale, ErrNoSKU.
func (s *Store) Restock(ctx context.Context, sale engine.SaleID, sku engine.SKU, n int64, note Note) (move int64, err error) {
	return 0, errTODO
}

// RequestWithdraw writes the move that takes n unsold units out of Redis. The
// units change here only when it is marked, by what it took (tightening: Redis
// first).
func (s *Store) RequestWithdraw(ctx context.Context, sale engine.SaleID, sku engine.SKU, n int64, note Note) (move int64, err error) {
	return 0, errTODO
}

// TrailEntry is one line of a sale's trail.
type TrailEntry struct {
	At       time.Time // UTC
	What     string    // "create", "state open", "restock", …
	SKU      engine.SKU
	Units    int64
	Who, Why string
	MoveID   int64 // of a restock, withdraw or return
}

// Trail lists what was done to a sale by hand, newest first.
func (s *Store) Trail(ctx context.Context, sale engine.SaleID, limit int) ([]TrailEntry, error) {
	return nil, errTODO
}
