package loadtest

import (
	"context"
	"math/rand/v2"
	"strconv"
	"time"
)

// How long a buyer takes before he asks again.
const (
	pressAgain  = 150 * time.Millisecond // told sold-out, while he still presses
	noHint      = 200 * time.Millisecond // no Retry-After given, or no answer
	afterOpen   = 20 * time.Millisecond  // early ones ask again within this after the open
	jitterShare = 0.5                    // added to every wait, at most
)

// player is one connection that buyers take turns at.
type player struct {
	c     *crowd
	conn  *conn
	forms [2]form // asked for, and changed
	req   []byte
	key   []byte
}

func newPlayer(c *crowd, addrs []string, i int) *player {
	p := &player{c: c, conn: newConn(addrs, i)}
	for f := range p.forms {
		p.forms[f] = newForm(p.conn.host(), c.cfg.Sale, &c.forms[f])
	}
	return p
}

// play sends buyers' requests until the lobby closes.
func (p *player) play(ctx context.Context) {
	defer p.conn.close()
	for {
		buyer, ok := p.c.lobby.take()
		if !ok {
			return
		}
		v, retry := p.ask(ctx, buyer, 0, p.c.replay[buyer].Load())
		p.c.heard(buyer, &v, retry)
		if v.Class == Accepted {
			p.probe(ctx, buyer)
		}
	}
}

// ask sends one request of a buyer and hears the answer. which is 0 for what he
// wants, 1 for the changed basket.
func (p *player) ask(ctx context.Context, buyer int32, which int, replay bool) (Verdict, time.Duration) {
	c := p.c
	ticket := &c.cfg.Tickets[buyer]
	p.key = strconv.AppendInt(append(p.key[:0], c.keys...), int64(buyer), 36)
	p.req = p.forms[which].append(p.req[:0], ticket.Token, p.key, replay)
	var r reply
	err := p.conn.do(ctx, time.Now(), p.req, &r)
	v := Verdict{Class: Unknown}
	if err == nil {
		v = Judge(r.status, r.body)
	}
	if c.cfg.Log != nil {
		a := answer{ticket: ticket, key: p.key, basket: &c.forms[which], hash: c.hashes[which], at: time.Now(), err: err}
		_ = a.write(c.cfg.Log, &r) // the writer keeps its first error for Flush
	}
	c.counts[v.Class].Add(1)
	return v, r.retryAfter
}

// probe repeats an accepted order now and then, as buyers do who do not trust
// their eyes: the same request must find the same order, another must be refused.
func (p *player) probe(ctx context.Context, buyer int32) {
	chance := rand.IntN(perMille)
	if chance < p.c.cfg.RepeatPerMille {
		p.ask(ctx, buyer, 0, true)
	} else if chance < p.c.cfg.RepeatPerMille+p.c.cfg.ChangePerMille {
		p.ask(ctx, buyer, 1, true)
	}
}

// heard decides what a buyer does next.
func (c *crowd) heard(buyer int32, v *Verdict, retry time.Duration) {
	c.replay[buyer].Store(!v.final())
	switch {
	case v.Class == Accepted || v.Class == Replayed:
		if !c.have[buyer].Swap(true) {
			c.orders.Add(1)
		}
		c.lobby.leave()
	case !v.final():
		c.lobby.again(buyer, time.Now().Add(jitter(max(retry, noHint))))
	case v.Class == Early:
		at, now := c.opens, time.Now()
		if !now.Before(at) { // his ticket is early, or the clocks differ
			at = now.Add(noHint)
		}
		if wait := now.Add(retry); wait.After(at) {
			at = wait
		}
		c.lobby.again(buyer, at.Add(rand.N(afterOpen)))
	case v.Class == SoldOut && c.again.Add(-1) >= 0:
		c.lobby.again(buyer, time.Now().Add(jitter(pressAgain)))
	case v.Class == SoldOut:
		c.lobby.wait(buyer)
	default:
		c.lobby.leave()
	}
}

// jitter waits at least d, and up to half as long again, so that those who were
// refused together do not come back together.
func jitter(d time.Duration) time.Duration {
	return d + rand.N(time.Duration(float64(d)*jitterShare)+1)
}
