package stock

import (
	"errors"

	"github.com/doorbuster/doorbuster/engine"
)

// Errors of the store. Where one of them is returned, the call it answers wrote
// nothing.
var (
	// ErrFenced says that the keys or scripts a Grip names are not the ones in
	// use: Redis restarted (NOSCRIPT), another epoch or incarnation, frozen, or no
	// state. Read the watch again; recovery heals the sale.
	ErrFenced = errors.New("stock: fenced")
	// ErrStale says that the definition in the slot is of another version than
	// the Grip's, or, to SetState, that the state was set since the Grip was read. Read the watch again and repeat.
	ErrStale = errors.New("stock: definition of another version")
	// ErrNoSale says that the slot knows no such sale.
	ErrNoSale = errors.New("stock: no such sale")
	// ErrNoItem says that a restock or withdraw names a SKU the sale has not.
	ErrNoItem = errors.New("stock: no such item")
)

// Grip is what a caller must hold to call a script of a sale. It comes with the
// Watch; a script refuses the call when it is not the one in use.
type Grip struct {
	Epoch       int64
	Incarnation int64
	Version     int64 // of the definition
	Turn        int64 // how often the state was set in this epoch: SetState compares it
	SHA         SHAs
	Safety      Safety // what Reserve and Retake wait for
}

// Watch is what the slot says about a sale at one moment.
type Watch struct {
	Grip
	Heartbeat          int64            // rises while recovery leads and PostgreSQL confirms the epoch
	State              engine.SaleState // SaleOpen, SalePaused or SaleClosed; "" when frozen
	Frozen             bool             // a rebuild has begun: every script refuses
	Opens, Closes, Now int64            // Unix milliseconds; Now by Redis' TIME
	Currency           string           // ISO 4217
	LimitBuyer         int64            // units; 0 is none
	LimitIdentity      int64            // units; 0 is none
	KeyNumber          int64            // of the master key that order ids derive from
	Seq                int64            // the last hold given out in this epoch
	Lag                int64            // milliseconds the ingest is behind
	Retired            bool             // the sale is settled: nothing will change any more
	Items              []Item           // in order of SKU
}

// Item is one SKU of a sale as the slot knows it.
type Item struct {
	SKU                          engine.SKU
	Price                        int64 // minor units each
	Units, Available, Held, Sold int64 // Units = Available + Held + Sold
}

// Counter is one counter of live orders.
type Counter struct {
	Buyer    engine.BuyerID  // of a counter per buyer
	Identity engine.Identity // of a counter per identity
	Units    int64
	Orders   int64 // counters per buyer only; a buyer has at most engine.MaxOrdersPerBuyer at a time
}
