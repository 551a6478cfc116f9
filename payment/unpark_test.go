package payment_test

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/doorbuster/doorbuster/engine"
	"github.com/doorbuster/doorbuster/engine/orders"
	"github.com/doorbuster/doorbuster/payment"
	"github.com/doorbuster/doorbuster/payment/provider"
	"github.com/doorbuster/doorbuster/stock"
)

// partlySilent is a shelf one of whose Redis shards takes every question and answers
// none, until it is awake.
type partlySilent struct {
	*shelf
	awake atomic.Bool
}

func (s *partlySilent) Watch(ctx context.Context, sale engine.SaleID, epoch int64) (stock.Watch, error) {
	if !s.awake.Load() && strings.HasPrefix(string(sale), "silent") {
		<-ctx.Done()
		return stock.Watch{}, ctx.Err()
	}
	return s.shelf.Watch(ctx, sale, epoch)
}

// asideOf parks an envelope of one order.
func (h *house) asideOf(sale engine.SaleID, n int) {
	h.nextTask++
	h.parked = append(h.parked, orders.Parked{
		ID: h.nextTask, Sale: sale,
		Body: engine.AppendEnvelope(nil, &engine.Envelope{Sale: sale, Orders: []engine.Order{order(n, 1)}}),
	})
}

// The parked orders of sales whose Redis is silent keep no other sale's waiting, however
// many they are; and when Redis answers again they are taken, all of them.
func TestSilentShardHoldsUpNoOtherSalesParkedOrders(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const silent, each, fresh = 10, 30, 40
		h, s := newHouse(), &partlySilent{shelf: newShelf(2)}
		h.epoch = 2
		for i := range each {
			for n := range silent {
				h.asideOf(engine.SaleID(fmt.Sprint("silent-", n)), 1+n*each+i)
			}
		}
		for i := range fresh {
			h.asideOf(engine.SaleID(fmt.Sprint("lively-", i%2)), 1001+i)
		}
		w, err := payment.New(payment.Config{
			Orders: h, Stock: s, Ledger: h, Providers: map[string]provider.Provider{"p": provider.NewInstant()},
			Source: newPipe().source,
		})
		must(t, err)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- w.Run(ctx) }()
		time.Sleep(time.Second)
		synctest.Wait()
		h.mu.Lock()
		if n := len(h.rows); n != fresh {
			t.Errorf("%d orders of the lively sales were taken again in a second, want %d", n, fresh)
		}
		if n := len(h.parked); n != silent*each {
			t.Errorf("%d envelopes are set aside, want %d", n, silent*each)
		}
		h.mu.Unlock()

		s.awake.Store(true)
		time.Sleep(7 * time.Second) // a try that hangs, its sale's rest, a lease
		synctest.Wait()
		h.mu.Lock()
		if n, left := len(h.rows), len(h.parked); n != fresh+silent*each || left != 0 {
			t.Errorf("after Redis came back %d orders were taken again, want %d; %d are set aside", n, fresh+silent*each, left)
		}
		h.mu.Unlock()
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}
