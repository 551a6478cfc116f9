package door

import (
	"sync"
	"sync/atomic"
	"time"
)

const (
	defaultGateMin    = 512
	defaultGateMax    = 16384
	defaultGateTarget = 25 * time.Millisecond

	gateFirst    = 1024 // requests in flight a sale begins with: four full groups
	gateStep     = 64   // added after a window that was in time and needed it
	gateShrink   = 8    // an eighth is taken away after one that was not
	gateWindow   = int64(200 * time.Millisecond)
	gateLate     = 100 // one of so many may be late: the 99th percentile
	gatePatience = 2   // times the quickest answer is in time, however late that is
	gateForget   = 64  // windows in which the quickest answer is forgotten
)

// gate bounds the requests of a sale in flight, and adapts the bound to how long
// they take from joining a group to the confirm: additive increase, multiplicative
// decrease, as TCP does (Chiu and Jain 1989). Two things are not taken for a sign
// of too many: a confirm that always takes longer than the target (in time is then
// what is not much longer than the quickest, as in TCP Vegas, Brakmo and Peterson
// 1995), and a single stall, which makes a hundredth late but not the mean. Fewer
// requests would make neither quicker, and the gate would close to its minimum.
type gate struct {
	min, max, target int64 // target in nanoseconds
	limit            atomic.Int64
	used             atomic.Int64

	mu     sync.Mutex
	window int64 // when it began
	all    int64 // requests answered in the window
	late   int64 // of them, later than in time
	sum    int64 // of how long they took
	peak   int64 // most in flight seen in the window
	best   int64 // the quickest of the window
	base   int64 // what an answer takes when nothing waits: the quickest of late
}

func (g *gate) init(cfg *Config) {
	g.min, g.max, g.target = int64(cfg.GateMin), int64(cfg.GateMax), int64(cfg.GateTarget)
	g.limit.Store(min(g.max, max(g.min, gateFirst)))
}

// enter takes a place, or tells that there is none. Who is refused writes nothing:
// added and taken away again, he would keep others out of a place that is free, and
// be counted as being in.
func (g *gate) enter() bool {
	for {
		n := g.used.Load()
		if n >= g.limit.Load() {
			return false
		}
		if g.used.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

// leave gives the place back.
func (g *gate) leave() { g.used.Add(-1) }

// need is how many requests must be in flight for what was served in the window
// to be served in the target time each: Little's law, with as much again for the
// groups that gather. A bound below it makes groups smaller and serves fewer, and
// what is left is not quicker for it: seen where the machine itself was too busy,
// with the bound at its minimum and a tenth of the orders accepted.
func (g *gate) need(now int64) int64 {
	return int64(2 * float64(g.all) * float64(g.target) / float64(now-g.window))
}

// learn takes in that n requests took so long, in nanoseconds.
func (g *gate) learn(n, took, now int64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	inTime := max(g.target, gatePatience*g.base)
	g.all += n
	g.sum += n * took
	if took > inTime {
		g.late += n
	}
	if g.best == 0 || took < g.best {
		g.best = took
	}
	g.peak = max(g.peak, g.used.Load())
	if now-g.window < gateWindow {
		return
	}
	limit := g.limit.Load()
	switch {
	case g.late*gateLate > g.all && g.sum/g.all > inTime/2:
		g.limit.Store(max(g.min, min(limit, g.need(now)), limit-limit/gateShrink))
	case g.late*gateLate <= g.all && g.peak > limit/2:
		g.limit.Store(min(g.max, limit+gateStep))
	}
	if g.base == 0 || g.best < g.base {
		g.base = g.best
	} else {
		g.base += (g.best - g.base) / gateForget
	}
	g.window, g.all, g.late, g.sum, g.peak, g.best = now, 0, 0, 0, 0, 0
}
