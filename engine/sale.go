package engine

import "time"

// SaleState is where a sale stands in its life. Whether a sale of state Open (or
// Scheduled) really sells is decided by its window and Redis' clock alone:
// nothing has to fire at the second it opens.
type SaleState string

// The states of a sale.
const (
	SaleDraft     SaleState = "draft"     // not loaded into Redis
	SaleScheduled SaleState = "scheduled" // loaded; opens by itself
	SaleOpen      SaleState = "open"      // as scheduled, after its opening was seen
	SalePaused    SaleState = "paused"    // loaded, refuses every new order
	SaleClosed    SaleState = "closed"    // no new orders; live ones go on
	SaleSettled   SaleState = "settled"   // closed and at rest; closed again if something comes after all
)

// NextSaleStates is the table of legal moves of a sale.
var NextSaleStates = map[SaleState][]SaleState{
	SaleDraft:     {SaleScheduled},
	SaleScheduled: {SaleOpen, SalePaused, SaleClosed},
	SaleOpen:      {SalePaused, SaleClosed},
	SalePaused:    {SaleOpen, SaleClosed},
	SaleClosed:    {SaleSettled},
	SaleSettled:   nil,
}

// CanBecome tells whether a sale of state s may move to next.
func (s SaleState) CanBecome(next SaleState) bool {
	for _, n := range NextSaleStates[s] {
		if n == next {
			return true
		}
	}
	return false
}

// Mode says what a 202 survives (docs/ARCHITECTURE.md).
type Mode string

// The modes.
const (
	ModeStandard Mode = "standard" // Redis may lose its last second
	ModeDurable  Mode = "durable"  // the hold itself survives power loss
)

// PaymentKind says who moves first when an order was ingested.
type PaymentKind string

// The kinds of payment.
const (
	PayAtOrder  PaymentKind = "at-order" // the worker charges at once
	PayCheckout PaymentKind = "checkout" // the buyer has until the deadline
)

// Bounds of a sale's definition.
const (
	MaxItems          = 64 // items of a sale
	MaxUnits          = 1_000_000_000
	MaxLines          = 8     // lines of a basket
	MaxQuantity       = 1_000 // units of one SKU in a basket
	MaxOrdersPerBuyer = 20    // orders of one buyer in a sale
	DefaultHoldFor    = 10 * time.Minute
	DefaultReplay     = 24 * time.Hour
)

// Item is one SKU of a sale.
type Item struct {
	SKU   SKU    `json:"sku"`
	Name  string `json:"name"`
	Price int64  `json:"price"` // minor units of the sale's currency
	Units int64  `json:"units"` // for sale in all, sold and held ones included
}

// Sale is the definition and state of a sale as PostgreSQL knows it.
type Sale struct {
	ID               SaleID
	Name             string
	State            SaleState
	Epoch            int64 // of the Redis keys in use; raised by each rebuild
	Version          int64 // of the definition; raised by each change of it
	KeyNumber        int   // of the master key order ids derive from
	Mode             Mode
	Payment          PaymentKind
	Provider         string        // name of a payment provider: "instant", "sandbox"
	Currency         string        // ISO 4217
	Opens, Closes    time.Time     // UTC, to the millisecond; sells in [Opens, Closes)
	LimitPerBuyer    int64         // units; 0 is no limit
	LimitPerIdentity int64         // units; 0 is no limit
	HoldFor          time.Duration // from ingest, where the buyer's step is next
	ReplayWindow     time.Duration // after Closes, during which Redis answers a repeat
	Items            []Item
}

// Item finds the item with this SKU.
func (s *Sale) Item(sku SKU) (*Item, bool) {
	for i := range s.Items {
		if s.Items[i].SKU == sku {
			return &s.Items[i], true
		}
	}
	return nil, false
}
