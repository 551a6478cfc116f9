package engine

import "time"

// Line is a quantity of one SKU at its unit price.
type Line struct {
	SKU      SKU
	Quantity int64 // units, at least 1
	Price    int64 // minor units each, fixed at reserve
}

// Units adds up the quantities of lines.
func Units(lines []Line) int64 {
	var n int64
	for _, l := range lines {
		n += l.Quantity
	}
	return n
}

// Basket is what a buyer asks for: all of its lines or none.
type Basket struct {
	Order      OrderID
	Buyer      BuyerID
	Identities []Identity // at most MaxIdentities, no two alike
	Lines      []Line     // 1 to MaxLines, no SKU twice
	Total      int64      // minor units the buyer saw
	Body       uint64     // hash of lines, total and currency: see BodyHash
	Max        int64      // units the ticket allows its buyer in this sale; 0 is no bound
	ReplayOnly bool       // the ticket has expired: a stored outcome is answered, nothing new is taken

	// MaxIdentity bounds the units of each identity, as Max those of the buyer. Set
	// for orders that are taken again.
	MaxIdentity int64
}

// Order is an accepted basket, as it travels from the stock to PostgreSQL.
type Order struct {
	Basket
	Hold          Hold
	AcceptedAt    int64 // Unix milliseconds by Redis' clock
	LimitBuyer    int64 // in force at the accept; 0 is none
	LimitIdentity int64 // in force at the accept; 0 is none
}

// Accepted returns AcceptedAt as a time in UTC.
func (o *Order) Accepted() time.Time { return time.UnixMilli(o.AcceptedAt).UTC() }

// OrderState is where an order stands in PostgreSQL. Numbers are stored; never
// renumber.
type OrderState int16

// The states of an order.
const (
	Reserved  OrderState = 1 // units claimed; payment not begun
	Paying    OrderState = 2 // a payment attempt may exist at the provider
	Confirmed OrderState = 3 // terminal
	Cancelled OrderState = 4 // terminal
)

// NextOrderStates is the table of legal moves of an order.
var NextOrderStates = map[OrderState][]OrderState{
	Reserved:  {Paying, Cancelled},
	Paying:    {Confirmed, Cancelled},
	Confirmed: nil,
	Cancelled: nil,
}

// CanBecome tells whether an order of state s may move to next.
func (s OrderState) CanBecome(next OrderState) bool {
	for _, n := range NextOrderStates[s] {
		if n == next {
			return true
		}
	}
	return false
}

// Terminal tells whether the state is never left.
func (s OrderState) Terminal() bool { return len(NextOrderStates[s]) == 0 }

// Live tells whether an order of this state claims units.
func (s OrderState) Live() bool { return s == Reserved || s == Paying || s == Confirmed }

// String names the state as the API does.
func (s OrderState) String() string {
	switch s {
	case Reserved:
		return "reserved"
	case Paying:
		return "paying"
	case Confirmed:
		return "confirmed"
	case Cancelled:
		return "cancelled"
	}
	return "unknown"
}

// Reason says why an order was cancelled. Numbers are stored; never renumber.
type Reason int16

// The reasons.
const (
	NoReason       Reason = 0
	ReasonSoldOut  Reason = 1 // PostgreSQL's guard: no unit left
	ReasonLimit    Reason = 2 // PostgreSQL's guard: above the limit
	ReasonEpoch    Reason = 3 // of an older epoch, and refused when taken again
	ReasonDeclined Reason = 4 // the provider declined
	ReasonExpired  Reason = 5 // the deadline passed
	ReasonBuyer    Reason = 6 // the buyer cancelled
	ReasonRejected Reason = 7 // the message could not be ingested
)

// String names the reason as the API does.
func (r Reason) String() string {
	names := [...]string{"", "sold-out", "limit", "epoch", "declined", "expired", "buyer", "rejected"}
	if r < 0 || int(r) >= len(names) {
		return "unknown"
	}
	return names[r]
}
