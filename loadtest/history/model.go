package history

import (
	"slices"
	"strings"

	"github.com/doorbuster/doorbuster/engine"
)

// Rules say what the buyers of a history may expect.
type Rules struct {
	// Limit is the units each buyer may have, the lower of the sale's and the ticket's; 0 is none.
	Limit int64
	// Stock is the units for sale at the beginning, where each buyer asks for one
	// item that nobody else asks for; 0 where others take units too.
	Stock int64
	// Ends says that orders may end cancelled though their buyer did not wish it:
	// payments are declined, deadlines pass.
	Ends bool
	// Lossy says that Redis may have lost its data meanwhile. What no buyer heard
	// a 202 for may be gone, and a key may be accepted anew as the same order.
	Lossy bool
}

// phase is what is known of an order. Steps that nobody saw are taken when an
// answer shows that they must have been, never before: a step that is put off can
// still be taken later, so putting off excludes nothing.
type phase byte

const (
	live      phase = iota // or more, that nobody has seen
	confirmed              // in PostgreSQL; Redis may say so or not yet
	settled                // in Redis too
	cancelled              // in PostgreSQL; its units may be back or not yet
	released               // in Redis too: its units are back
)

// known is one order of the buyer.
type known struct {
	key      string
	body     uint64
	units    int64
	id       engine.OrderID // "" until it was named
	hold     string         // "" until it was named
	phase    phase
	promised bool // a 202 or 200 was heard
	wished   bool // a cancel was sent
}

// state is what one buyer may know. It is never changed, only replaced.
type state struct {
	orders   []known // by key
	restocks []int64 // units put in, none of which was seen yet
	added    int64   // units put in that were seen
}

func (s *state) equal(o *state) bool {
	return s.added == o.added && slices.Equal(s.orders, o.orders) && slices.Equal(s.restocks, o.restocks)
}

func (s *state) find(key string) (at int, found bool) {
	return slices.BinarySearchFunc(s.orders, key, func(k known, key string) int { return strings.Compare(k.key, key) })
}

func (s *state) named(id engine.OrderID) int {
	return slices.IndexFunc(s.orders, func(k known) bool { return k.id == id })
}

// with replaces the order at i.
func (s *state) with(i int, k known) *state {
	n := &state{orders: slices.Clone(s.orders), restocks: s.restocks, added: s.added}
	n.orders[i] = k
	return n
}

// without forgets the order at i.
func (s *state) without(i int) *state {
	return &state{orders: slices.Delete(slices.Clone(s.orders), i, i+1), restocks: s.restocks, added: s.added}
}

// counted is how many units and orders stand against limit and stock, at most.
func (s *state) counted() (units int64, orders int) {
	for i := range s.orders {
		if s.orders[i].phase != released {
			units, orders = units+s.orders[i].units, orders+1
		}
	}
	return units, orders
}

// room tells whether units more may be taken in this state.
func (r *Rules) room(s *state, units int64) bool {
	return !r.limited(s, units) && !r.soldOut(s, units)
}

func (r *Rules) limited(s *state, units int64) bool {
	have, orders := s.counted()
	return orders >= engine.MaxOrdersPerBuyer || (r.Limit > 0 && have+units > r.Limit)
}

func (r *Rules) soldOut(s *state, units int64) bool {
	have, _ := s.counted()
	return r.Stock > 0 && have+units > r.Stock+s.added
}

// step returns the states that may follow an answer; none if it could not have
// been given.
func (r *Rules) step(s *state, in *Input, out *Output) []*state {
	switch in.Ask {
	case Order:
		return r.order(s, in, out)
	case Read:
		return r.read(s, in.Order, out)
	case Cancel:
		return r.cancel(s, in.Order, out)
	case Restock:
		if out.Status >= 400 && !out.open() {
			return []*state{s}
		}
		n := &state{orders: s.orders, restocks: append(slices.Clone(s.restocks), in.Units), added: s.added}
		slices.Sort(n.restocks)
		return []*state{n}
	}
	return nil
}

func (r *Rules) order(s *state, in *Input, out *Output) []*state {
	i, has := s.find(in.Key)
	switch {
	case out.open():
		if has {
			return []*state{s}
		}
		return append(r.take(s, in, out, false), s)
	case out.Status < 300 && !has:
		if out.Replayed {
			return nil
		}
		return r.take(s, in, out, true)
	case out.Status < 300:
		return r.repeated(s, i, in, out)
	case out.Type == "idempotency-mismatch":
		return only(s, has && s.orders[i].body != in.Body)
	case has && r.Lossy && !s.orders[i].promised:
		return append(r.refused(s, true, in, out), r.refused(s.without(i), false, in, out)...)
	}
	return r.refused(s, has, in, out)
}

