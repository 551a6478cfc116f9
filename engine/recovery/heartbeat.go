package recovery

import (
	"context"
	"errors"
	"net"
	"time"

	"github.com/doorbuster/doorbuster/stock"
)

const (
	// beatEvery is how often the heartbeat is raised. A door's lease of 2 s bears
	// three that are missed.
	beatEvery = 500 * time.Millisecond

	// beatBudget is the most time between asking PostgreSQL for the epoch and the
	// beat that its answer allows. So a beat of a leader that was overtaken in
	// between reaches Redis at most this much after the lead changed hands: see
	// leaseWait.
	beatBudget = 500 * time.Millisecond
)

// The first heartbeats of an epoch follow one another quickly: a door that waits to sell
// needs to see the number rise once.
const (
	quickBeat = 100 * time.Millisecond // between them
	quickFor  = 500 * time.Millisecond // since the epoch was found sound
)

// word is PostgreSQL's: this process leads the sale, and this is its epoch, not
// frozen. It allows one heartbeat, until then.
type word struct {
	epoch int64
	until time.Time // on the local clock
}

// allow passes a word on; one that was not used yet is forgotten. It never waits.
func (k *keeper) allow(w word) {
	select {
	case <-k.words:
	default:
	}
	k.words <- w // only this goroutine sends
}

// pulse raises the sale's heartbeat with each word. Each sale has a goroutine for
// it, so that one whose Redis is silent delays no other.
func (k *keeper) pulse(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case w := <-k.words:
			if k.beat(ctx, w) && k.age(w.epoch) < quickFor && sleep(ctx, quickBeat, nil) {
				nudge(k.r.woke)
			}
		}
	}
}

// beat raises the heartbeat if the keeper finds the sale sound in that epoch.
func (k *keeper) beat(ctx context.Context, w word) bool {
	k.r.lock(&k.beating) // hush waits for a beat on its way
	defer k.beating.Unlock()
	left := w.until.Sub(k.r.now())
	if left <= 0 || k.view().fence.Epoch != w.epoch {
		return false
	}
	ctx, cancel := k.r.within(ctx, left)
	defer cancel()
	err := k.r.cfg.Pulse.Beat(ctx, k.sale, w.epoch)
	if errors.Is(err, stock.ErrNoSale) {
		nudge(k.doubt)
		return false // no door saw it: the wait for leases does not begin anew
	}
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
	k.r.lock(&k.beating)
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
