package simulate

import (
	"time"

	"github.com/doorbuster/doorbuster/engine"
	"github.com/doorbuster/doorbuster/stock"
)

// window is what law 14 is judged by: what an operator wrote about a sale, and what he
// was told is so.
type window struct {
	opens, closes      int64 // Unix milliseconds: no definition that may be in force has a wider window
	shut               bool  // he heard that it is paused or closed, and has not begun to open it
	mayPause, mayClose bool  // somebody may hear so
	ended              bool  // by hand, or nearly
}

// defined widens the window by a definition that may be in force from now on.
func (s *window) defined(def *engine.Sale) {
	opens, closes := def.Opens.UnixMilli(), def.Closes.UnixMilli()
	if s.closes == 0 {
		s.opens, s.closes = opens, closes
	}
	s.opens, s.closes = min(s.opens, opens), max(s.closes, closes)
	s.mayClose = s.mayClose || def.Closes.Before(dawn.Add(farAway))
}

// settled narrows it to a definition of which he heard that every script goes by it.
func (s *window) settled(def *engine.Sale) {
	s.opens, s.closes = def.Opens.UnixMilli(), def.Closes.UnixMilli()
}

// taken is laws 4 and 14, after a call that took something. A retake does not ask for the
// window: the order was accepted within it.
func (l *laws) taken(t *taking, d *stock.Decision) {
	w, s, epoch := l.w, l.w.shop(t.sale), t.grip.Epoch
	for i := range d.Verdicts {
		v, b := &d.Verdicts[i], &t.baskets[i]
		if d.First == 0 || v.Hold.Seq < d.First || v.Record.Order.Order != "" {
			continue // it took nothing
		}
		if n := w.redis.m.Count(s.id, epoch, b.Buyer); v.LimitBuyer > 0 && n.Units > v.LimitBuyer {
			l.breaks("law 4: %s was accepted up to %d units, at most %d", b.Buyer, n.Units, v.LimitBuyer)
		}
		for _, id := range b.Identities {
			if n := w.redis.m.Shared(s.id, epoch, id); v.LimitIdentity > 0 && n > v.LimitIdentity {
				l.breaks("law 4: identity %x was accepted up to %d units, at most %d", id, n, v.LimitIdentity)
			}
		}
		if t.retake {
			continue
		}
		if d.At < s.opens || d.At >= s.closes {
			l.breaks("law 14: an accept at %d, the window is %d to %d", d.At, s.opens, s.closes)
		}
		if s.shut {
			l.breaks("law 14: an accept in a sale of which the operator heard that it is paused or closed")
		}
		if w.plan.durable && w.redis.careless > 0 && w.now-w.redis.careless > int64(careFor) && w.cur != nil && w.cur.p != nil &&
			w.now-w.cur.p.stopped > int64(careFor) {
			l.breaks("durable: an accept %s after Redis began to answer before it writes", time.Duration(w.now-w.redis.careless))
		}
	}
}

// advanced is asked when recovery moved a sale by its window: one that was paused it must
// leave to who paused it.
func (l *laws) advanced(seen *engine.Sale, to engine.SaleState) {
	if seen.State == engine.SalePaused {
		l.breaks("pause: sale %s was paused, and its window made it %s", seen.ID, to)
	}
}

// careFor is how long after Redis was set to answer before it writes a door may not have
// seen that: it looks once a second, and calls get lost.
const careFor = 10 * time.Second

// maxApart is how far apart clocks may be, and the error of a measurement.
const (
	maxApart    = time.Second + 100*time.Millisecond
	nearlyApart = time.Second - 100*time.Millisecond // between the two a sale may be paused, or not
)

// kept is what durable mode promises, after Redis lost something: who heard 202 has his
// hold still, or PostgreSQL has the order.
func (l *laws) kept() {
	w := l.w
	if !w.plan.durable {
		return
	}
	for id, a := range w.crowd.acked {
		if a.careful && !w.db.knows(id) && !w.redis.holds(id) {
			l.breaks("durable: the hold of order %s, which had its 202, went with Redis", id)
		}
	}
}

// early is law 14 of a sale that nobody closed by hand: it is not over before its time.
func (l *laws) early(s *shop) {
	now := max(l.w.db.time().UnixNano(), l.w.db.latest)
	if !s.ended && now < s.closes*int64(time.Millisecond) && said(l.w.db.m.State(s.id)) == engine.SaleClosed {
		l.breaks("law 14: sale %s is closed %s before its window ends", s.id, time.Duration(s.closes*int64(time.Millisecond)-now))
	}
}
