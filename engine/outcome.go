package engine

// Outcome is what the stock says to one basket of a group. Refusals are
// outcomes, not errors.
type Outcome byte

// The outcomes, written in replies of reserve.lua as these bytes.
const (
	Accepted       Outcome = 'A' // units held, in this call
	ReplayHeld     Outcome = 'H' // same key before: units held
	ReplaySettled  Outcome = 'S' // same key before: confirmed since
	ReplayReleased Outcome = 'R' // same key before: cancelled since
	Mismatch       Outcome = 'M' // same key before, with another body
	NotOpen        Outcome = 'E' // before opens
	Closed         Outcome = 'C' // at or after closes, or closed by hand
	Paused         Outcome = 'P' // paused by hand
	PriceChanged   Outcome = '$' // the total asked is not the total of the slot's prices
	OverLimit      Outcome = 'L' // above the limit per buyer (or the ticket's)
	OverIdentity   Outcome = 'I' // above the limit per identity
	SoldOut        Outcome = 'O' // fewer units available than asked
	UnknownSKU     Outcome = 'U' // no such item in the sale
	NoReplay       Outcome = 'T' // only a repeat was allowed, and nothing stands under the key
)

// Took tells whether the buyer has, or had, an order under his key.
func (o Outcome) Took() bool {
	return o == Accepted || o == ReplayHeld || o == ReplaySettled || o == ReplayReleased
}

// String names the outcome by its stable problem type (RFC 9457), as the HTTP
// API and the metrics do.
func (o Outcome) String() string {
	switch o {
	case Accepted:
		return "accepted"
	case ReplayHeld, ReplaySettled, ReplayReleased:
		return "replayed"
	case Mismatch:
		return "idempotency-mismatch"
	case NotOpen:
		return "not-open"
	case Closed:
		return "closed"
	case Paused:
		return "paused"
	case PriceChanged:
		return "price-changed"
	case OverLimit, OverIdentity:
		return "limit-reached"
	case SoldOut:
		return "sold-out"
	case UnknownSKU:
		return "not-found"
	case NoReplay:
		return "ticket-invalid"
	}
	return "unknown"
}
