package audit

import (
	"cmp"
	"fmt"
	"iter"
	"slices"
	"strings"
	"time"

	"github.com/doorbuster/doorbuster/engine"
)

// maxSkew is how far Redis' and PostgreSQL's clocks may be apart (law 14).
const maxSkew = 2 * time.Second

// identitiesOf yields the identities behind an order, 16 hex digits each.
func identitiesOf(r *row) iter.Seq[string] {
	if r.identities == "" {
		return func(func(string) bool) {}
	}
	return strings.SplitSeq(r.identities, ",")
}

// law4 judges each order by the limits it carries: with what its buyer (and each
// identity) had live when it was accepted, it must not be above them.
func law4(rows []row) Law {
	var f findings
	byBuyer, byIdentity := map[string][]int32{}, map[string][]int32{}
	for i := range rows {
		r := &rows[i]
		if !r.admitted() {
			continue
		}
		n := int32(i)
		byBuyer[string(r.buyer)] = append(byBuyer[string(r.buyer)], n)
		for id := range identitiesOf(r) {
			byIdentity[id] = append(byIdentity[id], n)
		}
	}
	for buyer, of := range byBuyer {
		limits{rows, func(r *row) int64 { return r.limitBuyer }, &f}.judge("buyer "+buyer, of)
	}
	for id, of := range byIdentity {
		limits{rows, func(r *row) int64 { return r.limitIdentity }, &f}.judge("identity "+id, of)
	}
	return f.law(4, "%d buyers and %d identities within the limits of their orders", len(byBuyer), len(byIdentity))
}

// limits judges orders by one of the limits they carry.
type limits struct {
	rows  []row
	limit func(*row) int64
	f     *findings
}

// judge goes through the orders of one buyer or identity in the order of their
// accepts.
func (j limits) judge(who string, of []int32) {
	rows := j.rows
	slices.SortFunc(of, func(i, j int32) int {
		a, b := &rows[i], &rows[j]
		return cmp.Or(cmp.Compare(a.accepted, b.accepted), cmp.Compare(a.hold.Epoch, b.hold.Epoch), cmp.Compare(a.hold.Seq, b.hold.Seq))
	})
	for k, i := range of {
		r := &rows[i]
		most := j.limit(r)
		if most == 0 {
			continue
		}
		var had int64
		for _, j := range of[:k+1] {
			if p := &rows[j]; p == r || liveAt(p, r.accepted) {
				had += engine.Units(p.lines.lines)
			}
		}
		if had > most {
			j.f.add("%s: order %s took him to %d units, limit %d", who, r.id, had, most)
		}
	}
}

// liveAt tells whether an order, accepted before, certainly still claimed its
// units at that time. When a confirmed one was returned is not known here.
func liveAt(p *row, at int64) bool {
	switch {
	case p.returned:
		return false
	case p.state == engine.Cancelled:
		return p.finished > at+maxSkew.Milliseconds()
	}
	return true
}

// end is how an order ended, as a sample saw it.
type end struct {
	state    engine.OrderState
	reason   engine.Reason
	finished int64
}

// law5 checks that ends are told once and never left. seen is what samples saw, c what
// buyers heard, or nil.
func law5(b *books, seen map[engine.OrderID]end, c *crowd) Law {
	var f findings
	ended, heard := 0, ""
	if c != nil {
		f = c.turns
		heard = fmt.Sprintf("; %d ends told to buyers, one each", c.heardEnds(b, &f))
	}
	for i := range b.rows {
		r := &b.rows[i]
		checkEnd(r, &f)
		tell := b.tellings[i]
		told := tell.first+tell.again > 0
		if tell.first > 1 {
			f.add("order %s, %s now, was ended %d times", r.id, r.state, tell.first)
		}
		switch {
		case r.state.Terminal() && !told && !b.pruned:
			f.add("order %s is %s, but no release row tells it", r.id, r.state)
		case !r.state.Terminal() && told:
			f.add("order %s is %s, but a release row ends it", r.id, r.state)
		}
		if r.state.Terminal() {
			ended++
		}
		sawEnd(r, seen, &f)
	}
	for id := range seen {
		if _, ok := b.index[id]; !ok {
			f.add("order %s was there at a sample and is gone", id)
		}
	}
	return f.law(5, "%d of %d orders ended; %d seen at samples are as they were%s", ended, len(b.rows), len(seen), heard)
}