// refused is an order that was not taken. What a door refuses from memory it
// refuses repeats for too, unless they say that they are repeats.
func (r *Rules) refused(s *state, has bool, in *Input, out *Output) []*state {
	switch out.Type {
	case "limit-reached":
		return only(s, !has && r.limited(s, in.Units))
	case "sold-out":
		return only(s, !in.Repeat || (!has && (r.Stock == 0 || r.soldOut(s, in.Units))))
	case "overloaded", "throttled", "ticket-early":
		return []*state{s}
	}
	return only(s, !has || !in.Repeat)
}

func only(s *state, legal bool) []*state {
	if legal {
		return []*state{s}
	}
	return nil
}

// repeated is an order that was found under its key.
func (r *Rules) repeated(s *state, i int, in *Input, out *Output) []*state {
	k := s.orders[i]
	anew := !out.Replayed && !(r.Lossy && k.phase == live)
	if anew || k.body != in.Body || (k.id != "" && k.id != out.Order) {
		return nil
	}
	if k.hold != "" && out.Hold != "" && k.hold != out.Hold && !r.Lossy {
		return nil
	}
	if other := s.named(out.Order); other >= 0 && other != i {
		return nil
	}
	k.id, k.promised = out.Order, true
	if out.Hold != "" {
		k.hold = out.Hold
	}
	switch out.Type { // as Redis has it
	case "accepted":
		return s.seen(i, k, k.phase == live || k.phase == confirmed || k.phase == cancelled, k.phase)
	case "confirmed":
		return s.seen(i, k, k.phase == live || k.phase == confirmed || k.phase == settled, settled)
	case "cancelled":
		return s.seen(i, k, r.mayEnd(&k) || k.phase == cancelled || k.phase == released, released)
	}
	return nil
}

// seen replaces the order at i by k in its next phase, if that is legal.
func (s *state) seen(i int, k known, legal bool, next phase) []*state {
	if !legal {
		return nil
	}
	k.phase = next
	return []*state{s.with(i, k)}
}

// mayEnd tells whether an order that nobody has seen ended may be cancelled.
func (r *Rules) mayEnd(k *known) bool { return k.phase == live && (r.Ends || k.wished) }

// read is an order looked up by its id, in PostgreSQL first.
func (r *Rules) read(s *state, id engine.OrderID, out *Output) []*state {
	i := s.named(id)
	if out.open() || out.Type == "overloaded" || out.Type == "throttled" {
		return []*state{s}
	}
	if i < 0 {
		return only(s, out.Type == "not-found")
	}
	k := s.orders[i]
	switch out.Type {
	case "accepted", "reserved", "paying":
		return s.seen(i, k, k.phase == live, live)
	case "confirmed":
		return s.seen(i, k, k.phase == live || k.phase == confirmed || k.phase == settled, max(k.phase, confirmed))
	case "cancelled":
		return s.seen(i, k, r.mayEnd(&k) || k.phase == cancelled || k.phase == released, max(k.phase, cancelled))
	case "not-found":
		if r.Lossy && !k.promised {
			return []*state{s.without(i)}
		}
	}
	return nil
}

// cancel is the buyer's wish to end an order.
func (r *Rules) cancel(s *state, id engine.OrderID, out *Output) []*state {
	i := s.named(id)
	if i < 0 {
		return only(s, out.open() || out.Type == "not-found" || out.Type == "overloaded")
	}
	k := s.orders[i]
	switch {
	case out.open():
		k.wished = true
		return []*state{s.with(i, k)}
	case out.Status == 202:
		k.wished = true
		return s.seen(i, k, k.phase == live, live)
	case out.Status < 300:
		return s.seen(i, k, k.phase == live || k.phase == cancelled || k.phase == released, max(k.phase, cancelled))
	case out.Type == "order-pending":
		return s.seen(i, k, k.phase == live, live)
	case out.Type == "not-cancellable" && k.phase == live:
		ended := s.seen(i, k, true, confirmed)
		return append(ended, s.seen(i, k, r.Ends, cancelled)...)
	case out.Type == "not-cancellable", out.Type == "overloaded", out.Type == "throttled":
		return []*state{s}
	case out.Type == "not-found" && r.Lossy && !k.promised:
		return []*state{s.without(i)}
	}
	return nil
}
