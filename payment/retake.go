package payment

import (
	"errors"
	"fmt"

	"github.com/doorbuster/doorbuster/engine"
	"github.com/doorbuster/doorbuster/engine/orders"
	"github.com/doorbuster/doorbuster/stock"
)

var errFrozen = errors.New("the sale is frozen: its rebuild is under way")

// retake takes stale orders again, under their own ids, through the stock script of
// the present epoch, and writes them under the hold they got, in that epoch. Only
// a refusal of the script cancels one. It returns false if it had to stop before
// all of them were committed.
func (in *ingester) retake(sale engine.SaleID, stale []engine.Order) bool {
	for len(stale) > 0 {
		group := stale[:min(len(stale), engine.MaxGroup)]
		var arrivals []orders.Arrival
		var epoch int64
		if !in.until(func() (err error) { arrivals, epoch, err = in.takeAgain(sale, group); return err }) {
			return false
		}
		wr, ok := in.write(sale, arrivals)
		if !ok {
			return false
		}
		if wr.moved {
			// A cut came between the take and the commit. The new epoch does not
			// know this hold, unless the outbox entry was ingested before the
			// cut: then the order is known and the next try finds it so.
			in.failed(orders.ErrEpochMoved)
			if !in.p.met(in.stop, orders.ErrEpochMoved) {
				return false
			}
			continue
		}
		if in.decision.First != 0 {
			// The order is in PostgreSQL, so nobody needs the entry. If this
			// fails the relay publishes it, and it is found known.
			in.failed(in.w.cfg.Stock.Mark(in.work, sale, epoch, []int64{in.decision.First}))
		}
		in.w.m.retaken.Add(float64(len(group) - len(wr.stale)))
		stale = append(wr.stale, stale[len(group):]...)
	}
	return true
}

// takeAgain is one try to take a group of stale orders in the epoch that Redis
// serves now.
func (in *ingester) takeAgain(sale engine.SaleID, group []engine.Order) ([]orders.Arrival, int64, error) {
	watch, err := in.w.cfg.Stock.Watch(in.work, sale, in.epochs[sale])
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
		baskets[i].Max = group[i].LimitBuyer // in force at its accept
	}
	if err := in.w.cfg.Stock.Retake(in.work, sale, watch.Grip, baskets, &in.decision); err != nil {
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
