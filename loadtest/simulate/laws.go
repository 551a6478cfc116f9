package simulate

import (
	"fmt"
	"net/http"

	"github.com/doorbuster/doorbuster/engine"
	"github.com/doorbuster/doorbuster/engine/door"
	"github.com/doorbuster/doorbuster/engine/orders"
	"github.com/doorbuster/doorbuster/payment/provider"
	"github.com/doorbuster/doorbuster/stock"
)

// laws are those of engine/audit (docs/ARCHITECTURE.md), asked of the simulated
// services: some after every write, the rest when all is at rest. The letters of what
// is broken name the law.
type laws struct {
	w      *world
	broken []string
	ended  map[engine.OrderID]end // how orders ended
	sum    [2 * len(goods)]int64  // scratch
	moves  []applied
	before []string // the standing before replays
}

// end is how an order ended.
type end struct {
	state  engine.OrderState
	reason engine.Reason
}

func (l *laws) begin(w *world) { l.w, l.ended = w, map[engine.OrderID]end{} }

// breaks notes a violation, once by its first words.
func (l *laws) breaks(format string, args ...any) {
	l.broken = append(l.broken, fmt.Sprintf(format, args...))
	l.w.tell("BROKEN: "+format, args...)
}

// stock is law 1, after every write to Redis: units are conserved and none is negative.
func (l *laws) stock(s *shop) {
	l.w.redis.m.EachItem(s.id, func(it *stock.Item) {
		if min(it.Available, it.Held, it.Sold) < 0 || it.Available+it.Held+it.Sold != it.Units {
			l.breaks("law 1: item %s has %d available, %d held, %d sold of %d", it.SKU, it.Available, it.Held, it.Sold, it.Units)
		}
	})
}

// books is laws 2, 3 and 5, after every transaction: no more is claimed or confirmed than
// there is, and an end is never left.
func (l *laws) books() {
	clear(l.sum[:])
	l.w.db.m.Each(func(v *orders.View) {
		if was, ok := l.ended[v.Order.Order]; ok && was != (end{v.State, v.Reason}) {
			l.breaks("law 5: order %s was %s (%s) and is %s (%s)", v.Order.Order, was.state, was.reason, v.State, v.Reason)
		}
		if !v.State.Terminal() {
			return
		}
		l.ended[v.Order.Order] = end{v.State, v.Reason}
		if v.State == engine.Confirmed && !v.Returned {
			for _, line := range v.Lines {
				l.sum[place(line.SKU)] += line.Quantity
			}
		}
	})
	for _, s := range l.w.shops {
		l.early(s)
		for i, sku := range s.skus {
			claimed, units := l.w.db.m.Claimed(s.id, sku)
			if claimed > units || claimed < 0 {
				l.breaks("law 2: %d of %d units of %s claimed", claimed, units, sku)
			}
			if n := l.sum[place(s.skus[i])]; n > units {
				l.breaks("law 3: %d of %d units of %s confirmed", n, units, sku)
			}
		}
	}
}

// place is where an item stands among all goods.
func place(sku engine.SKU) int { return int(sku[0] - goods[0][0][0]) }

// money is part of law 6, after every authorisation: at most one that is not given
// back for each order.
func (l *laws) money() {
	open := map[engine.OrderID]int{}
	for _, c := range l.w.bank.charges {
		if c.State == provider.StateAuthorised || c.State == provider.StateCaptured {
			if open[c.Order]++; open[c.Order] > 1 {
				l.breaks("law 6: order %s is charged twice", c.Order)
			}
		}
	}
}

// heard notes what a client was told.
func (l *laws) heard(cl *client, s *door.Said) {
	c := &l.w.crowd
	if cl.order != "" && s.Order != "" && s.Order != cl.order {
		l.breaks("law 12: one key, orders %s and %s", cl.order, s.Order)
	}
	if s.Order != "" {
		cl.order = s.Order
	}
	if l.refused(cl, s) {
		return
	}
	epoch := l.w.redis.m.InUse(cl.shop.id)
	had, again := c.acked[cl.order]
	switch s.Type {
	case "accepted", "confirmed":
		if !again {
			c.acked[s.Order] = acked{cl.buyer, cl.total, epoch, l.w.redis.careless == 0}
		}
		if s.Type == "confirmed" {
			c.bought[s.Order] = true
		}
	case "cancelled":
		c.gone[s.Order] = true
	case "sold-out", "limit-reached", "closed", "price-changed", "not-open":
		// Where Redis lost nothing since, a repeat finds what was said.
		if again && cl.ask.Repeat && epoch == had.epoch && !cl.shop.pruned {
			l.breaks("law 12: %s heard 202 of order %s, and then %s", cl.buyer, cl.order, s.Type)
		}
	}
}

