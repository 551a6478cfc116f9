package simulate

import (
	"strings"

	"github.com/doorbuster/doorbuster/engine"
	"github.com/doorbuster/doorbuster/engine/orders"
	"github.com/doorbuster/doorbuster/payment/ledger"
	"github.com/doorbuster/doorbuster/payment/provider"
)

// verdict is every law, at rest.
func (l *laws) verdict() {
	views := l.w.db.m.Views()
	by := make(map[engine.OrderID]*orders.View, len(views))
	for i := range views {
		by[views[i].Order.Order] = &views[i]
	}
	l.told(by)
	l.charged(by)
	for _, s := range l.w.shops {
		if f, _ := l.w.db.m.Fence(l.w.ctx, s.id); l.w.forgotten(s, f.State) {
			continue
		}
		l.limits(s, views)
		l.counted(s, views)
		l.numbers(s, views)
		l.sold(s, views)
	}
	l.same()
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
func (l *laws) limits(s *shop, views []orders.View) {
	has, shared := map[engine.BuyerID][2]int64{}, map[engine.Identity]int64{}
	for i := range views {
		if v := &views[i]; v.Sale == s.id && v.State.Live() && !v.Returned {
			h := has[v.Buyer]
			has[v.Buyer] = [2]int64{h[0] + engine.Units(v.Lines), h[1] + 1}
			for _, id := range v.Identities {
				if shared[id] += engine.Units(v.Lines); shared[id] > identityLimit {
					l.breaks("law 4: identity %x has %d units, at most %d", id, shared[id], identityLimit)
				}
			}
		}
	}
	watch, _ := l.w.redis.m.Watch(l.w.ctx, s.id, 0)
	for buyer, n := range l.w.redis.m.Counts(s.id, watch.Epoch) {
		if h := has[buyer]; n.Units != h[0] || n.Orders != h[1] {
			l.breaks("law 1: Redis counts %d units, %d orders of %s, PostgreSQL %d", n.Units, n.Orders, buyer, h)
		}
	}
	for buyer, h := range has {
		if h[0] > limit {
			l.breaks("law 4: %s has %d units, at most %d", buyer, h[0], limit)
		}
		if n := l.w.redis.m.Count(s.id, watch.Epoch, buyer); n.Units != h[0] {
			l.breaks("law 1: Redis counts %d units of %s, PostgreSQL %d", n.Units, buyer, h[0])
		}
	}
}

// counted is laws 2 and 10: what is claimed, sold and left adds up.
func (l *laws) counted(s *shop, views []orders.View) {
	live := map[engine.SKU]int64{}
	for i := range views {
		v := &views[i]
		for _, line := range v.Lines {
			if v.Sale == s.id && v.State.Live() && !v.Returned {
				live[line.SKU] += line.Quantity
			}
		}
	}
	watch, _ := l.w.redis.m.Watch(l.w.ctx, s.id, 0)
	for _, it := range watch.Items {
		claimed, units := l.w.db.m.Claimed(s.id, it.SKU)
		if claimed != live[it.SKU] || claimed > units {
			l.breaks("law 2: %d units of %s claimed, %d live, of %d", claimed, it.SKU, live[it.SKU], units)
		}
		if it.Units != units || it.Held != 0 || it.Available != units-live[it.SKU] {
			l.breaks("law 10: Redis has %d available, %d held of %d %s; PostgreSQL %d live of %d",
				it.Available, it.Held, it.Units, it.SKU, live[it.SKU], units)
		}
	}
}

// numbers is law 7: a number names one order, and in the last epoch none is missing.
func (l *laws) numbers(s *shop, views []orders.View) {
	seen := map[engine.Hold]engine.OrderID{}
	for i := range views {
		v := &views[i]
		if v.Sale != s.id || l.w.db.m.Strays(v.Order.Order) {
			continue
		}
		if other, twice := seen[v.Hold]; twice {
			l.breaks("law 7: %s names orders %s and %s", v.Hold, other, v.Order.Order)
		}
		seen[v.Hold] = v.Order.Order
	}
	watch, _ := l.w.redis.m.Watch(l.w.ctx, s.id, 0)
	spent := l.w.db.m.Numbers(s.id, watch.Epoch)
	for seq := int64(1); seq <= watch.Seq; seq++ {
		if !spent[seq] {
			l.breaks("law 7: number %d of %d of epoch %d has no order", seq, watch.Seq, watch.Epoch)
		}
	}
	if len(spent) > int(watch.Seq) {
		l.breaks("law 7: PostgreSQL knows %d numbers of epoch %d, Redis gave out %d", len(spent), watch.Epoch, watch.Seq)
	}
}

// sold is law 11, at rest: who came for the rest has it, and nothing is left.
func (l *laws) sold(s *shop, views []orders.View) {
	if !s.rushed {
		return
	}
	watch, _ := l.w.redis.m.Watch(l.w.ctx, s.id, 0)
	for _, it := range watch.Items {
		if it.Available != 0 {
			l.breaks("law 11: %d units of %s are left, and %d buyers came for them", it.Available, it.SKU, l.w.faults["late buyer"])
		}
	}
	for i := range views {
		if v := &views[i]; strings.HasPrefix(string(v.Buyer), "late") && v.Sale == s.id && v.State != engine.Confirmed {
			l.breaks("law 11: order %s of %s, who pays, is %s", v.Order.Order, v.Buyer, v.State)
		}
	}
}
