package payment

import (
	"context"
	"sync"
	"time"

	"github.com/doorbuster/doorbuster/engine"
	"github.com/doorbuster/doorbuster/engine/orders"
)

// A batch is leased for payLease, so that a payer who dies keeps nobody waiting for
// long; one who works on it says so before the lease ends. If that fails, another takes
// the batch as well, under the same keys: that costs calls, and charges nobody twice.

// renewEvery leaves two tries within a lease.
const renewEvery = payLease / 3

// claimed is a batch that ingest hands to a payer.
type claimed struct {
	batch []orders.Payable
	at    time.Time
}

// payInHand pays a batch that waited for a payer, unless its lease is over: then a
// poll takes it, or has.
func (w *Worker) payInHand(ctx context.Context, c claimed) {
	switch waited := w.cfg.Now().Sub(c.at); {
	case waited >= payLease:
		return
	case waited >= renewEvery:
		if w.later(ctx, c.batch[0].Sale, ids(c.batch), payLease) != nil {
			return
		}
	}
	_ = w.pay(ctx, c.batch) // given up: its lease ends, and a poll takes it
}

// lease is held on the orders of a batch that have not ended.
type lease struct {
	mu   sync.Mutex
	open map[engine.OrderID]bool
	end  context.CancelFunc
	done chan struct{}
}

// holdLease renews the lease of a batch until stop. Nearly always it ends before there
// was anything to renew.
func (w *Worker) holdLease(ctx context.Context, batch []orders.Payable) *lease {
	ctx, end := context.WithCancel(ctx)
	l := &lease{open: make(map[engine.OrderID]bool, len(batch)), end: end, done: make(chan struct{})}
	for i := range batch {
		l.open[batch[i].Order] = true
	}
	sale := batch[0].Sale
	if w.steps != nil { // nobody renews it: what takes longer is taken by another as well
		close(l.done)
		return l
	}
	go func() {
		defer close(l.done)
		tick := time.NewTicker(renewEvery)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				_ = w.later(ctx, sale, l.left(), payLease) // then the lease ends
			}
		}
	}()
	return l
}

func (l *lease) left() []engine.OrderID {
	l.mu.Lock()
	defer l.mu.Unlock()
	left := make([]engine.OrderID, 0, len(l.open))
	for id := range l.open {
		left = append(left, id)
	}
	return left
}

// release gives up the lease on those that have ended, or are deferred.
func (l *lease) release(ended []attempt) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range ended {
		delete(l.open, ended[i].Order)
	}
}

func (l *lease) stop() { l.end(); <-l.done }
