package simulate

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/doorbuster/doorbuster/engine"
	"github.com/doorbuster/doorbuster/engine/door"
	"github.com/doorbuster/doorbuster/engine/orders"
	"github.com/doorbuster/doorbuster/payment/ledger"
	"github.com/doorbuster/doorbuster/payment/provider"
)

// laws are those of engine/audit (docs/ARCHITECTURE.md), asked of the simulated
// services: some after every write, the rest when all is at rest. The letters of what
// is broken name the law.
type laws struct {
	w      *world
	broken []string
	ended  map[engine.OrderID]string // how orders ended
}

func (l *laws) begin(w *world) { l.w, l.ended = w, map[engine.OrderID]string{} }

// breaks notes a violation, once by its first words.
func (l *laws) breaks(format string, args ...any) {
	l.broken = append(l.broken, fmt.Sprintf(format, args...))
	l.w.tell("BROKEN: "+format, args...)
}

// stock is law 1, after every write to Redis: units are conserved and none is negative.
func (l *laws) stock() {
	watch, err := l.w.redis.m.Watch(context.Background(), saleID, 0)
	if err != nil {
		return
	}
	for _, it := range watch.Items {
		if min(it.Available, it.Held, it.Sold) < 0 || it.Available+it.Held+it.Sold != it.Units {
			l.breaks("law 1: item %s has %d available, %d held, %d sold of %d", it.SKU, it.Available, it.Held, it.Sold, it.Units)
		}
	}
}

// books is laws 2 and 3, after every transaction: no more claimed than there is.
func (l *laws) books() {
	sale, st, err := l.w.db.m.Sale(context.Background(), saleID)
	if err != nil {
		return
	}
	for i, c := range st.Claimed {
		if c.Units > sale.Items[i].Units || c.Units < 0 {
			l.breaks("law 2: %d of %d units of %s claimed", c.Units, sale.Items[i].Units, c.SKU)
		}
	}
}

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
	switch s.Type {
	case "accepted":
		c.acked[s.Order] = acked{cl.buyer, cl.total}
	case "confirmed":
		c.bought[s.Order] = true
		c.acked[s.Order] = acked{cl.buyer, cl.total}
	case "cancelled":
		c.gone[s.Order] = true
	case "invalid", "ticket-invalid", "idempotency-mismatch", "not-found", "price-changed", "not-open", "closed":
		l.breaks("law 12: a good request hears %d %s", s.Status, s.Type)
	}
}

// unrest says what is not at rest, or "".
func (l *laws) unrest() string {
	w, ctx := l.w, context.Background()
	f, err := w.db.m.Fence(ctx, saleID)
	watch, err2 := w.redis.m.Watch(ctx, saleID, 0)
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
	case err != nil, f.Frozen, err2 != nil, watch.Frozen, watch.Epoch != f.Epoch:
		return fmt.Sprintf("epoch %d frozen %v in PostgreSQL, %d frozen %v in Redis (%v, %v)", f.Epoch, f.Frozen, watch.Epoch, watch.Frozen, err, err2)
	}
	for _, v := range w.db.m.Views() {
		if !v.State.Terminal() {
			return fmt.Sprintf("order %s is %s", v.Order.Order, v.State)
		}
	}
	return l.unrestOfStock(watch.Epoch)
}

func (l *laws) unrestOfStock(inUse int64) string {
	w, ctx := l.w, context.Background()
	if ok, _ := w.redis.m.Loaded(ctx, saleID, l.incarnation()); !ok {
		return "no scripts"
	}
	epochs, _ := w.redis.m.Epochs(ctx, saleID)
	for _, epoch := range epochs {
		if _, n, _ := w.redis.m.Outbox(ctx, saleID, epoch, 1); n > 0 {
			return fmt.Sprintf("%d entries in the outbox of epoch %d", n, epoch)
		}
		recs, _, _ := w.redis.m.Records(ctx, saleID, epoch, 0)
		for _, r := range recs {
			known, err := w.db.m.Order(ctx, r.Order.Order)
			if r.State == engine.RecordHeld && (epoch == inUse || err != nil) {
				return fmt.Sprintf("order %s is held in epoch %d under %s (known: %v %s)", r.Order.Order, epoch, r.Order.Hold, err == nil, known.Hold)
			}
		}
	}
	return ""
}

func (l *laws) incarnation() int64 {
	watch, _ := l.w.redis.m.Watch(context.Background(), saleID, 0)
	return watch.Incarnation
}

func (l *laws) atRest() bool { return l.unrest() == "" }

// verdict is every law, at rest.
func (l *laws) verdict() {
	views := l.w.db.m.Views()
	by := make(map[engine.OrderID]*orders.View, len(views))
	for i := range views {
		by[views[i].Order.Order] = &views[i]
	}
	l.told(by)
	l.charged(by)
	l.limits(views)
	l.counted(views)
	l.numbers(views)
}

