package door

import (
	"sync"
	"sync/atomic"
	"time"
)

const (
	defaultGateMin    = 32
	defaultGateMax    = 16384
	defaultGateTarget = 25 * time.Millisecond

	gateFirst    = 1024 // requests in flight a sale begins with: four full groups
	gateStep     = 64   // added after a window that was in time and needed it
	gateWindow   = int64(100 * time.Millisecond)
	gatePatience = 2   // times the quickest answer is in time, however late that is: fewer buyers make no broker faster
	gateForget   = 64  // windows in which the quickest answer is forgotten
	gateSlow     = 100 // one of so many may be late: the 99th percentile
)

// gate bounds the requests of a sale in flight, and adapts the bound to how long
// they take: additive increase, multiplicative decrease, as TCP does (Chiu and
// Jain 1989). It is measured from joining a group to the confirm. Where a confirm
// alone takes longer than the target, in-time is what is not much longer than that
// (as Vegas does, Brakmo and Peterson 1995): else the gate would close to its
// minimum and nothing would be quicker for it.
type gate struct {
	min, max, target int64 // target in nanoseconds
	limit            atomic.Int64
	used             atomic.Int64

	mu     sync.Mutex
	window int64 // when it began
	all    int64 // requests answered in the window
	slow   int64 // of them, later than target
	best   int64 // the quickest of the window
	base   int64 // what an answer takes when nothing waits: the quickest of late
	peak   int64 // most in flight seen in the window
}

func (g *gate) init(cfg *Config) {
	g.min, g.max, g.target = int64(cfg.GateMin), int64(cfg.GateMax), int64(cfg.GateTarget)
	g.limit.Store(min(g.max, max(g.min, gateFirst)))
}

// enter takes a place, or tells that there is none.
func (g *gate) enter() bool {
	if g.used.Add(1) > g.limit.Load() {
		g.used.Add(-1)
		return false
	}
	return true
}

// leave gives the place back.
func (g *gate) leave() { g.used.Add(-1) }

// learn takes in that n requests took so long, in nanoseconds.
func (g *gate) learn(n, took, now int64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.all += n
	if g.best == 0 || took < g.best {
		g.best = took
	}
	if took > max(g.target, gatePatience*g.base) {
		g.slow += n
	}
	g.peak = max(g.peak, g.used.Load())
	if now-g.window < gateWindow {
		return
	}
	limit := g.limit.Load()
	switch {
	case g.slow*gateSlow > g.all:
		g.limit.Store(max(g.min, limit-limit/8))
	case g.peak > limit/2:
		g.limit.Store(min(g.max, limit+gateStep))
	}
	if g.base == 0 || g.best < g.base {
		g.base = g.best
	} else {
		g.base += (g.best - g.base) / gateForget
	}
	g.window, g.all, g.slow, g.peak, g.best = now, 0, 0, 0, 0
}
