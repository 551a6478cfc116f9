package door

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/doorbuster/doorbuster/engine"
)

const (
	recallFor = int64(time.Minute)
	maxRecall = 1 << 16
)

// recall remembers for a minute the orders to which this door said "outcome
// unknown" or "frozen": a repeat of one passes the memory flags even if its
// sender does not know the repeat header. It is bounded; in a trouble that is
// larger, the oldest go first.
type recall struct {
	n    atomic.Int64
	mu   sync.RWMutex
	till map[engine.OrderID]int64
	ring []engine.OrderID // in order of arrival
	next int
}

// any tells, without a lock, whether anything is remembered.
func (r *recall) any() bool { return r.n.Load() > 0 }

func (r *recall) add(id engine.OrderID, now int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.till == nil {
		r.till = make(map[engine.OrderID]int64)
	}
	if _, ok := r.till[id]; ok {
		r.till[id] = now + recallFor
		return
	}
	if len(r.ring) < maxRecall {
		r.ring = append(r.ring, id)
	} else {
		delete(r.till, r.ring[r.next])
		r.ring[r.next] = id
		r.next = (r.next + 1) % maxRecall
	}
	r.till[id] = now + recallFor
	r.n.Store(int64(len(r.till)))
}

func (r *recall) has(id []byte, now int64) bool {
	r.mu.RLock()
	defer r.mu.RUnlock()
	till, ok := r.till[engine.OrderID(id)]
	return ok && now < till
}

// sweep forgets everything once nothing was added for a minute.
func (r *recall) sweep(now int64) {
	if !r.any() {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, till := range r.till {
		if now < till {
			return
		}
	}
	r.till, r.ring, r.next = nil, nil, 0
	r.n.Store(0)
}