// heardEnds counts the orders whose end buyers were told, and checks that it is the one
// they have.
func (c *crowd) heardEnds(b *books, f *findings) (n int) {
	for id, t := range c.told {
		if t.state == 0 {
			continue
		}
		n++
		if i, ok := b.index[engine.OrderID(id)]; ok && b.rows[i].state != t.state {
			f.add("order %s: its buyer was told that it is %s, it is %s", id, t.state, b.rows[i].state)
		}
	}
	return n
}

// checkEnd checks that what an order says of its end fits its state.
func checkEnd(r *row, f *findings) {
	switch {
	case r.state.Terminal() != (r.finished != 0):
		f.add("order %s is %s, finished %v", r.id, r.state, r.finished != 0)
	case (r.state == engine.Cancelled) != (r.reason != engine.NoReason):
		f.add("order %s is %s for reason %q", r.id, r.state, r.reason)
	case r.returned && r.state != engine.Confirmed:
		f.add("order %s came back and is %s", r.id, r.state)
	}
}

func sawEnd(r *row, seen map[engine.OrderID]end, f *findings) {
	e, ok := seen[r.id]
	if ok && e.state.Terminal() && e != (end{r.state, r.reason, r.finished}) {
		f.add("order %s was %s (%s) at a sample and is %s (%s) now", r.id, e.state, e.reason, r.state, r.reason)
	}
}

// law7 checks that numbers name one order each and, in the last epoch, that none
// is missing.
func law7(b *books, s *slot) Law {
	var f findings
	last := map[int64]bool{}
	seen := make(map[engine.Hold]engine.OrderID, len(b.rows))
	for i := range b.rows {
		r := &b.rows[i]
		if r.rejected() && r.hold.Epoch == b.sale.Epoch {
			last[r.hold.Seq] = true
		}
		if r.stray {
			continue
		}
		if other, twice := seen[r.hold]; twice {
			f.add("%s names orders %s and %s", r.hold, other, r.id)
		}
		seen[r.hold] = r.id
		if r.hold.Epoch == b.sale.Epoch {
			last[r.hold.Seq] = true
		}
	}
	for _, seq := range b.spent {
		last[seq] = true
	}
	if s == nil || s.watch.Epoch != b.sale.Epoch {
		l := f.law(7, "unchecked: the numbers of %d orders are their own, but Redis' last one is not known", len(seen))
		if l.Holds == Holds {
			l.Holds = Unchecked
		}
		return l
	}
	for seq := range last {
		if seq < 1 || seq > s.watch.Seq {
			f.add("epoch %d: number %d was never given out, the last is %d", b.sale.Epoch, seq, s.watch.Seq)
		}
	}
	for seq := int64(1); seq <= s.watch.Seq; seq++ {
		if !last[seq] {
			f.add("epoch %d: number %d of %d has no order", b.sale.Epoch, seq, s.watch.Seq)
		}
	}
	return f.law(7, "%d numbers, one order each; 1 to %d of epoch %d without a gap", len(seen), s.watch.Seq, b.sale.Epoch)
}

// inWindow checks the accepts against window and clock.
func inWindow(sale *engine.Sale, rows []row, redefinedAt int64, f *findings) {
	opens, closes := sale.Opens.UnixMilli(), sale.Closes.UnixMilli()
	for i := range rows {
		r := &rows[i]
		if r.accepted >= redefinedAt && (r.accepted < opens || r.accepted >= closes) {
			f.add("order %s was accepted at %s, outside the window", r.id, millis(r.accepted))
		}
		if r.accepted > r.ingested+maxSkew.Milliseconds() {
			f.add("order %s was accepted at %s by Redis and in PostgreSQL at %s", r.id, millis(r.accepted), millis(r.ingested))
		}
	}
}

func millis(ms int64) string {
	return time.UnixMilli(ms).UTC().Format("2006-01-02T15:04:05.000Z")
}

// clocks compares Redis' and PostgreSQL's clock, read one after the other.
func clocks(redisMs int64, postgres time.Time, f *findings) (skew time.Duration) {
	skew = time.UnixMilli(redisMs).Sub(postgres)
	if skew.Abs() > maxSkew {
		f.add("Redis' clock is %s off PostgreSQL's", skew.Round(time.Millisecond))
	}
	return skew
}
