package audit

import (
	"fmt"
	"time"

	"github.com/doorbuster/doorbuster/engine"
)

// returnGrace is how long after units came back in PostgreSQL a door may still
// say "sold out": release row → Redis → memory flag, with room for a busy machine.
const returnGrace = 3 * time.Second

// leftover is what law 11 needs to know before the log is read: how many units
// were left at rest, and since when nothing came back.
func leftover(b *books, s sums) *misled {
	m := &misled{left: map[engine.SKU]int64{}}
	for _, it := range b.sale.Items {
		m.left[it.SKU] = it.Units - s.live[it.SKU]
	}
	if b.backAt != 0 {
		m.after = b.backAt + returnGrace.Milliseconds()
	}
	return m
}

// law8 holds what buyers were told against what became of their orders. It
// returns how many orders that were answered 202 are not there.
func law8(b *books, c *crowd) (l Law, lost int64) {
	f := c.lies
	for id, t := range c.told {
		i, ok := b.index[engine.OrderID(id)]
		if !ok {
			if t.accepted {
				lost++
				f.add("order %s of buyer %s was answered 202 and is not there", id, t.buyer)
			} else {
				f.add("buyer %s was told of order %s, which is not there", t.buyer, id)
			}
			continue
		}
		judgeTold(&b.rows[i], t, &f)
	}
	return f.law(8, "%d orders answered 202, all at their end, as their buyers were told", c.accepted), lost
}

func judgeTold(r *row, t *told, f *findings) {
	switch {
	case string(r.buyer) != t.buyer:
		f.add("order %s is buyer %s's, and buyer %s was told of it", r.id, r.buyer, t.buyer)
	case r.total != t.total || r.lines.sum != t.total:
		f.add("order %s: buyer saw the price %d, his order has %d, its lines add up to %d", r.id, t.total, r.total, r.lines.sum)
	case !r.state.Terminal():
		f.add("order %s is still %s", r.id, r.state)
	case t.state != 0 && t.state != r.state:
		f.add("order %s: buyer was told %s, it is %s", r.id, t.state, r.state)
	}
}

// law12 checks that a key means one body: PostgreSQL's.
func law12(b *books, c *crowd) Law {
	f := c.forks
	for id, t := range c.told {
		if i, ok := b.index[engine.OrderID(id)]; ok && b.rows[i].body != t.body {
			f.add("order %s: buyer %s asked for something else under its key and was not told 422", id, t.buyer)
		}
	}
	unknown := 0
	for _, m := range c.mismatches {
		t := c.byKey[m.key]
		if t == nil {
			unknown++
			continue
		}
		if t.body == m.body {
			f.add("line %d: buyer %s repeated order %s unchanged and was told 422", m.line, t.buyer, t.order)
		}
	}
	return f.law(12, "%d keys, one order each; %d changed bodies answered 422 (%d under keys without an answered order)",
		len(c.byKey), len(c.mismatches), unknown)
}

// law11 looks for units that somebody still wanted. Two ways to see it: demand
// that is sure and was good for its money exceeds what was sold though nothing
// ever came back; or somebody was told "sold out" when units were there for good.
func law11(b *books, c *crowd, s sums) (l Law, undersold int64) {
	var f findings
	demand, bad := c.demandOf(), badPayments(b)
	for _, it := range b.sale.Items {
		left := it.Units - s.confirmed[it.SKU]
		good := demand[it.SKU] - bad[it.SKU]
		miss := min(left, good-s.confirmed[it.SKU])
		if miss <= 0 {
			continue
		}
		if b.backAt == 0 || c.misled.n > 0 {
			undersold += miss
			f.add("%s: %d of %d units unsold, demand was %d", it.SKU, left, it.Units, good)
		}
	}
	if c.misled.n > 0 {
		f.add("%d requests were told sold out when enough was left: %s", c.misled.n, c.misled.first)
	}
	return f.law(11, "%s", sellThrough(b, s, demand)), undersold
}

func sellThrough(b *books, s sums, demand map[engine.SKU]int64) string {
	return fmt.Sprintf("%d of %d units sold; sure demand %d", total(s.confirmed), units(&b.sale), total(demand))
}

// badPayments are the units of orders that ended for their buyers' reasons.
func badPayments(b *books) map[engine.SKU]int64 {
	bad := map[engine.SKU]int64{}
	for i := range b.rows {
		switch b.rows[i].reason {
		case engine.ReasonDeclined, engine.ReasonExpired, engine.ReasonBuyer:
			for _, l := range b.rows[i].lines.lines {
				bad[l.SKU] += l.Quantity
			}
		}
	}
	return bad
}
