package recovery

import (
	"context"
	"sync/atomic"
	"time"
)

const (
	scoutEvery  = 100 * time.Millisecond // between looks for moves, of all sales together
	scoutSoon   = 20 * time.Millisecond  // while there were moves lately
	scoutActive = 10 * time.Second       // lately
	scoutRest   = 4                      // times as long as a look took is rested at least
)

// scout looks which sales have moves, by one statement for all of them: an idle sale
// costs PostgreSQL nothing, whatever the number of sales. Their appliers look for
// themselves only every applyPoll.
type scout struct{ last atomic.Int64 } // Unix ns by the local clock: moves were applied

// found says that moves were applied. Rows that cannot be are no reason for haste.
func (s *scout) found(now time.Time) { s.last.Store(now.UnixNano()) }

func (s *scout) pause(now time.Time, took time.Duration) time.Duration {
	every := scoutEvery
	if now.UnixNano()-s.last.Load() < int64(scoutActive) {
		every = scoutSoon
	}
	return max(every, scoutRest*took)
}

// scouting wakes the appliers of those sales that have moves and are led here, until
// ctx ends.
func (r *Recovery) scouting(ctx context.Context) {
	say := outage{log: r.log, what: "moves cannot be looked for; each sale looks by itself, seldom"}
	for {
		began := r.now()
		say.tell(ctx, r.scoutOnce(ctx))
		now := r.now()
		if !sleep(ctx, r.scout.pause(now, now.Sub(began)), nil) {
			return
		}
	}
}

func (r *Recovery) scoutOnce(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	sales, err := r.cfg.Orders.SalesWithMoves(ctx)
	for _, sale := range sales {
		r.Nudge(sale)
	}
	return err
}
