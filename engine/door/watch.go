package door

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/doorbuster/doorbuster/engine"
	"github.com/doorbuster/doorbuster/stock"
)

const (
	watchPace    = 50 * time.Millisecond
	calmPace     = 500 * time.Millisecond // of a sale that is only looked at
	calmAfter    = int64(10 * time.Second)
	watchTimeout = time.Second
)

// watch reads the sale until nobody has asked for it in a while, or the door
// stops.
func (s *sale) watch() {
	d := s.door
	s.tick(d.ctx)
	<-d.sales.cold
	close(s.ready)
	timer := time.NewTimer(watchPace)
	defer timer.Stop()
	for {
		if v := s.view.Load(); v != nil && v.missing {
			return // stays in the table a moment, to answer the next ones
		}
		select {
		case <-timer.C:
		case <-s.kick:
		case <-d.ctx.Done():
			s.startMarks()
			return
		}
		s.tick(d.ctx)
		s.startMarks()
		now := d.clock()
		if now-s.used.Load() > idleAfter && s.lane.quiet() &&
			d.sales.drop(s, func() bool { return d.clock()-s.used.Load() > idleAfter }) {
			return
		}
		timer.Reset(s.pace(now))
	}
}

// pace is how long the watch waits for its next read. Only order requests need
// the quick one; a sale that is merely looked at keeps its lease with the slow.
func (s *sale) pace(now int64) time.Duration {
	calm := now-s.busy.Load() > calmAfter
	s.calm.Store(calm)
	if calm {
		return calmPace
	}
	return watchPace
}

// hurry notes an order request and brings the watch to its full pace.
func (s *sale) hurry(now int64) {
	if now-s.busy.Load() > usedEvery {
		s.busy.Store(now)
	}
	if s.calm.Load() {
		select {
		case s.kick <- struct{}{}:
		default:
		}
	}
}

// tick reads the sale once. It never fails: what the door may do without a read
// ends by itself.
func (s *sale) tick(ctx context.Context) {
	s.door.lock(&s.reading)
	defer s.reading.Unlock()
	d, old := s.door, s.view.Load()
	var epoch int64
	if old != nil {
		epoch = old.Epoch
	}
	sent := d.clock()
	ctx, cancel := d.within(ctx, watchTimeout)
	w, err := d.cfg.Stock.Watch(ctx, s.id, epoch)
	cancel()
	got := d.clock()
	if err != nil {
		s.unread(old, err, got)
		return
	}
	if len(w.Items) > engine.MaxItems {
		w.Items = w.Items[:engine.MaxItems]
	}
	key, err := s.orderKey(int(w.KeyNumber))
	if err != nil {
		s.unread(old, err, got)
		return
	}
	if s.failing {
		s.failing = false
		d.log.Info("the watch of a sale is back", "sale", s.id, "epoch", w.Epoch)
	}
	s.lookDurable(d.ctx, &w)
	v := newView(w, key, sent, got)
	if d.steps == nil { // else nobody asks for it
		v.page = appendPage(make([]byte, 0, pageSize(len(w.Items))), s.id, v, false)
	}
	s.view.Store(v)
	// A paused sale sells nothing, and recovery alone lets it go on: so an operator who
	// sets the clock right need not wait for what is judged already.
	if old != nil && !old.missing && v.State != engine.SalePaused && old.leapt(v) {
		d.log.Error("Redis' clock leapt: the sale stands still until recovery has judged it", "sale", s.id, "for", leapDoubt,
			"was", time.UnixMilli(old.Now).UTC(), "is", time.UnixMilli(v.Now).UTC())
		s.lease.fence(got + int64(leapDoubt))
	}
	if s.lease.read(&v.Watch, sent) {
		select {
		case <-s.leased:
		default:
			close(s.leased)
		}
	}
}

// unread deals with a read that failed.
func (s *sale) unread(old *view, err error, now int64) {
	d := s.door
	if d.ctx.Err() != nil {
		return // the door stops
	}
	if errors.Is(err, stock.ErrNoSale) && old == nil {
		s.view.Store(&view{missing: true, got: now})
		return
	}
	if errors.Is(err, stock.ErrNoSale) || errors.Is(err, stock.ErrFenced) {
		s.lease.fence(now)
	}
	d.metrics.watchFailures.Inc()
	if !s.failing {
		s.failing = true
		d.log.Warn("the watch of a sale fails", "sale", s.id, "error", err)
	}
	if old != nil && now-old.sent > leaseFor && !s.lease.holds(old.Epoch, now) {
		gone := *old
		gone.page = appendPage(make([]byte, 0, pageSize(len(old.Items))), s.id, old, true)
		s.view.CompareAndSwap(old, &gone)
	}
}

// orderKey derives the sale's id key once.
func (s *sale) orderKey(number int) (*engine.OrderKey, error) {
	if s.keys.key != nil && s.keys.number == number {
		return s.keys.key, nil
	}
	master, ok := s.door.cfg.OrderKeys[number]
	if !ok {
		return nil, fmt.Errorf("order id master key %d is not configured", number)
	}
	key, err := engine.NewOrderKey(master, number, s.id)
	if err != nil {
		return nil, err
	}
	s.keys = keys{number: number, key: key}
	return key, nil
}
