package door

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/doorbuster/doorbuster/engine"
	"github.com/doorbuster/doorbuster/engine/ticket"
)

// Clock is what Steps goes by in place of the real clock.
type Clock struct {
	// Now is a door's own monotonic clock, in nanoseconds.
	Now func() int64
	// Sleep lets others go on for a while.
	Sleep func(d time.Duration)
	// Within ends by the clock that is stepped, as context.WithTimeout does by the real one.
	Within func(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc)
}

func (d *Door) within(ctx context.Context, most time.Duration) (context.Context, context.CancelFunc) {
	if d.steps != nil {
		return d.steps.Within(ctx, most)
	}
	return context.WithTimeout(ctx, most)
}

// lockPoll is how often who is stepped tries again for a lock.
const lockPoll = 5 * time.Millisecond

// lock locks mu. One goroutine that steps several of a door's must not wait for itself.
func (d *Door) lock(mu *sync.Mutex) {
	if d.steps == nil {
		mu.Lock()
		return
	}
	for !mu.TryLock() {
		d.steps.Sleep(lockPoll)
	}
}

// Steps is a door at one sale, without its goroutines, without HTTP and without the
// real clock: whoever steps it (a simulator) calls the watch and the groups when he
// likes, one also while another waits inside of a service. What is called is what the
// watch and the lanes of a Door call. Not safe for use by two goroutines at once.
type Steps struct {
	d *Door
	s *sale

	// free are requests to use again. A sync.Pool would keep the whole door from the
	// collector for two rounds, and with it the simulation that it was in.
	free []*request
}

// NewSteps returns a door at that sale, for stepping. like, if not nil, is another
// whose metrics it shares. Buyers are not limited in how often they come.
func NewSteps(cfg Config, id engine.SaleID, clock Clock, like *Steps) (*Steps, error) {
	d := newDoor(withDefaults(cfg))
	d.steps = &clock
	if like != nil {
		d.metrics = like.d.metrics
	} else {
		var err error
		if d.metrics, err = newMetrics(d, d.cfg.Registerer); err != nil {
			return nil, fmt.Errorf("door: metrics: %w", err)
		}
	}
	s := &sale{id: id, door: d, ready: make(chan struct{}), leased: make(chan struct{}), kick: make(chan struct{}, 1)}
	s.gate.init(&d.cfg)
	return &Steps{d: d, s: s}, nil
}

// Watch is one read of the watch, and what it starts: the marking of entries that are
// confirmed.
func (p *Steps) Watch(ctx context.Context) {
	p.s.tick(ctx)
	if p.s.marks.begin() {
		p.s.runMarks()
	}
}

// Leased tells whether the door has the lease of the epoch it sees.
func (p *Steps) Leased() bool {
	v := p.s.view.Load()
	return v != nil && p.s.lease.holds(v.Epoch, p.d.clock())
}

// Ask is one request, its ticket verified.
type Ask struct {
	Ticket ticket.Ticket
	Key    []byte // Idempotency-Key
	Repeat bool   // Idempotency-Replay
	Body   []byte // JSON
}

// Said is what one request hears.
type Said struct {
	Order  engine.OrderID // if it came as far as a group
	Status int            // of HTTP
	Type   string         // of the problem, if it is one; else what the body calls the order
}

// Group takes requests in and decides those that must be asked for in one group: it
// returns when all have their answers.
func (p *Steps) Group(asks []Ask) []Said {
	said := make([]Said, len(asks))
	all := make([]*request, len(asks))
	var g *group
	for i := range asks {
		r := p.request()
		if r.answer = p.admit(r, &asks[i]); r.answer == unanswered {
			if all[i] = r; g == nil {
				g = newGroup().(*group)
			}
			g.members = append(g.members, r)
			continue
		}
		said[i] = p.said(r)
		r.reset()
		p.free = append(p.free, r)
	}
	if g == nil {
		return said
	}
	p.s.lane.mu.Lock()
	p.s.lane.calls++
	p.s.lane.groups++
	p.s.lane.mu.Unlock()
	g.do(p.s)
	p.s.lane.mu.Lock()
	p.s.lane.groups--
	p.s.lane.mu.Unlock()
	for i, r := range all {
		if r != nil {
			<-r.done
			p.s.gate.leave()
			said[i] = p.said(r)
			said[i].Order = r.order()
		}
	}
	return said
}

func (p *Steps) request() *request {
	n := len(p.free)
	if n == 0 {
		return newRequest().(*request)
	}
	r := p.free[n-1]
	p.free = p.free[:n-1]
	return r
}

// admit is what Door.admit does once the ticket is verified and the sale found.
func (p *Steps) admit(r *request, a *Ask) answer {
	t := &a.Ticket
	r.claims = ticket.Claims{
		Sale: []byte(t.Sale), Buyer: []byte(t.Buyer), NotBefore: t.NotBefore, NotAfter: t.NotAfter, Max: t.Max, Identities: t.Identities,
	}
	v := p.s.view.Load()
	switch {
	case v == nil, v.missing:
		return frozen
	case string(r.claims.Sale) != string(p.s.id):
		return otherSale
	}
	return p.d.weigh(r, seen{p.s, v}, &head{key: a.Key, replay: a.Repeat}, a.Body)
}

func (p *Steps) said(r *request) Said {
	if word := statuses[r.answer]; word != "" {
		return Said{Status: problems[r.answer].status, Type: word}
	}
	return Said{Status: problems[r.answer].status, Type: outcomeName(r.answer)}
}
