package chaos

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/doorbuster/doorbuster/engine/backing"
	"github.com/doorbuster/doorbuster/loadtest/proxy"
)

const (
	staleFor = 700 * time.Millisecond // while the worker stands still, before the rebuild begins
	cutMost  = 30 * time.Second       // for recovery to have moved the epoch
)

// retakeCells harm the worker's link to Redis while it is used: the worker stands
// still, so that the rebuild which is forced then drains nothing; when it goes on, its
// queue is full of orders of the old epoch, and each must be taken again.
func retakeCells() (cells []*Cell) {
	l := link{worker, string(backing.Redis)}
	for _, t := range toxics {
		cells = append(cells, &Cell{
			Component: l.String(), Fault: t.fault, kind: "link", link: l, flows: true, lossy: true, hold: span{time.Second, 2 * time.Second},
			arm: ready,
			strike: func(ctx context.Context, h *house) (string, error) {
				proof, err := stopRole(worker)(ctx, h)
				if err != nil {
					return "", err
				}
				sale, _, err := h.orders.Sale(ctx, h.sale.ID)
				h.memory["epoch"], h.memory["stale"] = sale.Epoch, h.makeStale(ctx)
				return proof, err
			},
			heal: func(ctx context.Context, h *house) (string, error) { return healRetake(ctx, h, t) },
		})
	}
	return cells
}

// makeStale lets buyers fill the queue that nobody reads, and then forces a rebuild.
func (h *house) makeStale(ctx context.Context) <-chan error {
	done := make(chan error, 1)
	ctx = context.WithoutCancel(ctx)
	go func() {
		rest(ctx, staleFor)
		done <- h.rdb.ScriptFlush(ctx).Err()
	}()
	return done
}

// healRetake lets the worker go on once the epoch has moved, with its link harmed, and
// mends that after a while.
func healRetake(ctx context.Context, h *house, t toxic) (string, error) {
	stale, ok := h.memory["stale"].(<-chan error)
	if !ok {
		return "", nil
	}
	err := <-stale
	was := h.memory["epoch"].(int64)
	if err == nil {
		moved, stop := context.WithTimeoutCause(ctx, cutMost, errors.New("recovery did not move the epoch"))
		err = until(moved, func() bool {
			sale, st, err := h.orders.Sale(ctx, h.sale.ID)
			return err == nil && sale.Epoch > was && !st.Frozen
		})
		stop()
	}
	before := h.proxy.Hits()
	if t.is != proxy.HalfOpen {
		h.proxy.Set(t.is, t.delay)
	}
	_, cont := contRole(worker)(ctx, h)
	if t.is == proxy.HalfOpen { // it needs a connection first, and there is none until there is work for it
		used, stop := context.WithTimeout(ctx, sick.most)
		_ = until(used, func() bool { h.proxy.Set(t.is, 0); return h.proxy.Hits() > before })
		stop()
	}
	rest(ctx, h.within(sick))
	h.proxy.Set(proxy.Clean, 0)
	if err := errors.Join(err, cont); err != nil {
		return "", err
	}
	met := h.proxy.Hits() - before
	if met == 0 {
		return "", unproven("nothing passed the link meanwhile")
	}
	return fmt.Sprintf("epoch %d left with the worker's queue full; %d connections and reads met the toxic when it was taken again", was, met), nil
}
