package audit

import (
	"fmt"
	"hash/maphash"
	"time"

	"github.com/doorbuster/doorbuster/engine"
)

// returnGrace is how long after units were back in Redis a door may still say "sold
// out": an answer that is under way, and the door's memory (the flag is cleared within
// 100 ms), with room for a busy machine.
const returnGrace = 3 * time.Second

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

// law11 looks for units that somebody still wanted: they were there when he asked, and
// from then on to the end, and he was sent away. Whoever was told "sold out" then was
// told a lie; whoever never got an order, and could have had one, is a unit unsold.
func law11(b *books, c *crowd, s sums) (l Law, undersold int64) {
	var f findings
	shelf, ahead := newShelf(b), c.ahead(b)
	demand, bad := c.demandOf(), badPayments(b)
	missed := c.missed(b, shelf, ahead)
	for _, it := range b.sale.Items {
		left := it.Units - s.confirmed[it.SKU]
		if miss := min(left, missed[it.SKU]); miss > 0 {
			undersold += miss
			f.add("%s: %d of %d units unsold, demand was %d", it.SKU, left, it.Units, demand[it.SKU]-bad[it.SKU])
		}
	}
	if n, first := c.misled(shelf, ahead); n > 0 {
		f.add("%d requests were told sold out when enough was left: %s asked for %s at %s", n, first.buyer, first.lines.text, millis(first.at))
	}
	return f.law(11, "%s", sellThrough(b, s, demand)), undersold
}

// ahead is how far the crowd's clock is ahead of Redis', at most: no 202 was heard
// before its accept. Negative if it is behind.
func (c *crowd) ahead(b *books) (ms int64) {
	known := false
	for id, t := range c.told {
		if i, ok := b.index[engine.OrderID(id)]; ok && t.accepted && (!known || t.at-b.rows[i].accepted < ms) {
			ms, known = t.at-b.rows[i].accepted, true
		}
	}
	return ms
}

// inVain tells whether a plea met units that were there, then and ever after.
func (p *plea) inVain(s *shelf, ahead int64) bool {
	return p.lines != nil && s.enough(p.lines.lines, p.at-ahead-returnGrace.Milliseconds())
}

// missed adds up what buyers without any order asked for last, and could have had.
func (c *crowd) missed(b *books, s *shelf, ahead int64) map[engine.SKU]int64 {
	served := make(map[uint64]bool, len(b.rows))
	for i := range b.rows {
		served[maphash.String(c.seeds[0], string(b.rows[i].buyer))] = true
	}
	units := map[engine.SKU]int64{}
	for buyer, p := range c.last {
		if served[buyer] || !p.inVain(s, ahead) {
			continue
		}
		for _, l := range p.lines.lines {
			units[l.SKU] += l.Quantity
		}
	}
	return units
}

// misled counts those who were told "sold out" of what was there for good, and names
// the first.
func (c *crowd) misled(s *shelf, ahead int64) (n int64, first plea) {
	for _, p := range c.soldOuts {
		if !p.inVain(s, ahead) {
			continue
		}
		if n += p.n; first.lines == nil || p.at < first.at {
			first = p
		}
	}
	return n, first
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
