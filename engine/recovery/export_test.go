package recovery

import (
	"context"
	"log/slog"
	"time"

	"github.com/doorbuster/doorbuster/engine"
	"github.com/doorbuster/doorbuster/engine/orders"
	"github.com/doorbuster/doorbuster/stock"
)

// Notes are what diagnose judges.
type Notes struct {
	Fence            orders.Fence
	Watch            stock.Watch
	Missing, Loaded  bool
	Refused          bool
	Server, Formerly stock.Server
	Stranger         bool
}

// Diagnose is diagnose.
func Diagnose(n Notes) Trigger {
	return diagnose(&notes{n.Fence, n.Watch, n.Missing, n.Loaded, n.Refused, n.Server, n.Formerly, n.Stranger})
}

// SweepOnce sweeps a sale led by r once.
func SweepOnce(ctx context.Context, r *Recovery, sale engine.SaleID) (SweepCounts, error) {
	k := r.keeper(sale)
	if k == nil {
		return SweepCounts{}, nil
	}
	return newSweeper(k).runOnce(ctx)
}

// SweepTwice sweeps twice with one memory.
func SweepTwice(ctx context.Context, r *Recovery, sale engine.SaleID) (first, second SweepCounts, err error) {
	s := newSweeper(r.keeper(sale))
	if first, err = s.runOnce(ctx); err == nil {
		second, err = s.runOnce(ctx)
	}
	return first, second, err
}

// PruneOnce prunes a sale led by r, as at that time by Redis' clock.
func PruneOnce(ctx context.Context, r *Recovery, sale engine.SaleID, at time.Time) (PruneCounts, error) {
	k := r.keeper(sale)
	v := k.view()
	v.watch.Now = at.UnixMilli()
	k.setView(v)
	return (&pruner{k: k}).runOnce(ctx)
}

// PruneBefore is pruneBefore.
func PruneBefore(def *engine.Sale, nowMS int64) (int64, bool) { return pruneBefore(def, nowMS) }

// AgeEpoch lets r believe that it has found the present epoch sound for that long.
func AgeEpoch(r *Recovery, sale engine.SaleID, age time.Duration) {
	k := r.keeper(sale)
	k.mu.Lock()
	defer k.mu.Unlock()
	k.since.at = k.since.at.Add(-age)
}

// Lagger measures lags from what probes saw.
type Lagger struct{ l lagger }

// NewLagger returns one that finds the queue as deep as depth says.
func NewLagger(depth func(context.Context, int) (int, error)) *Lagger {
	return &Lagger{lagger{k: &keeper{r: New(Config{Depth: depth}), log: slog.New(slog.DiscardHandler)}}}
}

// Measure takes a sample: seqs given out by Redis and known to PostgreSQL, at a
// time in milliseconds.
func (l *Lagger) Measure(epoch, given, known, at int64) time.Duration {
	return l.l.measure(context.Background(), &view{
		fence: orders.Fence{Epoch: epoch, Seq: known}, watch: stock.Watch{Seq: given, Now: at},
	})
}

// Readings are when two clocks were asked (the second right after the first
// answered), by the local clock, and what they said.
type Readings struct{ Asked, Answered, Watched, Postgres, Redis time.Time }

// Skew is measureSkew.
func Skew(r Readings) (by, least time.Duration) {
	s := measureSkew(interval{r.Asked, r.Answered}, r.Postgres, interval{r.Answered, r.Watched}, r.Redis.UnixMilli())
	return s.by, s.least()
}

// Clock judges measurements.
type Clock struct{ c clock }

// NewClock returns a clock that pauses through these.
func NewClock(st Stock, or Orders) *Clock {
	r := New(Config{Stock: st, Orders: or})
	return &Clock{clock{k: &keeper{r: r, orders: or, log: r.log, meter: r.meter.of("x")}}}
}

// Judge tells whether the sale was paused for this skew.
func (c *Clock) Judge(ctx context.Context, by, unsure time.Duration) (bool, error) {
	return c.c.runOnce(ctx, &view{watch: stock.Watch{State: engine.SaleOpen}, skew: skew{by, unsure}})
}

// ApplyOnce applies moves of a sale led by r once.
func ApplyOnce(ctx context.Context, r *Recovery, sale engine.SaleID) (ApplyCounts, error) {
	return (&applier{k: r.keeper(sale)}).runOnce(ctx)
}

