package door

import (
	"context"
	"errors"
	"net"
	"runtime/debug"
	"time"

	"github.com/doorbuster/doorbuster/engine"
	"github.com/doorbuster/doorbuster/engine/failpoint"
	"github.com/doorbuster/doorbuster/stock"
)

const (
	maxTries       = 3 // of a call refused because the definition was another one
	scriptTimeout  = time.Second
	publishTimeout = 1500 * time.Millisecond
)

// group is one script call, one envelope, one confirm. It is used again and
// again, for one sale at a time.
type group struct {
	members  []*request // nil once answered
	baskets  []engine.Basket
	decision stock.Decision
	view     *view
	envelope engine.Envelope
	body     []byte
	called   bool // the script was called and came back, or never will
	unsafe   bool // what it took may be lost with its server: nobody hears 202
	gone     bool // Redis serves the sale no more, and nothing can happen in it
}

func newGroup() any { return new(group) }

// do answers every member.
func (g *group) do(s *sale) {
	d := s.door
	g.called, g.unsafe, g.gone = false, false, false
	defer g.end(s)
	began, first, size := d.clock(), g.members[0].began, int64(len(g.members))
	d.metrics.groupSize.Observe(float64(size))
	d.metrics.wait.Observe(secondsOf(began - first))

	fault := g.reserve(s)
	decided := d.clock()
	d.metrics.script.Observe(secondsOf(decided - began))
	g.called = true
	s.called()
	if fault != unanswered {
		if g.gone {
			g.answerPast(s)
		}
		g.answerAll(s, fault)
		s.gate.learn(size, decided-first, decided)
		return
	}

	g.answerDecided(s)
	if len(g.envelope.Orders) > 0 && !g.unsafe { // else end tells them, and the relay publishes
		confirm := g.publish(s)
		d.metrics.confirm.Observe(secondsOf(d.clock() - decided))
		g.answerAll(s, confirm)
	}
	now := d.clock()
	s.gate.learn(size, now-first, now)
}

// end makes sure that every member hears something, and the lane goes on, even
// after a panic.
func (g *group) end(s *sale) {
	if p := recover(); p != nil {
		s.door.log.Error("panic in a group", "sale", s.id, "panic", p, "stack", string(debug.Stack()))
		if !g.called {
			s.called()
		}
	}
	g.answerAll(s, outcomeUnknown)
	clear(g.baskets)
	clear(g.envelope.Orders)
	g.baskets, g.envelope.Orders, g.view = g.baskets[:0], g.envelope.Orders[:0], nil
}

// reserve calls the script for all members. It returns unanswered if there is a
// verdict for each, else what all of them hear.
func (g *group) reserve(s *sale) answer {
	d := s.door
	for range maxTries {
		g.view = s.view.Load()
		if !g.view.Retired && !s.lease.holds(g.view.Epoch, d.clock()) {
			return frozen
		}
		if !s.mayPromise(g.view) {
			return frozen
		}
		g.encode()
		failpoint.Hit("door/before-reserve")
		ctx, cancel := d.within(context.Background(), scriptTimeout)
		err := d.cfg.Stock.Reserve(ctx, s.id, g.view.Grip, g.baskets, &g.decision)
		cancel()
		switch {
		case err == nil && len(g.decision.Verdicts) != len(g.members):
			d.log.Error("the stock gave another number of verdicts", "sale", s.id, "want", len(g.members), "got", len(g.decision.Verdicts))
			return outcomeUnknown
		case err == nil:
			failpoint.Hit("door/after-reserve")
			return unanswered
		case errors.Is(err, stock.ErrUnsafe) && len(g.decision.Verdicts) == len(g.members):
			d.metrics.unsafe.Inc()
			g.unsafe = true // what was refused is refused all the same
			return unanswered
		case errors.Is(err, stock.ErrStale):
			d.metrics.stale.Inc()
			s.tick(d.ctx)
			continue
		case errors.Is(err, stock.ErrFenced), errors.Is(err, stock.ErrNoSale):
			d.metrics.fenced.Inc()
			if g.gone = g.view.Retired; g.gone {
				return frozen // unless PostgreSQL knows better
			}
			s.lease.fence(d.clock())
			d.log.Warn("a sale is fenced", "sale", s.id, "epoch", g.view.Epoch, "error", err)
			return frozen
		case neverSent(err):
			return frozen
		default:
			d.metrics.scriptFailures.Inc()
			return outcomeUnknown
		}
	}
	return frozen // nothing was taken
}

// neverSent tells whether the call has certainly not reached Redis.
func neverSent(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "dial"
}

