package payment

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/doorbuster/doorbuster/engine"
	"github.com/doorbuster/doorbuster/engine/orders"
	"github.com/doorbuster/doorbuster/stock"
)

const (
	// takeTimeout bounds one try to take a group again: a Redis that is silent is one
	// that is away, and the group is set aside.
	takeTimeout = 2 * time.Second
	// parkTold is how often a lane says that it sets orders of a sale aside.
	parkTold = 30 * time.Second
)

var errFrozen = errors.New("the sale is frozen: its rebuild is under way")

// retake takes stale orders again, under their own ids, through the stock script of
// the present epoch, and writes them under the hold they got, in that epoch. Only
// a refusal of the script cancels one. What cannot be taken now (the sale is frozen,
// its epoch moves, Redis is away) is set aside in PostgreSQL, so that the orders of
// other sales go on. It returns false if it had to stop before all of them were either.
func (in *ingester) retake(sale engine.SaleID, stale []engine.Order) bool {
	for len(stale) > 0 {
		n := min(len(stale), engine.MaxGroup)
		left, ok, err := in.retakeGroup(sale, stale[:n])
		if !ok {
			return false
		}
		if err != nil {
			in.failed(err)
			return in.park(sale, stale, err)
		}
		stale = append(left, stale[n:]...)
	}
	return true
}

// park sets orders aside. It waits for PostgreSQL as long as it takes.
func (in *ingester) park(sale engine.SaleID, stale []engine.Order, cause error) bool {
	if now := time.Now(); now.Sub(in.told[sale]) > parkTold {
		in.told[sale] = now
		in.w.log.Warn("orders set aside until their sale can take them again", "sale", sale, "orders", len(stale), "err", cause)
	}
	for group := range slices.Chunk(stale, engine.MaxGroup) {
		if !in.until(in.timed(func(ctx context.Context) error { return in.w.cfg.Orders.Park(ctx, sale, group) })) {
			return false
		}
		in.w.m.parked.Add(float64(len(group)))
	}
	return true
}

// retakeGroup tries once. left are those that are stale still; ok is false if the loop
// has to stop; on an error nothing is known to be written.
func (in *ingester) retakeGroup(sale engine.SaleID, group []engine.Order) (left []engine.Order, ok bool, err error) {
	arrivals, epoch, err := in.takeAgain(sale, group)
	if err != nil {
		return nil, true, err
	}
	wr, ok := in.write(sale, arrivals)
	if !ok {
		return nil, false, nil
	}
	if wr.moved {
		// A cut came between the take and the commit. The new epoch does not
		// know this hold, unless the outbox entry was ingested before the
		// cut: then the order is known and the next try finds it so.
		return nil, true, orders.ErrEpochMoved
	}
	if len(wr.stale) == len(group) {
		return nil, true, orders.ErrEpochMoved // no step forward: not in a circle
	}
	if in.decision.First != 0 {
		// The order is in PostgreSQL, so nobody needs the entry. If this
		// fails the relay publishes it, and it is found known.
		in.failed(in.timed(func(ctx context.Context) error {
			return in.w.cfg.Stock.Mark(ctx, sale, epoch, []int64{in.decision.First})
		})())
	}
	in.w.m.retaken.Add(float64(len(group) - len(wr.stale)))
	return wr.stale, true, nil
}

// takeAgain is one try to take a group of stale orders in the epoch that Redis
// serves now.
func (in *ingester) takeAgain(sale engine.SaleID, group []engine.Order) ([]orders.Arrival, int64, error) {
	ctx, cancel := in.w.within(in.work, takeTimeout)
	defer cancel()
	watch, err := in.w.cfg.Stock.Watch(ctx, sale, in.epochs[sale])
	if err != nil {
		return nil, 0, fmt.Errorf("take again in sale %s: %w", sale, err)
	}
	if watch.Frozen {
		return nil, 0, fmt.Errorf("take again in sale %s: %w", sale, errFrozen)
	}
	in.epochs[sale] = watch.Epoch
	baskets := make([]engine.Basket, len(group))
	for i := range group {
		baskets[i] = group[i].Basket
		baskets[i].Max, baskets[i].MaxIdentity = group[i].LimitBuyer, group[i].LimitIdentity // in force at its accept
	}
	if err := in.w.cfg.Stock.Retake(ctx, sale, watch.Grip, baskets, &in.decision); err != nil {
		return nil, 0, fmt.Errorf("take again in sale %s: %w", sale, err)
	}
	if len(in.decision.Verdicts) != len(group) {
		return nil, 0, fmt.Errorf("take again in sale %s: %d verdicts for %d orders", sale, len(in.decision.Verdicts), len(group))
	}
	arrivals := make([]orders.Arrival, len(group))
	for i := range group {
		arrivals[i] = again(group[i], &in.decision.Verdicts[i], watch.Epoch)
		if arrivals[i].Refused {
			in.w.m.retakeRefused.Inc()
		}
	}
	return arrivals, watch.Epoch, nil
}

// again says how an order that was taken again goes into PostgreSQL. Its accept
// and the limits that were in force then stay what they were.
func again(o engine.Order, v *stock.Verdict, epoch int64) orders.Arrival {
	a := orders.Arrival{Order: o, Epoch: epoch}
	switch v.Outcome {
	case engine.Accepted, engine.ReplayHeld: // held since an earlier try, or by a rebuild
		a.Retaken, a.Order.Hold = true, v.Hold
	default:
		a.Refused = true
	}
	return a
}