// told is law 8: every 202 has one terminal order of that buyer and price, and nobody
// was told an end that it does not have.
func (l *laws) told(by map[engine.OrderID]*orders.View) {
	c := &l.w.crowd
	for id, a := range c.acked {
		v := by[id]
		switch {
		case v == nil:
			l.breaks("law 8: the 202 of order %s is lost", id)
		case v.Buyer != a.buyer || v.Total != a.total:
			l.breaks("law 8: order %s is of %s at %d, his 202 of %s at %d", id, v.Buyer, v.Total, a.buyer, a.total)
		}
	}
	for id := range c.gone {
		if v := by[id]; v != nil && v.State == engine.Confirmed && !v.Returned {
			l.breaks("law 8: order %s was told cancelled and is %s", id, v.State)
		}
	}
	for id := range c.bought {
		if v := by[id]; v != nil && v.State != engine.Confirmed {
			l.breaks("law 8: order %s was told confirmed and is %s", id, v.State)
		}
	}
}

// charged is law 6: confirmed is charged once, cancelled not at all.
func (l *laws) charged(by map[engine.OrderID]*orders.View) {
	open := map[engine.OrderID]int64{}
	for _, c := range l.w.bank.charges {
		if c.State == provider.StateAuthorised || c.State == provider.StateCaptured {
			open[c.Order] += c.Amount
		}
	}
	for id, v := range by {
		want := int64(0)
		if v.State == engine.Confirmed {
			want = v.Total
		}
		if open[id] != want {
			l.breaks("law 6: order %s is %s and charged %d of %d", id, v.State, open[id], v.Total)
		}
		delete(open, id)
	}
	for ch, state := range l.w.db.books {
		c := l.w.bank.charges[provider.Key(ch.Order, ch.Attempt)]
		if state == ledger.Captured && (c == nil || c.Captured != ch.Amount) {
			l.breaks("law 6: order %s is captured in the ledger, and not at the provider", ch.Order)
		}
	}
	for id, n := range open {
		if n != 0 {
			l.breaks("law 6: order %s does not exist and is charged %d", id, n)
		}
	}
}

// limits is law 4, and the counters of it.
func (l *laws) limits(views []orders.View) {
	has, shared := map[engine.BuyerID][2]int64{}, map[engine.Identity]int64{}
	for _, v := range views {
		if v.State.Live() && !v.Returned {
			h := has[v.Buyer]
			has[v.Buyer] = [2]int64{h[0] + engine.Units(v.Lines), h[1] + 1}
			for _, id := range v.Identities {
				if shared[id] += engine.Units(v.Lines); shared[id] > identityLimit {
					l.breaks("law 4: identity %x has %d units, at most %d", id, shared[id], identityLimit)
				}
			}
		}
	}
	counters := map[engine.BuyerID]string{}
	watch, _ := l.w.redis.m.Watch(context.Background(), saleID, 0)
	for key, fields := range l.w.redis.m.State(saleID) {
		if strings.HasSuffix(key, ":"+strconv.FormatInt(watch.Epoch, 10)+":b") {
			for buyer, n := range fields {
				counters[engine.BuyerID(buyer)] = n
			}
		}
	}
	for buyer, h := range has {
		if h[0] > limit {
			l.breaks("law 4: %s has %d units, at most %d", buyer, h[0], limit)
		}
		if n := strconv.FormatInt(1000*h[0]+h[1], 10); counters[buyer] != n {
			l.breaks("law 1: Redis counts %s for %s, PostgreSQL %s", counters[buyer], buyer, n)
		}
		delete(counters, buyer)
	}
	for buyer, n := range counters {
		l.breaks("law 1: Redis counts %s for %s, PostgreSQL nothing", n, buyer)
	}
}

// counted is laws 2 and 10: what is claimed, sold and left adds up.
func (l *laws) counted(views []orders.View) {
	ctx := context.Background()
	live := map[engine.SKU]int64{}
	for _, v := range views {
		for _, line := range v.Lines {
			if v.State.Live() && !v.Returned {
				live[line.SKU] += line.Quantity
			}
		}
	}
	sale, st, _ := l.w.db.m.Sale(ctx, saleID)
	watch, _ := l.w.redis.m.Watch(ctx, saleID, 0)
	for i, it := range watch.Items {
		claimed, units := st.Claimed[i].Units, sale.Items[i].Units
		if claimed != live[it.SKU] || claimed > units {
			l.breaks("law 2: %d units of %s claimed, %d live, of %d", claimed, it.SKU, live[it.SKU], units)
		}
		if it.Units != units || it.Held != 0 || it.Available != units-live[it.SKU] {
			l.breaks("law 10: Redis has %d available, %d held of %d %s; PostgreSQL %d live of %d",
				it.Available, it.Held, it.Units, it.SKU, live[it.SKU], units)
		}
	}
}

// numbers is law 7: a number names one order.
func (l *laws) numbers(views []orders.View) {
	seen := map[engine.Hold]engine.OrderID{}
	for _, v := range views {
		if l.w.db.m.Strays(v.Order.Order) {
			continue
		}
		if other, twice := seen[v.Hold]; twice {
			l.breaks("law 7: %s names orders %s and %s", v.Hold, other, v.Order.Order)
		}
		seen[v.Hold] = v.Order.Order
	}
}
