package door

import (
	"unsafe"

	"github.com/valyala/fasthttp"

	"github.com/doorbuster/doorbuster/engine"
	"github.com/doorbuster/doorbuster/engine/failpoint"
)

// order answers POST /v1/sales/{id}/orders.
func (d *Door) order(ctx *fasthttp.RequestCtx, id []byte) {
	if !ctx.IsPost() {
		ctx.Response.Header.SetCanonical(keyAllow, methodPost)
		d.refuse(ctx, badMethod, routeOrder)
		return
	}
	h, ok := headOf(ctx)
	if !ok {
		d.refuse(ctx, badRequest, routeOrder)
		return
	}
	r := d.requests.Get().(*request)
	a := d.admit(r, h, id, ctx.Request.Body())
	if a == unanswered {
		r.sale.submit(r)
		<-r.done
		r.sale.gate.leave()
		failpoint.Hit("door/before-reply")
		a = r.answer
	}
	d.reply(ctx, r, a)
	r.reset()
	d.requests.Put(r)
}

// admit refuses what can be refused without Redis, cheapest first,
// and prepares the rest for a group. It allocates nothing for what it refuses.
// unanswered means: the request has a place in the gate and may be submitted.
func (d *Door) admit(r *request, h *head, id, body []byte) answer {
	if a := d.credential(r, h, id); a != unanswered {
		return a
	}
	now := d.clock()
	s, v, a := d.use(id, now, true)
	if a == noSale {
		return d.lost(r, h, body)
	}
	if a != unanswered {
		return a
	}
	s.hurry(now)
	return d.weigh(r, seen{s, v}, h, body)
}

// seen is a sale and what the door knows of it.
type seen struct {
	s *sale
	v *view
}

// weigh is the part of admit that comes after the sale was found.
func (d *Door) weigh(r *request, of seen, h *head, body []byte) answer {
	s, v, now := of.s, of.v, d.clock()
	if a := r.early(v, now); a != unanswered {
		return a
	}
	if !isKey(h.key) {
		return badKey
	}
	repeat := h.replay || d.remembered(r, v, h.key, now)
	fresh := v.fresh(now) && !v.Frozen
	r.expired = v.earliest(now) > r.claims.NotAfter
	if !repeat {
		if r.expired {
			return ticketExpired
		}
		if fresh {
			if a := v.refusal(now); a != unanswered {
				return a
			}
		}
	}
	if a := r.wish.parse(body); a != unanswered {
		return a
	}
	if a := r.resolve(v); a != unanswered {
		return a
	}
	if !repeat && fresh {
		if a := v.sold(r.items); a != unanswered {
			return a
		}
	}
	return d.enter(r, s, v, h.key)
}

// enter takes the request through what stands before Redis: bucket, lease, gate.
func (d *Door) enter(r *request, s *sale, v *view, key []byte) answer {
	now := d.clock()
	if !d.buckets.take(r.claims.Buyer, now) {
		return throttled
	}
	// A settled sale has no heartbeat, and needs none: nothing is accepted there.
	if d.closed.Load() || (!v.Retired && !s.leasedFor(v, now)) {
		return frozen
	}
	if d.cfg.Publisher.Blocked() || v.Lag > d.cfg.LagMax.Milliseconds() || !s.gate.enter() {
		return overloaded
	}
	r.name(v, key)
	r.keep()
	r.sale, r.began = s, d.clock()
	return unanswered
}

var ticketPrefix = []byte("Ticket ")

// credential checks whose ticket it is and for which sale.
func (d *Door) credential(r *request, h *head, id []byte) answer {
	n := len(ticketPrefix)
	if len(h.authorization) <= n || !isName(h.authorization[:n-1], "ticket") || h.authorization[n-1] != ' ' {
		return noTicket
	}
	if d.cfg.Tickets.Verify(&r.claims, h.authorization[n:]) != nil {
		return badTicket
	}
	if string(r.claims.Sale) != string(id) {
		return otherSale
	}
	return unanswered
}

// early compares the ticket's beginning with Redis' clock.
func (r *request) early(v *view, now int64) answer {
	if v.latest(now) < r.claims.NotBefore {
		return ticketEarly
	}
	return unanswered
}

// remembered tells whether this door has told the order to repeat.
func (d *Door) remembered(r *request, v *view, key []byte, now int64) bool {
	if !d.recall.any() {
		return false
	}
	r.name(v, key)
	return d.recall.has(r.id[:], now)
}

// name derives the order id, once.
func (r *request) name(v *view, key []byte) {
	if !r.named {
		// AppendID keeps nothing, and a copy of the buyer would be memory per refusal.
		buyer := unsafe.String(unsafe.SliceData(r.claims.Buyer), len(r.claims.Buyer))
		v.key.AppendID(r.id[:0], engine.BuyerID(buyer), key)
		r.named = true
	}
}

// resolve finds what the wish names among the items of the sale.
func (r *request) resolve(v *view) answer {
	if string(r.wish.currency) != v.Currency {
		return badCurrency
	}
	r.n, r.items = r.wish.n, 0
	for i := range r.wish.lines[:r.wish.n] {
		at := v.item(r.wish.lines[i].sku)
		if at < 0 {
			return noItem
		}
		r.items |= 1 << uint(at)
		r.lines[i] = engine.Line{SKU: v.Items[at].SKU, Quantity: r.wish.lines[i].quantity, Price: v.Items[at].Price}
	}
	return unanswered
}

// isKey is engine.ValidateKey without an error to make.
func isKey(key []byte) bool {
	if len(key) == 0 || len(key) > engine.MaxKeyLen {
		return false
	}
	for _, c := range key {
		if c < 0x21 || c > 0x7e {
			return false
		}
	}
	return true
}
