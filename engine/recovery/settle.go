package recovery

import (
	"context"
	"fmt"
	"time"

	"github.com/doorbuster/doorbuster/engine"
	"github.com/doorbuster/doorbuster/engine/orders"
)

const (
	// SettleAfter is how long a sale has been closed before it may be settled: what
	// was on its way when it closed has long come by then.
	SettleAfter = 10 * time.Minute

	// PruneAfter is how long a sale has been settled before the rows that told its
	// orders' ends go.
	PruneAfter = 7 * 24 * time.Hour

	// keepRetired is how long Redis keeps the records and counters of a settled sale
	// at least. Its state hash stays.
	keepRetired = 7 * 24 * time.Hour

	settleEvery = 10 * time.Second // between looks at a closed sale that is not at rest
	booksEvery  = time.Minute      // between looks for something to prune
	pruneRows   = 1000             // deleted in one transaction
	pruneMost   = 100              // transactions in a row
)

// settler ends the life of a sale that is closed and at rest: from then on nobody
// leads it, probes it or raises its heartbeat. Its slot says so, and a door needs
// no lease there to repeat how an order ended. A sale that wakes (orders.Store does
// that when it writes something that Redis must follow) is led again and rebuilt.
type settler struct {
	k    *keeper
	last time.Time
}

// rest is what tells whether a sale is at rest in Redis.
type rest struct {
	state  engine.SaleState
	since  time.Duration // it has been closed
	held   int64         // units
	epochs []int64       // with keys
	outbox int64         // entries
}

// settles decides. PostgreSQL is asked for its part when it is told.
func (s *rest) settles(epoch int64, after time.Duration) bool {
	return s.state == engine.SaleClosed && s.since >= after && s.held == 0 && s.outbox == 0 &&
		len(s.epochs) == 1 && s.epochs[0] == epoch
}

// runOnce settles a sale if that can be done. It returns whether it did.
func (s *settler) runOnce(ctx context.Context, v *view) (bool, error) {
	k, now := s.k, s.k.r.now()
	at := rest{state: v.def.State, since: v.asOf.Sub(v.since), held: heldIn(v), epochs: []int64{v.fence.Epoch}}
	if !at.settles(v.fence.Epoch, k.r.cfg.SettleAfter) || now.Sub(s.last) < settleEvery {
		return false, nil
	}
	s.last = now
	var err error
	if at.epochs, err = k.r.cfg.Stock.Epochs(ctx, k.sale); err != nil {
		return false, fmt.Errorf("settle: %w", err)
	}
	for _, epoch := range at.epochs {
		_, n, err := k.r.cfg.Stock.Outbox(ctx, k.sale, epoch, 1)
		if err != nil {
			return false, fmt.Errorf("settle: %w", err)
		}
		at.outbox += n
	}
	if !at.settles(v.fence.Epoch, k.r.cfg.SettleAfter) {
		return false, nil
	}
	// The slot is told before PostgreSQL commits. If it then does not, the next
	// probe finds a sale that is settled in Redis alone, and rebuilds it.
	keep := max(0, v.def.Closes.Add(v.def.ReplayWindow).Sub(v.asOf)) + keepRetired
	settled, err := k.orders.SettleSale(ctx, k.sale, v.fence.Epoch, orders.Note{Who: "recovery", Why: "closed and at rest"},
		func(ctx context.Context) error { return s.retire(ctx, v, keep) })
	if settled {
		k.log.Info("sale settled")
	}
	return settled, err
}

// retire tells the slot. If the server restarted since the probe, what was told is
// another state, or none: nobody looks after a settled sale, and so its doors would go
// by that for good.
func (s *settler) retire(ctx context.Context, v *view, keep time.Duration) error {
	if err := s.k.r.cfg.Stock.Retire(ctx, s.k.sale, v.fence.Epoch, keep); err != nil {
		return err
	}
	now, err := s.k.r.cfg.Stock.Server(ctx, s.k.sale)
	if err != nil {
		return err
	}
	if now != v.server {
		return errServer
	}
	return nil
}

// pruneBooks deletes, a little at a time, what PostgreSQL need not keep of sales
// settled long ago. Any process may, of any sale.
func (r *Recovery) pruneBooks(ctx context.Context) {
	say := outage{log: r.log, what: "settled sales cannot be pruned"}
	for sleep(ctx, jitter(booksEvery), nil) {
		_, err := r.pruneOnce(ctx)
		say.tell(ctx, err)
	}
}

// pruneOnce prunes a bounded number of rows, and rests as long as it worked. It
// returns how many it deleted.
func (r *Recovery) pruneOnce(ctx context.Context) (int, error) {
	sum := 0
	for range pruneMost {
		began := r.now()
		call, cancel := context.WithTimeout(ctx, callTime)
		n, err := r.cfg.Orders.PruneSettled(call, r.cfg.PruneAfter, pruneRows)
		cancel()
		if err != nil {
			return sum, err
		}
		if sum += n; n == 0 || !sleep(ctx, r.now().Sub(began), nil) {
			break
		}
	}
	return sum, nil
}
