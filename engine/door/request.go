package door

import (
	"github.com/doorbuster/doorbuster/engine"
	"github.com/doorbuster/doorbuster/engine/ticket"
	"github.com/doorbuster/doorbuster/stock"
)

// request is one order request on its way from the handler to a group and back.
// Handlers reuse them. Between submit and the answer it belongs to the group;
// nothing in it points into a RequestCtx then.
type request struct {
	done chan struct{} // one slot: the group fills it once, after the answer

	claims ticket.Claims
	wish   wish
	id     [engine.OrderIDLen]byte // the order id, once identified
	named  bool                    // id is filled

	expired bool // the ticket: only what is stored under its key is answered

	sale  *sale
	lines [engine.MaxLines]engine.Line // of the basket
	n     int                          // of lines
	items uint64                       // of the view's items, those asked for
	began int64                        // on the door's clock, when it joined
	ids   [engine.MaxIdentities]engine.Identity
	names string // order id and buyer, in one string: the only memory an accepted order costs here

	answer  answer
	verdict stock.Verdict // of orders, and refusals of the script
	at      int64         // Unix milliseconds by Redis' clock of an accept

	out []byte // the body of the reply is made here
}

func newRequest() any { return &request{done: make(chan struct{}, 1)} }

// reset forgets what belongs to the caller.
func (r *request) reset() {
	r.named, r.expired, r.wish.currency = false, false, nil
	if r.sale != nil || r.at != 0 { // it was in a group, or is in PostgreSQL
		r.sale, r.names, r.answer, r.verdict, r.at = nil, "", unanswered, stock.Verdict{}, 0
	}
}

// keep copies what the group needs out of the request's bytes.
func (r *request) keep() {
	var both [engine.OrderIDLen + engine.MaxBuyerIDLen]byte
	n := copy(both[:], r.id[:])
	n += copy(both[n:], r.claims.Buyer)
	r.names = string(both[:n])
	copy(r.ids[:], r.claims.Identities)
}

// basket fills b with what is asked for. The basket is valid as long as the
// request belongs to the group.
func (r *request) basket(b *engine.Basket) {
	lines := r.lines[:r.n]
	b.Order = engine.OrderID(r.names[:engine.OrderIDLen])
	b.Buyer = engine.BuyerID(r.names[engine.OrderIDLen:])
	b.Identities = nil
	if n := len(r.claims.Identities); n > 0 {
		b.Identities = r.ids[:n]
	}
	b.Lines = lines
	b.Total = r.wish.amount
	b.Max, b.ReplayOnly = int64(r.claims.Max), r.expired
}

// order is the id of the order that the request asks for.
func (r *request) order() engine.OrderID { return engine.OrderID(r.names[:engine.OrderIDLen]) }
