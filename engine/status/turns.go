package status

import (
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// maxWaiting bounds who waits for a turn: each keeps a connection of the listener,
// and those are the doors' too.
const maxWaiting = 256

// turns bounds the questions to one server that are under way at once.
type turns struct {
	places  chan struct{}
	waiting atomic.Int64
	refused prometheus.Counter
}

func newTurns(n int, refused prometheus.Counter) *turns {
	return &turns{places: make(chan struct{}, n), refused: refused}
}

// turn waits for a turn, at most queryWait, unless maxWaiting do already. The
// function gives it back.
func (t *turns) turn() (func(), bool) {
	select {
	case t.places <- struct{}{}:
		return t.back, true
	default:
	}
	defer t.waiting.Add(-1)
	if t.waiting.Add(1) > maxWaiting {
		t.refused.Inc()
		return nil, false
	}
	wait := time.NewTimer(queryWait)
	defer wait.Stop()
	select {
	case t.places <- struct{}{}:
		return t.back, true
	case <-wait.C:
		t.refused.Inc()
		return nil, false
	}
}

func (t *turns) back() { <-t.places }
