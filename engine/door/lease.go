package door

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/doorbuster/doorbuster/stock"
)

// leaseFor is how long a door may go on saying 202 on the word of a heartbeat.
// Recovery waits 2.5 s after its last one before it cuts, so every lease has
// ended by then.
const leaseFor = int64(2 * time.Second)

// lease is the right to say 202 to orders of an epoch.
type lease struct {
	mu     sync.Mutex
	known  bool // the three below are of one read
	epoch  int64
	number int64 // the heartbeat seen last
	sent   int64 // when the last read that showed it was sent
	fenced int64 // reads sent before do not count

	held atomic.Pointer[span]
}

type span struct {
	epoch int64
	until int64 // on the door's clock
}

// holds tells whether the lease of the epoch holds.
func (l *lease) holds(epoch, now int64) bool {
	s := l.held.Load()
	return s != nil && s.epoch == epoch && now < s.until
}

// left is how long the lease holds yet, in nanoseconds.
func (l *lease) left(now int64) int64 {
	s := l.held.Load()
	if s == nil || s.until <= now {
		return 0
	}
	return s.until - now
}

// read takes in one read of the watch, sent at that moment of the door's clock,
// and tells whether it renewed the lease. The number must have been seen to rise
// by this door: a number that was already there says nothing about how old it is.
func (l *lease) read(w *stock.Watch, sent int64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if sent <= l.fenced {
		return false
	}
	switch {
	case w.Frozen:
		l.end()
		return false
	case !l.known || w.Epoch != l.epoch || w.Heartbeat < l.number:
		l.end()
		l.known, l.epoch, l.number, l.sent = true, w.Epoch, w.Heartbeat, sent
		return false
	case w.Heartbeat == l.number:
		l.sent = sent
		return false
	}
	l.held.Store(&span{epoch: l.epoch, until: l.sent + leaseFor})
	l.number, l.sent = w.Heartbeat, sent
	return true
}

// fence ends the lease: the stock refused, the slot has lost the sale, or its clock
// is in doubt. Reads sent before now, which may lie ahead, cannot renew it.
func (l *lease) fence(now int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.fenced = max(l.fenced, now)
	l.end()
}

func (l *lease) end() {
	l.known = false
	l.held.Store(nil)
}
