package recovery

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/doorbuster/doorbuster/engine"
	"github.com/doorbuster/doorbuster/engine/orders"
	"github.com/doorbuster/doorbuster/stock"
)

// Config wires a Recovery. Stock, Pulse, Orders, Lead, Publisher and Drainer are
// required.
type Config struct {
	Stock      Stock
	Pulse      Pulse
	Orders     Orders
	Lead       Lead
	Publisher  Publisher
	Drainer    Drainer
	Logger     *slog.Logger
	Registerer prometheus.Registerer

	// Depth tells how many messages an ingest queue has ready. Optional: it is
	// asked when the ingest of a sale stands still.
	Depth func(ctx context.Context, queue int) (int, error)

	// Notes takes what `doorbuster recovery status` tells; *orders.Store has it. nil:
	// nobody asks.
	Notes func(ctx context.Context, notes []orders.RecoveryNote) error

	// Secure adds a replica to what a durable sale waits for, when there is one;
	// *stock.Store has it. nil: nobody looks.
	Secure func(ctx context.Context, sale engine.SaleID, g stock.Grip) (stock.Safety, error)

	// SettleAfter is how long a sale has been closed before it may be settled, and
	// PruneAfter how long settled before its outcome rows go. 0: as the constants
	// of these names.
	SettleAfter, PruneAfter time.Duration

	// Now is the local clock, for durations only. nil is time.Now.
	Now func() time.Time
}

// Recovery is the role. Make it with New, run it with Run, once.
type Recovery struct {
	cfg   Config
	log   *slog.Logger
	meter *meter
	now   func() time.Time
	turns turns
	notes notebook
	scout scout

	markers markers
	surveys atomic.Int64 // under way, or waiting for their cut

	woke    chan struct{} // a sale became sound: do not wait for the tick
	leaving sync.WaitGroup
	mu      sync.Mutex
	keepers map[engine.SaleID]*keeper
	told    atomic.Bool // of PostgreSQL being away

	steps *StepsClock // of Steps; nil: the real one
}

// New returns a Recovery that does nothing until Run.
func New(cfg Config) *Recovery { return newRecovery(cfg, nil) }

// newRecovery makes meters if it is given none.
func newRecovery(cfg Config, m *meter) *Recovery {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Registerer == nil {
		cfg.Registerer = prometheus.NewRegistry()
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.SettleAfter == 0 {
		cfg.SettleAfter = SettleAfter
	}
	if cfg.PruneAfter == 0 {
		cfg.PruneAfter = PruneAfter
	}
	if m == nil {
		m = newMeter(cfg.Registerer)
	}
	return &Recovery{
		cfg: cfg, log: cfg.Logger, meter: m, now: cfg.Now,
		woke: make(chan struct{}, 1), keepers: map[engine.SaleID]*keeper{},
	}
}

// Run leads what sales it can until ctx ends, and returns nil.
func (r *Recovery) Run(ctx context.Context) error {
	defer r.close(ctx)
	r.leaving.Go(func() { r.pruneBooks(ctx) })
	r.leaving.Go(func() { r.writeNotes(ctx) })
	r.leaving.Go(func() { r.scouting(ctx) })
	tick := time.NewTicker(beatEvery)
	defer tick.Stop()
	for {
		began := r.now()
		if _, err := r.runOnce(ctx); err != nil && ctx.Err() == nil {
			if !r.told.Swap(true) {
				r.log.Warn("recovery cannot renew its leads: no heartbeat, the doors close", "err", err)
			}
		} else if r.told.Swap(false) {
			r.log.Info("recovery renews its leads again")
		}
		ended := r.now()
		if !r.nextRound(ctx, tick.C, ended.Add(max(roundLeast, roundRest*ended.Sub(began)))) {
			return nil
		}
	}
}

// nextRound waits for the tick, or until a sale wants a round, but for that not before
// soonest: a thousand that become sound one by one need not have a round each. False
// if ctx ended.
func (r *Recovery) nextRound(ctx context.Context, tick <-chan time.Time, soonest time.Time) bool {
	select {
	case <-ctx.Done():
		return false
	case <-tick:
		return true
	case <-r.woke:
	}
	rest := time.NewTimer(soonest.Sub(r.now()))
	defer rest.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-tick:
	case <-rest.C:
	}
	return true
}

// close ends every keeper, and then gives the leads to whoever wants them.
func (r *Recovery) close(ctx context.Context) {
	for _, k := range r.all() {
		r.leave(k)
	}
	r.leaving.Wait()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), callTime)
	defer cancel()
	if err := r.cfg.Lead.Resign(ctx); err != nil {
		r.log.Info("the leads of this process stand until they run out", "err", err)
	}
}

const (
	roundLeast = 20 * time.Millisecond // between rounds, whoever wants one
	roundRest  = 4                     // times as long as a round took is rested at least
)

// Counts is what one round did.
type Counts struct {
	Led     int // sales led by this process
	Allowed int // of them, those whose heartbeat PostgreSQL allows
}

// runOnce is one round: PostgreSQL says which sales are led here and in what
// epoch, and each keeper is told so. It waits for no keeper: what one sale's Redis
// does or does not do is nothing to the others.
func (r *Recovery) runOnce(ctx context.Context) (Counts, error) {
	asked := r.now()
	read, cancel := r.within(ctx, beatBudget)
	defer cancel()
	led, err := r.cfg.Lead.Round(read)
	if err != nil {
		return Counts{}, fmt.Errorf("round of leads: %w", err)
	}
	at := interval{asked, r.now()}
	counts := Counts{Led: len(led)}
	mine := make(map[engine.SaleID]int64, len(led))
	for i := range led {
		mine[led[i].Sale] = led[i].Number
	}
	for _, k := range r.all() {
		if mine[k.sale] != k.lead.Number {
			r.leave(k)
		}
	}
	for i := range led {
		k := r.keep(led[i].Lead)
		k.hear(told{led[i].Fence, led[i].Now, at})
		k.meter.beatAge(r.now().Sub(k.beaten()))
		if led[i].Fence.Epoch > 0 && !led[i].Fence.Frozen {
			k.allow(word{epoch: led[i].Fence.Epoch, until: asked.Add(beatBudget)})
			counts.Allowed++
		}
	}
	return counts, nil
}

func (r *Recovery) all() []*keeper {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := make([]*keeper, 0, len(r.keepers))
	for _, k := range r.keepers {
		all = append(all, k)
	}
	return all
}

func (r *Recovery) keeper(sale engine.SaleID) *keeper {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.keepers[sale]
}

func (r *Recovery) keep(lead orders.Lead) *keeper {
	r.mu.Lock()
	defer r.mu.Unlock()
	k := r.keepers[lead.Sale]
	if k == nil {
		k = r.startKeeper(lead)
		r.keepers[lead.Sale] = k
	}
	return k
}

func (r *Recovery) leave(k *keeper) {
	r.mu.Lock()
	delete(r.keepers, k.sale)
	r.mu.Unlock()
	r.meter.forget(k.sale)
	if r.stepping() {
		k.stop() // there is no goroutine to wait for
		return
	}
	r.leaving.Go(k.stop) // a call that hangs must not hold up other sales
}

// Nudge says that a sale has new moves: they are looked at now instead of with
// the next poll. It does nothing if another process leads the sale. Cheap, and
// never waits.
func (r *Recovery) Nudge(sale engine.SaleID) {
	if k := r.keeper(sale); k != nil {
		nudge(k.moves)
	}
}
