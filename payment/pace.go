package payment

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"time"
)

// pace makes a loop wait while a service is down: longer each time, jittered, at
// most maxPause; and logs once when it goes and once when it is back. Not safe
// for concurrent use.
type pace struct {
	log   *slog.Logger
	stage string
	pause time.Duration // 0: all is well
	slow  int           // tries that ran out of time lately
	now   func() time.Time
	began time.Time // the try that is under way
	steps *Clock    // of Steps; nil: the real one
}

func (w *Worker) pace(stage string) *pace {
	return &pace{log: w.log, stage: stage, now: w.cfg.Now, steps: w.steps}
}

// met notes how a step ended, and waits if it failed. It returns false when ctx has
// ended.
func (p *pace) met(ctx context.Context, err error) bool {
	if err == nil {
		if p.pause > 0 {
			p.log.Info("payment goes on", "stage", p.stage)
		}
		if p.pause = 0; p.slow > 0 && p.now().Sub(p.began) < p.allowed()/2 {
			p.slow--
		}
		return ctx.Err() == nil
	}
	if ctx.Err() != nil {
		return false
	}
	if p.pause == 0 && !errors.Is(err, context.Canceled) {
		p.log.Warn("payment waits", "stage", p.stage, "err", err)
	}
	p.pause = min(max(2*p.pause, firstPause), maxPause)
	if errors.Is(err, context.DeadlineExceeded) {
		p.slow++
	}
	return p.sleep(ctx, p.pause)
}

// limit bounds the try that begins now. The first is short, for a connection may be dead
// without a word; each that runs out makes the next longer, for PostgreSQL may be slow,
// and a try that is always cut off too early would never end. One that took less than
// half of what it might takes that back.
func (p *pace) limit() time.Duration {
	p.began = p.now()
	return p.allowed()
}

func (p *pace) allowed() time.Duration {
	d := firstLimit
	for range p.slow {
		d = min(2*d, maxLimit)
	}
	return d
}

// sleep waits about d, or until ctx ends: then it returns false.
func (p *pace) sleep(ctx context.Context, d time.Duration) bool {
	if p.steps != nil {
		return p.steps.Sleep(ctx, p.steps.Jitter(d))
	}
	t := time.NewTimer(jitter(d))
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// jitter keeps workers that failed together from coming back together.
func jitter(d time.Duration) time.Duration { return d/2 + rand.N(d/2+1) }
