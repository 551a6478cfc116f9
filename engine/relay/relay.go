package relay

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/doorbuster/doorbuster/engine"
	"github.com/doorbuster/doorbuster/engine/failpoint"
	"github.com/doorbuster/doorbuster/engine/queue"
	"github.com/doorbuster/doorbuster/stock"
)

// Age is how old an entry is before it is relayed: twice as long as a door waits
// for its confirm.
const Age = 3 * time.Second

const (
	passEvery   = 500 * time.Millisecond // pause between passes over a sale, on average
	listEvery   = 5 * time.Second        // between readings of the list of sales
	slice       = 128                    // entries read at once; each up to 256 orders
	inFlight    = 8                      // entries of a sale being published
	confirmTime = 3 * time.Second        // most wait for a confirm
	callTime    = 2 * time.Second        // of a call to Redis or PostgreSQL
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

	// InFlight is how many entries of a sale are being published at once; 0 is 8. With 1
	// nothing is begun but what Run begins: a pass runs in its caller's goroutine.
	InFlight int
	// Now is the time by which entries of a sale without a watch are measured; nil is
	// time.Now.
	Now func() time.Time
}

// Relay is the job. Make it with New.
type Relay struct {
	cfg   Config
	log   *slog.Logger
	meter *meter
}

// New returns a relay that does nothing until Run or Drain.
func New(cfg Config) *Relay {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Registerer == nil {
		cfg.Registerer = prometheus.NewRegistry()
	}
	if cfg.InFlight <= 0 {
		cfg.InFlight = inFlight
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Relay{cfg: cfg, log: cfg.Logger, meter: newMeter(cfg.Registerer)}
}

// Counts is what a pass over one sale did.
type Counts struct {
	Published int // entries confirmed and marked
	Waiting   int // entries that stay: too young, or not confirmed
}

// Run relays until ctx ends and every sale's goroutine has ended, and returns nil.
// Each sale in use has one of its own, so that one whose Redis is silent delays no
// other.
func (r *Relay) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	tended := map[engine.SaleID]context.CancelFunc{}
	say := trouble{log: r.log, what: "the sales in use cannot be listed; those known are relayed"}
	for {
		sales, err := r.list(ctx)
		say.tell(ctx, err)
		if err == nil { // while PostgreSQL is down the last list stands
			used := make(map[engine.SaleID]bool, len(sales))
			for _, sale := range sales {
				if used[sale] = true; tended[sale] == nil {
					own, stop := context.WithCancel(ctx)
					tended[sale] = stop
					wg.Go(func() { r.tend(own, sale) })
				}
			}
			for sale, stop := range tended {
				if !used[sale] {
					stop()
					delete(tended, sale)
				}
			}
		}
		if !sleep(ctx, listEvery) {
			return nil // and with ctx end the goroutines
		}
	}
}

// list reads which sales are in use.
func (r *Relay) list(ctx context.Context) ([]engine.SaleID, error) {
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	sales, err := r.cfg.Sales.Sales(ctx)
	if err != nil {
		return nil, fmt.Errorf("list the sales in use: %w", err)
	}
	return sales, nil
}

// tend relays what one sale's outboxes hold too long.
func (r *Relay) tend(ctx context.Context, sale engine.SaleID) {
	defer r.meter.forget(sale)
	say := trouble{log: r.log.With("sale", string(sale)), what: "outbox cannot be relayed"}
	for sleep(ctx, passEvery/2+rand.N(passEvery)) { // not all sales at the same moment
		_, err := r.Pass(ctx, sale)
		say.tell(ctx, err)
	}
}

// sleep waits, or returns false when ctx ended.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// trouble logs a failure when it begins and when it is over, not each time.
type trouble struct {
	log  *slog.Logger
	what string
	told bool
}

func (t *trouble) tell(ctx context.Context, err error) {
	switch {
	case err != nil && ctx.Err() == nil && !t.told:
		t.told = true
		t.log.Warn("trying again", "trouble", t.what, "err", err)
	case err == nil && t.told:
		t.told = false
		t.log.Info("works again", "trouble", t.what)
	}
}

// Pass relays what is older than Age in the sale's outboxes. Run does it again and
// again for every sale in use.
func (r *Relay) Pass(ctx context.Context, sale engine.SaleID) (Counts, error) {
	return r.relay(ctx, sale, Age)
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
		return r.cfg.Now().UnixMilli(), nil
	}
	return 0, err
}

// publish sends entries, some at a time, and marks those confirmed.
func (r *Relay) publish(ctx context.Context, o outbox, entries []stock.Entry) (int, error) {
	var b batch
	if r.cfg.InFlight == 1 {
		for i := range entries {
			if b.stopped() {
				break
			}
			b.add(&entries[i], r.publishOne(ctx, o.sale, entries[i].Body))
		}
	} else {
		r.publishSome(ctx, o.sale, entries, &b)
	}
	confirmed, failed := b.confirmed, b.failed
	if len(confirmed) > 0 {
		failpoint.Hit("relay/after-confirm")
		if err := r.cfg.Stock.Mark(ctx, o.sale, o.epoch, confirmed); err != nil {
			return 0, err // they are published once more: harmless
		}
		failpoint.Hit("relay/after-mark")
		r.meter.published.Add(float64(len(confirmed)))
		r.log.Info("published what was left in the outbox", "sale", o.sale, "epoch", o.epoch, "entries", len(confirmed))
	}
	return len(confirmed), failed
}

// publishSome sends entries, at most Config.InFlight at a time, and returns when all
// that were sent have ended.
func (r *Relay) publishSome(ctx context.Context, sale engine.SaleID, entries []stock.Entry, b *batch) {
	var wg sync.WaitGroup
	next := make(chan *stock.Entry)
	for range min(r.cfg.InFlight, len(entries)) {
		wg.Go(func() {
			for e := range next {
				b.add(e, r.publishOne(ctx, sale, e.Body))
			}
		})
	}
	for i := range entries {
		if b.stopped() {
			break
		}
		next <- &entries[i]
	}
	close(next)
	wg.Wait()
}

// batch is what became of entries.
type batch struct {
	mu        sync.Mutex
	confirmed []int64
	failed    error // the first
}

func (b *batch) add(e *stock.Entry, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err == nil {
		b.confirmed = append(b.confirmed, e.ID)
	} else if b.failed == nil {
		b.failed = err
	}
}

// stopped tells whether one failed: what is wrong with one is wrong with all, the
// broker.
func (b *batch) stopped() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.failed != nil
}

func (r *Relay) publishOne(ctx context.Context, sale engine.SaleID, body []byte) error {
	ctx, cancel := context.WithTimeout(ctx, confirmTime)
	defer cancel()
	failpoint.Hit("relay/before-publish")
	return r.cfg.Publisher.Publish(ctx, sale, body)
}

var _ Publisher = (*queue.Publisher)(nil)
