package payment_test

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/doorbuster/doorbuster/engine"
	"github.com/doorbuster/doorbuster/payment"
	"github.com/doorbuster/doorbuster/payment/provider"
	"github.com/doorbuster/doorbuster/stock"
)

// storm is a shelf whose sale accepts so many orders a second.
type storm struct {
	*shelf
	rate  atomic.Int64
	began time.Time
}

func (s *storm) Watch(ctx context.Context, sale engine.SaleID, epoch int64) (stock.Watch, error) {
	w, err := s.shelf.Watch(ctx, sale, epoch)
	w.Now = time.Now().UnixMilli()
	w.Seq = s.rate.Load() * time.Since(s.began).Milliseconds() / 1000
	return w, err
}

// While its sale storms, a batch is held until its orders are eight seconds old; it
// goes on at once when the storm is over, when the sale is slower, when its orders
// are old already, and when nobody asked the worker to give way.
func TestGivesWay(t *testing.T) {
	for name, c := range map[string]struct {
		greedy bool
		rate   int64         // orders a second
		lasts  time.Duration // of the storm
		old    time.Duration // age of the orders
		from   time.Duration // the second batch is ingested from then on, and soon after
	}{
		"storm":         {rate: 20_000, lasts: time.Hour, from: 8200 * time.Millisecond},
		"storm ends":    {rate: 20_000, lasts: 450 * time.Millisecond, from: 500 * time.Millisecond},
		"slow":          {rate: 9000, lasts: time.Hour, from: 200 * time.Millisecond},
		"old orders":    {rate: 20_000, lasts: time.Hour, old: 9 * time.Second, from: 200 * time.Millisecond},
		"greedy worker": {rate: 20_000, lasts: time.Hour, from: 200 * time.Millisecond, greedy: true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h, q, s := newHouse(), newPipe(), &storm{shelf: newShelf(1), began: time.Now()}
				s.rate.Store(c.rate)
				w, err := payment.New(payment.Config{
					Orders: h, Stock: s, Ledger: h, Providers: map[string]provider.Provider{"p": provider.NewInstant()},
					Source: q.source, GiveWay: !c.greedy,
				})
				if err != nil {
					t.Fatal(err)
				}
				ctx, cancel := context.WithCancel(t.Context())
				ended := make(chan error, 1)
				go func() { ended <- w.Run(ctx) }()
				acked := func() int {
					synctest.Wait()
					q.mu.Lock()
					defer q.mu.Unlock()
					return q.acked
				}

				q.publish(agedEnvelope(1, c.old))
				time.Sleep(200 * time.Millisecond)
				if n := acked(); n != 1 {
					t.Errorf("first batch: %d acknowledged, want 1: nothing is known of the sale yet", n)
				}
				q.publish(agedEnvelope(101, c.old))
				if rest := c.from - time.Since(s.began) - time.Millisecond; rest > 0 {
					time.AfterFunc(c.lasts-time.Since(s.began), func() { s.rate.Store(0) })
					time.Sleep(rest)
					if n := acked(); n != 1 {
						t.Errorf("%d acknowledged before %v, want 1", n, c.from)
					}
				}
				time.Sleep(120 * time.Millisecond) // one more look
				if n := acked(); n != 2 {
					t.Errorf("%d acknowledged soon after %v, want 2", n, c.from)
				}
				cancel()
				if err := <-ended; err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// mutes is a shelf whose Redis takes every question and answers none.
type mutes struct{ *shelf }

func (mutes) Watch(ctx context.Context, _ engine.SaleID, _ int64) (stock.Watch, error) {
	<-ctx.Done()
	return stock.Watch{}, ctx.Err()
}

// A worker that gives way does not wait for a Redis that is silent: what it ingests
// before a rebuild's cut need not be taken again.
func TestGivingWayDoesNotWaitForRedis(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, q := newHouse(), newPipe()
		w, err := payment.New(payment.Config{
			Orders: h, Stock: mutes{newShelf(1)}, Ledger: h, Providers: map[string]provider.Provider{"p": provider.NewInstant()},
			Source: q.source, GiveWay: true,
		})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- w.Run(ctx) }()
		for n := range 3 {
			q.publish(agedEnvelope(100*n+1, 0))
			synctest.Wait() // the first is a batch of its own
		}
		time.Sleep(time.Second)
		synctest.Wait()
		q.mu.Lock()
		if q.acked != 3 {
			t.Errorf("%d of 3 acknowledged after a second", q.acked)
		}
		q.mu.Unlock()
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// agedEnvelope is ten orders that were accepted some time ago.
func agedEnvelope(from int, old time.Duration) []byte {
	e := engine.Envelope{Sale: "drop"}
	for i := range 10 {
		o := order(from+i, 1)
		o.AcceptedAt -= old.Milliseconds()
		e.Orders = append(e.Orders, o)
	}
	return engine.AppendEnvelope(nil, &e)
}
