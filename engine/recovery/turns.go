package recovery

import (
	"context"
	"sync"
	"time"

	"github.com/doorbuster/doorbuster/engine"
)

const (
	// Cuts and builds of this process at once; freezing, waiting and draining need no
	// turn. A large one fills Redis and a core, a small one waits for disks.
	turnsAtOnce = 6
	largeTurns  = 3    // turns that a large one takes
	largeUnits  = 2000 // claimed, of a large one

	yieldMost  = 15 * time.Second // that a rebuild stands back for more urgent ones
	soon       = 15 * time.Minute // a sale that opens within it is as urgent as an open one
	sellingFor = time.Minute      // since the last order that PostgreSQL knows
)

// urgency orders rebuilds: a lower one goes first.
type urgency int

const (
	selling  urgency = iota // somebody just bought
	urgent                  // it is open, or opens soon
	paused                  // people wait in front of it
	distant                 // it opens some day
	finished                // nobody buys: only repeats and the applier miss it
	urgencies
)

// urgencyOf tells how much a sale's rebuild is waited for. sold is when the last order
// was accepted, Unix ms.
func urgencyOf(def *engine.Sale, now time.Time, sold int64) urgency {
	switch {
	case def.State == engine.SaleClosed, def.State == engine.SaleSettled, !def.Closes.IsZero() && !now.Before(def.Closes):
		return finished
	case def.State == engine.SalePaused:
		return paused
	case def.Opens.Sub(now) > soon:
		return distant
	case now.Sub(time.UnixMilli(sold)) < sellingFor:
		return selling
	}
	return urgent
}

// turns lets a few rebuilds do their heavy part at once, the most urgent first:
// dozens of finished sales must not keep a small open one from Redis and
// PostgreSQL. A rebuild joins when it begins, so that a less urgent one that is
// ready first can wait for it. The zero value is ready.
type turns struct {
	mu      sync.Mutex
	joined  [urgencies]int
	running int
	ready   []*turn // in the order they came
}

type turn struct {
	all     *turns
	urgency urgency
	weight  int  // turns that it takes
	patient bool // it still stands back for more urgent ones
	granted bool
	go_     chan struct{}
}

// join says that a rebuild has begun. leave must follow.
func (t *turns) join(u urgency, units int64) *turn {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.joined[u]++
	weight := 1
	if units >= largeUnits {
		weight = largeTurns
	}
	return &turn{all: t, urgency: u, weight: weight, patient: true, go_: make(chan struct{})}
}

// wait returns when it is this rebuild's turn, or with ctx's error.
func (n *turn) wait(ctx context.Context) error {
	t := n.all
	t.mu.Lock()
	t.ready = append(t.ready, n)
	t.grant()
	t.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return err // else select would toss a coin
	}
	patience := time.NewTimer(yieldMost)
	defer patience.Stop()
	for {
		select {
		case <-n.go_:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		case <-patience.C:
			t.mu.Lock()
			n.patient = false
			t.grant()
			t.mu.Unlock()
		}
	}
}

// leave says that the rebuild is over, whatever became of it.
func (n *turn) leave() {
	t := n.all
	t.mu.Lock()
	defer t.mu.Unlock()
	t.joined[n.urgency]--
	if n.granted {
		t.running -= n.weight
	}
	for i, other := range t.ready {
		if other == n {
			t.ready = append(t.ready[:i], t.ready[i+1:]...)
			break
		}
	}
	t.grant()
}

// grant gives out what turns are free.
func (t *turns) grant() {
	for {
		i := nextTurn(t.ready, t.joined)
		if i < 0 || t.running+t.ready[i].weight > turnsAtOnce {
			return // none overtakes a large one, else it might wait for ever
		}
		n := t.ready[i]
		t.ready = append(t.ready[:i], t.ready[i+1:]...)
		n.granted = true
		t.running += n.weight
		close(n.go_)
	}
}

// nextTurn picks whose turn it is: the most urgent, of those who came first, if
// no more urgent one has begun or its patience is over. -1 is nobody.
func nextTurn(ready []*turn, joined [urgencies]int) int {
	best := -1
	for i, n := range ready {
		before := 0
		for u := range n.urgency {
			before += joined[u]
		}
		if before > 0 && n.patient {
			continue
		}
		if best < 0 || n.urgency < ready[best].urgency {
			best = i
		}
	}
	return best
}
