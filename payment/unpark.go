package payment

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/doorbuster/doorbuster/engine"
	"github.com/doorbuster/doorbuster/engine/orders"
)

// What was set aside is taken again sale by sale, of some sales at once. One try may
// take takeTimeout, and one after the other the orders of every other sale would wait
// for as long, for each envelope of a sale whose Redis is silent.
const (
	// parkLease is how long one worker has for a parked envelope, and so how soon it
	// is tried again.
	parkLease = 5 * time.Second
	parkPoll  = 250 * time.Millisecond
	// maxTakers bounds the sales that are tried at once.
	maxTakers = 16
	// parkRest is how long a sale that could not take its orders again is let be, so
	// that many silent ones do not keep all takers.
	parkRest = time.Second
)

// takers take parked orders again, at most one of them at work on a sale.
type takers struct {
	w     *Worker
	stop  context.Context //nolint:containedctx // as ingester's
	work  context.Context //nolint:containedctx // as ingester's
	idle  chan *ingester
	ended chan struct{} // one slot: one has ended, so there may be more to do
	busy  sync.WaitGroup

	mu   sync.Mutex
	rest map[engine.SaleID]time.Time // by sale: not before. Zero while one is at it
	told map[engine.SaleID]time.Time // when it was logged that one cannot
}

func (w *Worker) newTakers(stop, work context.Context) *takers {
	t := &takers{
		w: w, stop: stop, work: work, idle: make(chan *ingester, maxTakers),
		ended: make(chan struct{}, 1), rest: make(map[engine.SaleID]time.Time), told: make(map[engine.SaleID]time.Time),
	}
	for range maxTakers {
		t.idle <- w.newIngester(stop, work)
	}
	return t
}

// loop works until stop ends and all takers have ended.
func (t *takers) loop() {
	defer t.busy.Wait()
	p := t.w.pace("parked")
	for t.wait() {
		for more := true; more && t.stop.Err() == nil; {
			var err error
			more, err = t.next(p.limit())
			p.met(t.stop, err)
			more = more && err == nil
		}
	}
}

// wait returns when a taker has ended, or it is time for a poll; false if stop ended.
func (t *takers) wait() bool {
	timer := time.NewTimer(jitter(parkPoll))
	defer timer.Stop()
	select {
	case <-t.ended:
	case <-timer.C:
	case <-t.stop.Done():
		return false
	}
	return true
}

// next gives the next envelope to a taker, if there are both.
func (t *takers) next(limit time.Duration) (found bool, err error) {
	var in *ingester
	select {
	case in = <-t.idle:
	default:
		return false, nil
	}
	ctx, cancel := t.w.within(t.work, limit)
	p, found, err := t.w.cfg.Orders.Parked(ctx, parkLease, t.taken())
	cancel()
	if err != nil || !found {
		t.idle <- in
		return false, err
	}
	t.mu.Lock()
	t.rest[p.Sale] = time.Time{}
	t.mu.Unlock()
	t.busy.Go(func() {
		defer t.end(in)
		t.rested(p.Sale, in.unpark(p))
	})
	return true, nil
}

// taken returns the sales that are being worked on, or rest.
func (t *takers) taken() []engine.SaleID {
	t.mu.Lock()
	defer t.mu.Unlock()
	taken := make([]engine.SaleID, 0, len(t.rest))
	for sale, until := range t.rest {
		if !until.IsZero() && !time.Now().Before(until) {
			delete(t.rest, sale)
			continue
		}
		taken = append(taken, sale)
	}
	return taken
}

// rested notes how the work on a sale ended. An envelope that cannot be read says
// nothing about the others of its sale.
func (t *takers) rested(sale engine.SaleID, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	delete(t.rest, sale)
	if err == nil {
		delete(t.told, sale)
		return
	}
	if !errors.Is(err, engine.ErrFormat) {
		t.rest[sale] = now.Add(parkRest)
	}
	if now.Sub(t.told[sale]) > parkTold {
		t.told[sale] = now
		t.w.log.Warn("orders that were set aside wait", "sale", sale, "err", err)
	}
}

func (t *takers) end(in *ingester) {
	t.idle <- in
	select {
	case t.ended <- struct{}{}:
	default:
	}
}

// unparkOnce takes one parked envelope again, of whatever sale.
func (in *ingester) unparkOnce() (found bool, err error) {
	ctx, cancel := in.w.within(in.work, firstLimit)
	p, found, err := in.w.cfg.Orders.Parked(ctx, parkLease, nil)
	cancel()
	if err != nil || !found {
		return false, err
	}
	return true, in.unpark(p)
}

// unpark takes a parked envelope again. What fails stays parked.
func (in *ingester) unpark(p orders.Parked) error {
	env, bad, err := engine.ParseEnvelope(p.Body)
	if err != nil || len(bad) > 0 {
		err = fmt.Errorf("parked envelope %d of sale %s cannot be read by this version (%d lines): %w",
			p.ID, p.Sale, len(bad), errors.Join(err, engine.ErrFormat))
		in.failed(err)
		return err
	}
	for stale := env.Orders; len(stale) > 0; {
		left, ok, err := in.retakeGroup(p.Sale, stale)
		if err != nil || !ok {
			in.failed(err)
			return err
		}
		stale = left
	}
	if !in.until(in.timed(func(ctx context.Context) error { return in.w.cfg.Orders.Unpark(ctx, p.ID) })) {
		return in.stop.Err()
	}
	return nil
}
