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
	steps *Clock        // of Steps; nil: the real one
}

func (w *Worker) pace(stage string) *pace { return &pace{log: w.log, stage: stage, steps: w.steps} }

// met notes how a step ended, and waits if it failed. It returns false when ctx has
// ended.
func (p *pace) met(ctx context.Context, err error) bool {
	if err == nil {
		if p.pause > 0 {
			p.log.Info("payment goes on", "stage", p.stage)
		}
		p.pause = 0
		return ctx.Err() == nil
	}
	if ctx.Err() != nil {
		return false
	}
	if p.pause == 0 && !errors.Is(err, context.Canceled) {
		p.log.Warn("payment waits", "stage", p.stage, "err", err)
	}
	p.pause = min(max(2*p.pause, firstPause), maxPause)
	return p.sleep(ctx, p.pause)
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
