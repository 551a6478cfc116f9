package recovery

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"

	"github.com/doorbuster/doorbuster/engine/orders"
)

const (
	// beatEvery is how often the heartbeat is raised. A door's lease of 2 s bears
	// three that are missed.
	beatEvery = 500 * time.Millisecond

	// beatBudget is the most time between asking PostgreSQL for the epoch and the
	// beat that its answer allows. A beat of a leader that was frozen out in
	// between reaches Redis at most this much later: see leaseWait.
	beatBudget = 500 * time.Millisecond

	beatWorkers = 8 // sales at once
)

// beat raises the heartbeat of every sale that is led here, that its keeper finds
// sound, and whose epoch PostgreSQL has just confirmed.
func (r *Recovery) beat(ctx context.Context, fences []orders.Fence) int {
	var (
		wg   sync.WaitGroup
		mu   sync.Mutex
		n    int
		next = make(chan beatOf)
	)
	for range min(beatWorkers, len(fences)) {
		wg.Go(func() {
			for b := range next {
				if b.k.beat(ctx, b.f) {
					mu.Lock()
					n++
					mu.Unlock()
				}
			}
		})
	}
	for _, f := range fences {
		if k := r.keeper(f.Sale); k != nil {
			k.meter.beatAge(r.now().Sub(k.beaten()))
			if f.Epoch > 0 && !f.Frozen {
				next <- beatOf{k, f}
			}
		}
	}
	close(next)
	wg.Wait()
	return n
}

type beatOf struct {
	k *keeper
	f orders.Fence
}

func (k *keeper) beat(ctx context.Context, f orders.Fence) bool {
	k.beating.Lock() // hush waits for a beat on its way
	defer k.beating.Unlock()
	if k.view().fence.Epoch != f.Epoch {
		return false
	}
	err := k.r.cfg.Stock.Beat(ctx, k.sale, f.Epoch)
	// It counts from when it returned, and also when it failed: the number may
	// have risen all the same, unless nobody was there to raise it.
	if !neverSent(err) {
		k.mu.Lock()
		k.lastBeat = k.r.now()
		k.mu.Unlock()
	}
	return err == nil
}

// hush ends the heartbeat: when it returns, no beat is on its way and the time
// of the last one is known.
func (k *keeper) hush() {
	k.setView(view{})
	k.beating.Lock()
	defer k.beating.Unlock()
}

// beaten is when the heartbeat was last raised by us, or when we began to lead.
func (k *keeper) beaten() time.Time {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.lastBeat
}

// neverSent tells whether a call failed because there was no connection to send
// it on.
func neverSent(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "dial"
}