// refused is the part of law 12 that says what a good request never hears, and what one
// hears who asks for something else under the same key.
func (l *laws) refused(cl *client, s *door.Said) (done bool) {
	if cl.other {
		if s.Status < http.StatusMultipleChoices {
			l.breaks("law 12: another body under the key of order %s hears %d %s", cl.order, s.Status, s.Type)
		}
		return true
	}
	wrong := false
	switch s.Type {
	case "invalid", "ticket-invalid", "idempotency-mismatch", "not-found":
		wrong = true
	case "price-changed":
		wrong = !cl.shop.priced
	case "not-open":
		wrong = l.w.plan.opens < 0
	case "closed":
		wrong = !cl.shop.mayClose
	case "paused":
		wrong = !cl.shop.mayPause && !l.w.jumped
	}
	if wrong {
		l.breaks("law 12: a good request hears %d %s", s.Status, s.Type)
	}
	return false
}

// unrest says what is not at rest, or "".
func (l *laws) unrest() string {
	w := l.w
	switch {
	case !w.crowd.over():
		return fmt.Sprintf("%d clients", w.crowd.left)
	case len(w.broker.queue)+len(w.broker.unacked) > 0:
		return fmt.Sprintf("%d messages", len(w.broker.queue)+len(w.broker.unacked))
	case len(w.db.parked) > 0:
		return "parked envelopes"
	case len(w.db.tasks) > 0:
		return "tasks of the ledger"
	case w.db.m.Pending() > 0:
		return fmt.Sprintf("%d pending moves", w.db.m.Pending())
	}
	what := ""
	w.db.m.Each(func(v *orders.View) {
		if !v.State.Terminal() {
			what = fmt.Sprintf("order %s is %s", v.Order.Order, v.State)
		}
	})
	for _, s := range w.shops {
		if what == "" {
			what = l.unrestOf(s)
		}
	}
	return what
}

func (l *laws) unrestOf(s *shop) string {
	w := l.w
	f, err := w.db.m.Fence(w.ctx, s.id)
	watch, err2 := w.redis.m.Watch(w.ctx, s.id, 0)
	at := w.redis.skew - w.db.skew
	switch {
	case err == nil && w.forgotten(s, f.State):
		return ""
	case err != nil, f.Frozen, err2 != nil, watch.Frozen, watch.Epoch != f.Epoch:
		return fmt.Sprintf("epoch %d frozen %v in PostgreSQL, %d frozen %v in Redis (%v, %v)", f.Epoch, f.Frozen, watch.Epoch, watch.Frozen, err, err2)
	case at.Abs() > maxApart && watch.State == engine.SaleOpen && watch.Now < watch.Closes:
		return fmt.Sprintf("law 14: the clock of Redis is %s before that of PostgreSQL, and %s is %s", at, s.id, watch.State)
	case said(f.State) != said(watch.State) && !watch.Retired && at.Abs() < nearlyApart: // else nobody follows
		return fmt.Sprintf("%s is %s in PostgreSQL and %s in Redis", s.id, f.State, watch.State)
	case f.Version != watch.Version && !watch.Retired && at.Abs() < nearlyApart:
		return fmt.Sprintf("%s is in definition %d in PostgreSQL and %d in Redis", s.id, f.Version, watch.Version)
	case f.State == engine.SaleSettled && !watch.Retired:
		return fmt.Sprintf("%s is settled, and its slot does not say so", s.id)
	case f.State == engine.SaleClosed && w.plan.settles:
		return fmt.Sprintf("%s is closed, and not settled", s.id)
	}
	return l.unrestOfStock(s, &watch)
}

// said is what a buyer hears of a sale in a state, within its window: Redis does not know
// the others.
func said(state engine.SaleState) engine.SaleState {
	switch state {
	case engine.SalePaused, engine.SaleClosed:
		return state
	}
	return engine.SaleOpen
}

// forgotten tells whether Redis lost something of a settled sale after its slot was told,
// be it before the commit: nobody looks after it, and PostgreSQL alone answers for it.
func (w *world) forgotten(s *shop, state engine.SaleState) bool {
	return state == engine.SaleSettled && s.life != w.redis.life
}

func (l *laws) unrestOfStock(s *shop, watch *stock.Watch) string {
	w := l.w
	if ok, _ := w.redis.m.Loaded(w.ctx, s.id, watch.Incarnation); !ok && !watch.Retired {
		return "no scripts"
	}
	epochs, _ := w.redis.m.Epochs(w.ctx, s.id)
	for _, epoch := range epochs {
		if _, n, _ := w.redis.m.Outbox(w.ctx, s.id, epoch, 1); n > 0 {
			return fmt.Sprintf("%d entries in the outbox of epoch %d", n, epoch)
		}
		recs, _, _ := w.redis.m.Records(w.ctx, s.id, epoch, 0)
		for _, r := range recs {
			known, err := w.db.m.Order(w.ctx, r.Order.Order)
			if r.State == engine.RecordHeld && (epoch == watch.Epoch || err != nil) {
				return fmt.Sprintf("order %s is held in epoch %d under %s (known: %v %s)", r.Order.Order, epoch, r.Order.Hold, err == nil, known.Hold)
			}
		}
	}
	return ""
}

func (l *laws) atRest() bool { return l.unrest() == "" }