// RebuildsAtOnce is how many small rebuilds may be at once.
const RebuildsAtOnce = turnsAtOnce

// UrgencyOf is urgencyOf.
func UrgencyOf(def *engine.Sale, now, sold time.Time) int {
	return int(urgencyOf(def, now, sold.UnixMilli()))
}

// Turns are turns.
type Turns struct{ t turns }

// Turn is a rebuild that has joined them.
type Turn struct{ n *turn }

// Join joins a rebuild of a sale that nobody waits for more than for another, with so
// many units, and asks for its turn.
func (t *Turns) Join(units int64) Turn {
	n := t.t.join(urgent, units)
	t.t.mu.Lock()
	defer t.t.mu.Unlock()
	t.t.ready = append(t.t.ready, n)
	t.t.grant()
	return Turn{n}
}

// Granted tells whether it has its turn.
func (n Turn) Granted() bool {
	n.n.all.mu.Lock()
	defer n.n.all.mu.Unlock()
	return n.n.granted
}

// Leave ends it.
func (n Turn) Leave() { n.n.leave() }

// NextTurn is nextTurn for rebuilds of these urgencies that are ready, one of them
// impatient, when those of joined have begun.
func NextTurn(ready []int, impatient int, joined []int) int {
	var all []*turn
	var begun [urgencies]int
	for i, u := range ready {
		all = append(all, &turn{urgency: urgency(u), patient: i != impatient})
	}
	for _, u := range joined {
		begun[u]++
	}
	return nextTurn(all, begun)
}

// StateByTime is stateByTime.
func StateByTime(def *engine.Sale, nowMS int64) engine.SaleState { return stateByTime(def, nowMS) }

// PruneBooks is pruneOnce.
func PruneBooks(ctx context.Context, r *Recovery) (int, error) { return r.pruneOnce(ctx) }

// BeatOnce lets a keeper raise a heartbeat once through p, half a second after the last,
// and tells whether the wait for leases begins anew and whether the next probe is due
// at once.
func BeatOnce(p Pulse) (counts, doubted bool) {
	now := time.Unix(1_700_000_000, 0)
	k := &keeper{r: New(Config{Pulse: p, Now: func() time.Time { return now }}), doubt: make(chan struct{}, 1), lastBeat: now}
	k.setView(view{fence: orders.Fence{Epoch: 1}})
	now = now.Add(beatEvery)
	k.beat(context.Background(), word{epoch: 1, until: now.Add(time.Hour)})
	return k.beaten().Equal(now), taken(k.doubt)
}

// Seen is what the errands of a sound sale see.
type Seen struct {
	Redis, Postgres         engine.SaleState
	Skew                    time.Duration
	Closes                  time.Time
	RedisTime, PostgresTime time.Time

	Lag, RedisLag time.Duration // what is so, and what the slot says
	Server        stock.Server
}

// Errands runs the errands of one sale on a clock of its own.
type Errands struct {
	p   *prober
	now time.Time
}

// NewErrands returns those that act through these.
func NewErrands(st Stock, or Orders) *Errands {
	e := &Errands{now: time.Unix(1_700_000_000, 0)}
	r := New(Config{Stock: st, Orders: or, Now: func() time.Time { return e.now }})
	e.p = newProber(&keeper{r: r, orders: or, log: r.log, meter: r.meter.of("x")})
	return e
}

// Pass lets time pass.
func (e *Errands) Pass(d time.Duration) { e.now = e.now.Add(d) }

// Run runs them once.
func (e *Errands) Run(ctx context.Context, s Seen) {
	v := view{
		def:   engine.Sale{State: s.Postgres, Closes: s.Closes},
		watch: stock.Watch{State: s.Redis, Now: s.RedisTime.UnixMilli(), Lag: s.RedisLag.Milliseconds()}, asOf: s.PostgresTime, skew: skew{by: s.Skew},
		lag: s.Lag, server: s.Server, fence: orders.Fence{Epoch: 1},
	}
	_ = e.p.errands(ctx, &v)
}

// Bitset is bitset.
type Bitset struct{ bitset }

// Has is has.
func (b *Bitset) Has(n int64) bool { return b.has(n) }

// Add is add.
func (b *Bitset) Add(n int64) { b.add(n) }
