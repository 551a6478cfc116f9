package recovery

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/doorbuster/doorbuster/engine"
	"github.com/doorbuster/doorbuster/engine/orders"
	"github.com/doorbuster/doorbuster/stock"
)

const (
	probeEvery   = time.Second
	soonestProbe = 100 * time.Millisecond // after a doubt
	sweepEvery   = 10 * time.Second
	callTime     = 2 * time.Second // of a short call to Redis, RabbitMQ or PostgreSQL
	longCallTime = time.Minute     // of the cut and of building keys
	firstPause   = 50 * time.Millisecond
	longestPause = time.Second
)

// keeper is the leader's work on one sale.
type keeper struct {
	r      *Recovery
	sale   engine.SaleID
	lead   orders.Lead
	orders Orders // under the lead
	log    *slog.Logger
	meter  *saleMeter

	words chan word     // one slot: the last word of PostgreSQL
	told  told          // by the last round; under mu
	moves chan struct{} // there are new moves
	doubt chan struct{} // something refused: probe now

	beating  sync.Mutex // held while a heartbeat is on its way
	mu       sync.Mutex
	seen     view
	lastBeat time.Time
	since    struct { // when an epoch was first found sound here
		epoch int64
		at    time.Time
	}

	ctx        context.Context //nolint:containedctx // of the jobs: it ends with the lead
	sweepNoted time.Time       // of tidy alone

	cancel context.CancelFunc
	wg     sync.WaitGroup
}

// view is a sale as the last probe found it, sound. The zero view says that it
// was not: then nothing but probing and rebuilding is done.
type view struct {
	fence  orders.Fence
	def    engine.Sale
	watch  stock.Watch
	server stock.Server
	skew   skew
	lag    time.Duration
	since  time.Time // when the sale came to its state, by PostgreSQL's clock
	asOf   time.Time // when PostgreSQL was asked, by its clock

	claimed int64 // units, when it was asked
}

func (v *view) sound() bool { return v.fence.Epoch > 0 }

func (k *keeper) view() view {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.seen
}

func (k *keeper) setView(v view) {
	k.mu.Lock()
	defer k.mu.Unlock()
	woke := v.sound() && !k.seen.sound()
	k.seen = v
	if v.sound() && k.since.epoch != v.fence.Epoch {
		k.since.epoch, k.since.at = v.fence.Epoch, k.r.now()
	}
	if woke {
		nudge(k.r.woke)
		nudge(k.moves)
	}
}

// age is how long the epoch has been found sound here.
func (k *keeper) age(epoch int64) time.Duration {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.since.epoch != epoch {
		return 0
	}
	return k.r.now().Sub(k.since.at)
}

// startKeeper begins to keep a sale. When someone else last raised its heartbeat
// is not known: it may be beatBudget after the lead was taken over, which is over
// at this moment. See leaseWait.
func (r *Recovery) startKeeper(lead orders.Lead) *keeper {
	ctx, cancel := context.WithCancel(context.Background())
	k := &keeper{
		r: r, sale: lead.Sale, lead: lead, orders: r.cfg.Orders.Under(lead),
		log: r.log.With("sale", string(lead.Sale)), meter: r.meter.of(lead.Sale),
		words: make(chan word, 1), moves: make(chan struct{}, 1), doubt: make(chan struct{}, 1),
		lastBeat: r.now(), ctx: ctx, cancel: cancel,
	}
	if r.stepping() {
		return k // Steps calls the jobs
	}
	k.wg.Go(func() { k.pulse(ctx) })
	k.wg.Go(func() { k.tend(ctx) })
	k.wg.Go(func() { k.apply(ctx) })
	k.wg.Go(func() { k.tidy(ctx) })
	return k
}

// stop ends the work at its next step and returns when it has ended.
func (k *keeper) stop() {
	k.cancel()
	k.wg.Wait()
}

// tend probes, rebuilds what is broken, and does the small jobs of a sound sale.
func (k *keeper) tend(ctx context.Context) {
	job := newProber(k)
	say := outage{log: k.log, what: "sale cannot be probed or rebuilt"}
	pause := firstPause
	for {
		found, err := job.runOnce(ctx)
		say.tell(ctx, err)
		if err == nil && found != Sound {
			continue // rebuilt: it is the next probe that lets the heartbeat begin
		}
		next := probeEvery - soonestProbe
		if err != nil {
			next, pause = jitter(pause), min(2*pause, longestPause)
		} else {
			pause = firstPause
		}
		if !sleep(ctx, next, k.doubt) {
			return
		}
		if !sleep(ctx, soonestProbe, nil) {
			return
		}
	}
}

// apply moves without pause while there is something to move, and else waits to be
// told that there is (see scout).
func (k *keeper) apply(ctx context.Context) {
	job := &applier{k: k}
	say := outage{log: k.log, what: "moves cannot be applied"}
	pause := firstPause
	for {
		c, err := job.runOnce(ctx)
		say.tell(ctx, err)
		next, wake := jitter(applyPoll), k.moves
		switch {
		case err != nil: // the moves that stay are told of again and again: not now
			next, wake, pause = jitter(pause), nil, min(2*pause, longestPause)
		case c.Marked > 0:
			next, pause = 0, firstPause
			k.r.scout.found(k.r.now())
			if c.Moves < movesAtOnce/2 && !sleep(ctx, applyGather, nil) {
				return
			}
		}
		if !sleep(ctx, next, wake) {
			return
		}
	}
}

// tidy sweeps, drops old epochs and prunes.
func (k *keeper) tidy(ctx context.Context) {
	sweep, prune := newSweeper(k), &pruner{k: k}
	say := outage{log: k.log, what: "sale cannot be swept"}
	for sleep(ctx, jitter(sweepEvery), nil) {
		c, err := sweep.runOnce(ctx)
		if err == nil {
			k.noteSweep(c)
			_, err = prune.runOnce(ctx)
		}
		say.tell(ctx, err)
	}
}

// sleep waits for d, or for wake, or returns false when ctx ended.
func sleep(ctx context.Context, d time.Duration, wake <-chan struct{}) bool {
	if ctx.Err() != nil {
		return false
	}
	if d <= 0 {
		return true
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-wake:
	case <-t.C:
	}
	return true
}

func nudge(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

func jitter(d time.Duration) time.Duration {
	return d*3/4 + rand.N(d/2) // spreads load
}

// outage logs a failure when it begins and when it is over, not each time.
type outage struct {
	log  *slog.Logger
	what string
	last string
}

func (o *outage) tell(ctx context.Context, err error) {
	switch {
	case ctx.Err() != nil || errors.Is(err, context.Canceled):
	case err != nil && o.last == "":
		o.last = err.Error()
		o.log.Warn("trying again", "trouble", o.what, "err", err)
	case err == nil && o.last != "":
		o.log.Info("works again", "trouble", o.what, "was", o.last)
		o.last = ""
	}
}
