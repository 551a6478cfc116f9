package recovery

import (
	"context"
	"fmt"
	"time"

	"github.com/doorbuster/doorbuster/engine/queue"
)

const (
	lagSamples = 600 // one a second: the longest lag that is told
	lagGrain   = 100 // milliseconds; smaller changes are not written
)

// lagger tells the doors how far the ingest is behind, as the age of the oldest
// accept that PostgreSQL has not received. It is read from sequence numbers: an
// accept is given out by Redis at some probe and known to PostgreSQL at a later
// one. What never arrives (a rejected order, an entry that only the sweep brings)
// must not count for ever, or the doors would close on an idle queue: so when the
// ingest has stood still for stallMost and nothing is in its queue, the lag
// begins again at 0.
type lagger struct {
	k       *keeper
	epoch   int64
	samples []sample // by time, seq rising
	done    int64    // highest seq that PostgreSQL knew
	moved   int64    // ms by Redis' clock: when that last rose
}

// stallMost is how long the ingest may stand still before what it waits for is
// no longer taken as lag: by then the sweep looks after it.
const stallMost = sweepAge + 2*sweepEvery

type sample struct{ seq, at int64 }

// measure takes a sample and returns the lag.
func (l *lagger) measure(ctx context.Context, v *view) time.Duration {
	seq, now := v.watch.Seq, v.watch.Now
	if l.epoch != v.fence.Epoch {
		*l = lagger{k: l.k, epoch: v.fence.Epoch, done: v.fence.Seq, moved: now}
	}
	if v.fence.Seq > l.done || seq == l.done {
		l.done, l.moved = max(l.done, v.fence.Seq), now
	}
	if n := len(l.samples); n == 0 || l.samples[n-1].seq < seq {
		l.samples = append(l.samples, sample{seq, now})
	}
	keep := 0 // the first sample that has seqs PostgreSQL lacks
	for keep < len(l.samples) && l.samples[keep].seq <= l.done {
		keep++
	}
	keep = max(keep, len(l.samples)-lagSamples)
	l.samples = append(l.samples[:0], l.samples[keep:]...)
	if len(l.samples) == 0 {
		return 0
	}
	if now-l.moved > stallMost.Milliseconds() && l.queueEmpty(ctx) {
		l.samples, l.done, l.moved = l.samples[:0], seq, now
		return 0
	}
	return time.Duration(max(0, now-l.samples[0].at)) * time.Millisecond
}

// caughtUp tells whether nothing is on its way: PostgreSQL knew all that Redis has
// given out by seq, when it was last asked.
func (l *lagger) caughtUp(epoch, seq int64) bool { return l.epoch == epoch && l.done == seq }

func (l *lagger) queueEmpty(ctx context.Context) bool {
	if l.k.r.cfg.Depth == nil {
		return true
	}
	ready, err := l.k.r.cfg.Depth(ctx, queue.IngestQueue(l.k.sale))
	return err == nil && ready == 0
}

// runOnce writes the lag to the state hash if that says another. It returns it. What was
// written last is no guide: a write that was given up may come after a later one, and an
// old lag that stays would keep the doors closed.
func (l *lagger) runOnce(ctx context.Context, v *view) (time.Duration, error) {
	l.k.meter.lag.Set(v.lag.Seconds())
	ms := v.lag.Milliseconds()
	if diff := ms - v.watch.Lag; diff == 0 || (ms != 0 && diff > -lagGrain && diff < lagGrain) {
		return v.lag, nil
	}
	if err := l.k.r.cfg.Stock.SetLag(ctx, l.k.sale, v.watch.Grip, ms); err != nil {
		return v.lag, fmt.Errorf("write the ingest lag: %w", err)
	}
	return v.lag, nil
}
