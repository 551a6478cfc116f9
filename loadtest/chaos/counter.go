package chaos

import (
	"context"
	"sync"

	"github.com/doorbuster/doorbuster/engine/audit"
	"github.com/doorbuster/doorbuster/loadtest"
)

// counter counts, and wakes who waits for a number.
type counter struct {
	mu    sync.Mutex
	n     int64
	waits map[chan struct{}]int64
}

func (c *counter) add() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.n++
	for ch, at := range c.waits {
		if c.n >= at {
			close(ch)
			delete(c.waits, ch)
		}
	}
}

func (c *counter) load() int64 { c.mu.Lock(); defer c.mu.Unlock(); return c.n }

// reach waits until the count is at least at.
func (c *counter) reach(ctx context.Context, at int64) error {
	ch := make(chan struct{})
	c.mu.Lock()
	if c.waits == nil {
		c.waits = map[chan struct{}]int64{}
	}
	if c.n >= at {
		close(ch)
	} else {
		c.waits[ch] = at
	}
	c.mu.Unlock()
	select {
	case <-ch:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// tally counts what buyers hear, on its way to the client log.
type tally struct {
	loadtest.Log
	accepts, soldOut, unknown counter
}

// Write counts one answer.
func (t *tally) Write(a *audit.Answer) error {
	switch {
	case a.Status == 202 && !a.Replayed:
		t.accepts.add()
	case a.Type == "sold-out":
		t.soldOut.add()
	case a.Status == 0 || a.Type == "outcome-unknown":
		t.unknown.add()
	}
	return t.Log.Write(a)
}
