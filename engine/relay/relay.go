package relay

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
	"github.com/doorbuster/doorbuster/engine/queue"
	"github.com/doorbuster/doorbuster/stock"
)

// Age is how old an entry is before it is relayed: twice as long as a door waits
// for its confirm.
const Age = 3 * time.Second

const (
	passEvery   = 500 * time.Millisecond // pause between passes over all sales
	listEvery   = 5 * time.Second        // between readings of the list of sales
	slice       = 128                    // entries read at once; each up to 256 orders
	inFlight    = 8                      // entries of a sale being published
	confirmTime = 3 * time.Second        // most wait for a confirm
	callTime    = 2 * time.Second        // of a call to Redis or PostgreSQL
	saleWorkers = 4                      // sales at once
)

// Stock is what the relay needs of the stock.
type Stock interface {
	Watch(ctx context.Context, sale engine.SaleID, epoch int64) (stock.Watch, error)
	Epochs(ctx context.Context, sale engine.SaleID) ([]int64, error)
	Outbox(ctx context.Context, sale engine.SaleID, epoch int64, limit int) ([]stock.Entry, int64, error)
	Mark(ctx context.Context, sale engine.SaleID, epoch int64, entries []int64) error
}

// Sales lists the sales in use.
type Sales interface {
	Sales(ctx context.Context) ([]engine.SaleID, error)
}

// Publisher publishes with confirms.
type Publisher interface {
	Publish(ctx context.Context, sale engine.SaleID, body []byte) error
}

// Config wires a Relay. Stock, Sales and Publisher are required.
type Config struct {
	Stock      Stock
	Sales      Sales
	Publisher  Publisher
	Logger     *slog.Logger
	Registerer prometheus.Registerer
}

// Relay is the job. Make it with New.
type Relay struct {
	cfg    Config
	log    *slog.Logger
	meter  *meter
	sales  []engine.SaleID
	listed time.Time
	told   atomic.Bool // of the present trouble
}

// New returns a relay that does nothing until Run or Drain.
func New(cfg Config) *Relay {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Registerer == nil {
		cfg.Registerer = prometheus.NewRegistry()
	}
	return &Relay{cfg: cfg, log: cfg.Logger, meter: newMeter(cfg.Registerer)}
}

// Counts is what a pass did.
type Counts struct {
	Published int // entries confirmed and marked
	Waiting   int // entries that stay: too young, or not confirmed
}