// encode makes the baskets, with the prices of the view.
func (g *group) encode() {
	g.baskets = append(g.baskets[:0], make([]engine.Basket, len(g.members))...)
	for i, r := range g.members {
		b := &g.baskets[i]
		r.basket(b)
		for j := range b.Lines {
			if at := g.view.itemNamed(b.Lines[j].SKU); at >= 0 {
				b.Lines[j].Price = g.view.Items[at].Price
			}
		}
		b.Body = engine.BodyHash(b.Lines, b.Total, g.view.Currency)
	}
}

// answerDecided answers the members that need no confirm, and puts what needs one
// into the envelope.
func (g *group) answerDecided(s *sale) {
	now := s.door.clock()
	leased := s.lease.holds(g.view.Epoch, now) && !g.unsafe
	for i, r := range g.members {
		v := &g.decision.Verdicts[i]
		r.verdict = *v
		switch {
		case v.Outcome == engine.Accepted:
			r.at = g.decision.At
			g.envelope.Orders = append(g.envelope.Orders, engine.Order{
				Basket: g.baskets[i], Hold: v.Hold, AcceptedAt: g.decision.At,
				LimitBuyer: v.LimitBuyer, LimitIdentity: v.LimitIdentity,
			})
			continue
		case v.Outcome == engine.ReplayHeld && v.Unpublished:
			r.at = v.Record.Order.AcceptedAt
			if g.decision.First == 0 || v.Record.Entry != g.decision.First {
				g.again(&v.Record.Order)
			}
			continue
		}
		r.at = v.Record.Order.AcceptedAt
		a := outcomes[v.Outcome]
		if v.Outcome == engine.SoldOut && v.MayReturn {
			a = soldOutMayReturn
		}
		ended := v.Outcome == engine.ReplaySettled || v.Outcome == engine.ReplayReleased
		if a == unanswered || (v.Outcome.Took() && !leased && !(ended && g.view.Retired)) {
			a = outcomeUnknown
		}
		g.answer(s, i, a, now)
	}
}

// again puts an order of an earlier call into the envelope, once.
func (g *group) again(o *engine.Order) {
	for i := range g.envelope.Orders {
		if g.envelope.Orders[i].Order == o.Order {
			return
		}
	}
	g.envelope.Orders = append(g.envelope.Orders, *o)
}

// outcomes maps what the script says to what is answered.
var outcomes = [256]answer{
	engine.Accepted:       accepted,
	engine.ReplayHeld:     replayHeld,
	engine.ReplaySettled:  replaySettled,
	engine.ReplayReleased: replayReleased,
	engine.Mismatch:       mismatch,
	engine.NotOpen:        notOpen,
	engine.Closed:         saleClosed,
	engine.Paused:         salePaused,
	engine.PriceChanged:   priceChanged,
	engine.OverLimit:      overLimit,
	engine.OverIdentity:   overIdentity,
	engine.SoldOut:        soldOut,
	engine.UnknownSKU:     noItem,
	engine.NoReplay:       ticketExpired,
}

// publish publishes the envelope, waits for the confirm, and returns what those
// that wait for it hear: accepted stands for the order each of them has.
func (g *group) publish(s *sale) answer {
	d := s.door
	g.envelope.Sale = s.id
	g.body = engine.AppendEnvelope(g.body[:0], &g.envelope)
	ctx, cancel := d.within(context.Background(), publishTimeout)
	err := d.cfg.Publisher.Publish(ctx, s.id, g.body)
	cancel()
	if err != nil {
		d.metrics.publishFailures.Inc()
		return outcomeUnknown
	}
	failpoint.Hit("door/after-confirm")
	if g.decision.First != 0 && s.marks.add(g.view.Epoch, g.decision.First) {
		s.startMarks()
	}
	if !s.lease.holds(g.view.Epoch, d.clock()) {
		return outcomeUnknown
	}
	failpoint.Hit("door/after-lease")
	return accepted
}

// answerAll answers every member that has not been answered.
func (g *group) answerAll(s *sale, a answer) {
	now := s.door.clock()
	for i, r := range g.members {
		if r == nil {
			continue
		}
		one := a
		if a == accepted && r.verdict.Outcome == engine.ReplayHeld {
			one = replayHeld
		}
		g.answer(s, i, one, now)
	}
}

// answer answers a member, which from then on belongs to its handler.
func (g *group) answer(s *sale, i int, a answer, now int64) {
	r := g.members[i]
	g.members[i] = nil
	if a == outcomeUnknown || a == frozen {
		s.door.recall.add(r.order(), now)
	}
	r.answer = a
	r.done <- struct{}{}
}
