package recovery

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/doorbuster/doorbuster/engine"
	"github.com/doorbuster/doorbuster/engine/orders"
)

// Config wires a Recovery. Stock, Orders, Lead, Publisher and Drainer are
// required. Lead is closed by Run.
type Config struct {
	Stock      Stock
	Orders     Orders
	Lead       Lead
	Publisher  Publisher
	Drainer    Drainer
	Logger     *slog.Logger
	Registerer prometheus.Registerer

	// Depth tells how many messages an ingest queue has ready. Optional: it is
	// asked when the ingest of a sale stands still.
	Depth func(ctx context.Context, queue int) (int, error)

	// Now is the local clock, for durations only. nil is time.Now.
	Now func() time.Time
}

// Recovery is the role. Make it with New, run it with Run, once.
type Recovery struct {
	cfg   Config
	log   *slog.Logger
	meter *meter
	now   func() time.Time

	lead struct {
		sync.Mutex // a Lead is for one goroutine
		Lead
	}
	woke    chan struct{} // a sale became sound: do not wait for the tick
	leaving sync.WaitGroup
	mu      sync.Mutex
	keepers map[engine.SaleID]*keeper
	told    atomic.Bool // of PostgreSQL being away
}

// New returns a Recovery that does nothing until Run.
func New(cfg Config) *Recovery {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Registerer == nil {
		cfg.Registerer = prometheus.NewRegistry()
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	r := &Recovery{
		cfg: cfg, log: cfg.Logger, meter: newMeter(cfg.Registerer), now: cfg.Now,
		woke: make(chan struct{}, 1), keepers: map[engine.SaleID]*keeper{},
	}
	r.lead.Lead = cfg.Lead
	return r
}

// Run leads what sales it can until ctx ends, and returns nil.
func (r *Recovery) Run(ctx context.Context) error {
	defer r.close()
	tick := time.NewTicker(beatEvery)
	defer tick.Stop()
	for {
		if _, err := r.runOnce(ctx); err != nil && ctx.Err() == nil {
			if !r.told.Swap(true) {
				r.log.Warn("recovery cannot read the sales: no heartbeat, the doors close", "err", err)
			}
		} else if r.told.Swap(false) {
			r.log.Info("recovery reads the sales again")
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		case <-r.woke:
		}
	}
}

func (r *Recovery) close() {
	for _, k := range r.all() {
		r.leave(k.sale)
	}
	r.leaving.Wait()
	r.lead.Lock()
	defer r.lead.Unlock()
	r.lead.Close()
}

// Counts is what one tick did.
type Counts struct {
	Sales int // in use
	Led   int // by this process
	Beats int // heartbeats raised
}

// runOnce reads every sale's fence, raises the heartbeats of those led and sound,
// then tries to lead the rest. The heartbeats come first: they are urgent, and
// they need no lock, only PostgreSQL's word.
func (r *Recovery) runOnce(ctx context.Context) (Counts, error) {
	read, cancel := context.WithTimeout(ctx, beatBudget)
	defer cancel()
	fences, err := r.cfg.Orders.Fences(read)
	if err != nil {
		return Counts{}, fmt.Errorf("read the fences: %w", err)
	}
	counts := Counts{Sales: len(fences), Beats: r.beat(read, fences)}
	counts.Led, err = r.elect(ctx, fences)
	return counts, err
}

// elect takes the lead of sales that nobody leads, and gives up sales that are
// no longer in use or that another process leads.
func (r *Recovery) elect(ctx context.Context, fences []orders.Fence) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	var errs []error
	inUse := make(map[engine.SaleID]bool, len(fences))
	led := 0
	for _, f := range fences {
		inUse[f.Sale] = true
		leads, err := r.leads(ctx, f.Sale)
		if err != nil {
			errs = append(errs, fmt.Errorf("lead sale %s: %w", f.Sale, err))
			continue // not known: what runs is safe without the lock
		}
		if leads {
			led++
			r.keep(f.Sale)
		} else {
			r.leave(f.Sale)
		}
	}
	for _, k := range r.all() {
		if !inUse[k.sale] {
			r.leave(k.sale)
			errs = append(errs, r.resign(ctx, k.sale))
		}
	}
	return led, errors.Join(errs...)
}

func (r *Recovery) leads(ctx context.Context, sale engine.SaleID) (bool, error) {
	r.lead.Lock()
	defer r.lead.Unlock()
	return r.lead.TryLead(ctx, sale)
}

func (r *Recovery) resign(ctx context.Context, sale engine.SaleID) error {
	r.lead.Lock()
	defer r.lead.Unlock()
	return r.lead.Resign(ctx, sale)
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

func (r *Recovery) keep(sale engine.SaleID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.keepers[sale] == nil {
		r.keepers[sale] = r.startKeeper(sale)
	}
}

func (r *Recovery) leave(sale engine.SaleID) {
	r.mu.Lock()
	k := r.keepers[sale]
	delete(r.keepers, sale)
	r.mu.Unlock()
	if k != nil {
		r.meter.forget(sale)
		r.leaving.Go(k.stop) // a call that hangs must not hold up other sales' heartbeats
	}
}

// Nudge says that a sale has new moves: they are looked at now instead of with
// the next poll. It does nothing if another process leads the sale. Cheap, and
// never waits.
func (r *Recovery) Nudge(sale engine.SaleID) {
	if k := r.keeper(sale); k != nil {
		nudge(k.moves)
	}
}