// Run relays until ctx ends, and returns nil.
func (r *Relay) Run(ctx context.Context) error {
	tick := time.NewTicker(passEvery)
	defer tick.Stop()
	for {
		if _, err := r.runOnce(ctx); err != nil && ctx.Err() == nil {
			if !r.told.Swap(true) {
				r.log.Warn("relay cannot go on, trying again", "err", err)
			}
		} else if r.told.Swap(false) {
			r.log.Info("relay goes on")
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// runOnce is one pass over all sales. It is for one goroutine.
func (r *Relay) runOnce(ctx context.Context) (Counts, error) {
	errs := []error{r.list(ctx)}
	var (
		mu   sync.Mutex
		sum  Counts
		wg   sync.WaitGroup
		next = make(chan engine.SaleID)
	)
	for range min(saleWorkers, len(r.sales)) {
		wg.Go(func() {
			for sale := range next {
				c, err := r.relay(ctx, sale, Age)
				mu.Lock()
				sum.Published += c.Published
				sum.Waiting += c.Waiting
				errs = append(errs, err)
				mu.Unlock()
			}
		})
	}
	for _, sale := range r.sales {
		next <- sale
	}
	close(next)
	wg.Wait()
	return sum, errors.Join(errs...)
}

// list reads which sales are in use. While PostgreSQL is down the last list
// stands: Redis and RabbitMQ are all that relaying needs.
func (r *Relay) list(ctx context.Context) error {
	if time.Since(r.listed) < listEvery {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	sales, err := r.cfg.Sales.Sales(ctx)
	if err != nil {
		return fmt.Errorf("list the sales in use: %w", err)
	}
	r.meter.forget(r.sales, sales)
	r.sales, r.listed = sales, time.Now()
	return nil
}

// Drain relays everything that is in the sale's outboxes, however young, until
// they are empty or ctx ends: the first step of a rebuild.
func (r *Relay) Drain(ctx context.Context, sale engine.SaleID) error {
	_, err := r.relay(ctx, sale, 0)
	return err
}

func (r *Relay) relay(ctx context.Context, sale engine.SaleID, age time.Duration) (Counts, error) {
	epochs, err := r.cfg.Stock.Epochs(ctx, sale)
	if err != nil {
		return Counts{}, fmt.Errorf("relay sale %s: %w", sale, err)
	}
	var (
		sum    Counts
		length int64
		oldest time.Duration
	)
	for _, epoch := range epochs {
		o := outbox{sale: sale, epoch: epoch}
		c, left, err := r.drain(ctx, o, age)
		sum.Published += c.Published
		sum.Waiting += c.Waiting
		if err != nil {
			return sum, fmt.Errorf("relay sale %s epoch %d: %w", sale, epoch, err)
		}
		length += left.length
		oldest = max(oldest, left.oldest)
	}
	r.meter.observe(sale, length, oldest)
	return sum, nil
}

type outbox struct {
	sale  engine.SaleID
	epoch int64
}

type remains struct {
	length int64
	oldest time.Duration
}

// drain relays the entries of one outbox that are old enough, oldest first.
func (r *Relay) drain(ctx context.Context, o outbox, age time.Duration) (Counts, remains, error) {
	var sum Counts
	for {
		entries, length, err := r.cfg.Stock.Outbox(ctx, o.sale, o.epoch, slice)
		if err != nil {
			return sum, remains{}, err
		}
		if len(entries) == 0 {
			return sum, remains{}, nil
		}
		now, err := r.now(ctx, o.sale)
		if err != nil {
			return sum, remains{}, err
		}
		due := 0
		for due < len(entries) && now-entries[due].At >= age.Milliseconds() {
			due++
		}
		left := remains{length: length, oldest: max(0, time.Duration(now-entries[0].At)*time.Millisecond)}
		if due == 0 {
			sum.Waiting = int(length)
			return sum, left, nil
		}
		done, err := r.publish(ctx, o, entries[:due])
		sum.Published += done
		if err != nil {
			sum.Waiting = int(length) - done
			r.meter.observe(o.sale, length-int64(done), left.oldest)
			return sum, left, err
		}
	}
}

// now is the time by the clock that stamped the entries. A sale whose watch
// cannot be read (frozen, or its keys gone) is measured by ours: the relay must
// work in a rebuild too, and an entry relayed too early does no harm.
func (r *Relay) now(ctx context.Context, sale engine.SaleID) (int64, error) {
	w, err := r.cfg.Stock.Watch(ctx, sale, 0)
	switch {
	case err == nil && w.Now > 0:
		return w.Now, nil
	case err == nil, errors.Is(err, stock.ErrFenced), errors.Is(err, stock.ErrNoSale):
		return time.Now().UnixMilli(), nil
	}
	return 0, err
}

// publish sends entries, some at a time, and marks those confirmed.
func (r *Relay) publish(ctx context.Context, o outbox, entries []stock.Entry) (int, error) {
	var (
		mu        sync.Mutex
		wg        sync.WaitGroup
		confirmed []int64
		failed    error
		next      = make(chan stock.Entry)
	)
	for range min(inFlight, len(entries)) {
		wg.Go(func() {
			for e := range next {
				err := r.publishOne(ctx, o.sale, e.Body)
				mu.Lock()
				if err == nil {
					confirmed = append(confirmed, e.ID)
				} else if failed == nil {
					failed = err
				}
				mu.Unlock()
			}
		})
	}
	for _, e := range entries {
		mu.Lock()
		stop := failed != nil
		mu.Unlock()
		if stop {
			break // what is wrong with one is wrong with all: the broker
		}
		next <- e
	}
	close(next)
	wg.Wait()
	if len(confirmed) > 0 {
		if err := r.cfg.Stock.Mark(ctx, o.sale, o.epoch, confirmed); err != nil {
			return 0, err // they are published once more: harmless
		}
		r.meter.published.Add(float64(len(confirmed)))
		r.log.Info("published what was left in the outbox", "sale", o.sale, "epoch", o.epoch, "entries", len(confirmed))
	}
	return len(confirmed), failed
}

func (r *Relay) publishOne(ctx context.Context, sale engine.SaleID, body []byte) error {
	ctx, cancel := context.WithTimeout(ctx, confirmTime)
	defer cancel()
	return r.cfg.Publisher.Publish(ctx, sale, body)
}

var _ Publisher = (*queue.Publisher)(nil)
