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

	gateFirst  = 1024 // requests in flight a sale begins with: four full groups
	gateStep   = 64   // added after a window that was in time and needed it
	gateWindow = int64(100 * time.Millisecond)
	gateSlow   = 100 // one of so many may be late: the 99th percentile
)

// gate bounds the requests of a sale in flight, and adapts the bound to how long
// they take: additive increase, multiplicative decrease, as TCP does (Chiu and
// Jain 1989). What takes is measured from joining to confirm.
type gate struct {
	min, max, target int64 // target in nanoseconds
	limit            atomic.Int64
	used             atomic.Int64

	mu     sync.Mutex
	window int64 // when it began
	all    int64 // requests answered in the window
	slow   int64 // of them, later than target
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
	if took > g.target {
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
	g.window, g.all, g.slow, g.peak = now, 0, 0, 0
}
