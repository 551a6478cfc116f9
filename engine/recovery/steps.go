package recovery

import (
	"context"
	"sync"
	"time"

	"github.com/doorbuster/doorbuster/engine"
)

// lockPoll is how often a job that is stepped tries again for a lock.
const lockPoll = 5 * time.Millisecond

// Steps is the role without its goroutines and without the real clock: whoever
// steps it (a simulator) calls each job when he likes, in the order he likes, also
// one while another waits inside of a service. The jobs are the very ones that
// Run's goroutines call. Every call returns when its work is done; a job that must
// wait does so by the clock that NewSteps was given.
type Steps struct{ r *Recovery }

// StepsClock is what Steps goes by in place of the real clock. Config.Now is its time.
type StepsClock struct {
	// Sleep waits for d, or returns false if ctx has ended.
	Sleep func(ctx context.Context, d time.Duration) bool
	// Within ends by that time, as context.WithTimeout does by the real one.
	Within func(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc)
}

// NewSteps returns the role, for stepping. like, if not nil, is another whose metrics it
// shares. Not safe for use by two goroutines at once.
func NewSteps(cfg Config, clock StepsClock, like *Steps) *Steps {
	var m *meter
	if like != nil {
		m = like.r.meter
	}
	r := newRecovery(cfg, m)
	r.steps = &clock
	return &Steps{r}
}

// Round is one round of leads: Run makes one every 500 ms.
func (s *Steps) Round(ctx context.Context) (Counts, error) { return s.r.runOnce(ctx) }

// Nudged tells whether a sale has become sound since it was last asked: then Run
// makes its next round at once.
func (s *Steps) Nudged() bool { return taken(s.r.woke) }

// Jobs returns the jobs of a sale led by this process, or nil. They are the same
// until the lead is lost and taken again.
func (s *Steps) Jobs(sale engine.SaleID) *Jobs {
	k := s.r.keeper(sale)
	if k == nil {
		return nil
	}
	return &Jobs{k: k, prober: newProber(k), applier: &applier{k: k}, sweeper: newSweeper(k), pruner: &pruner{k: k}}
}

// Jobs are the leader's work on one sale, one method for each of its goroutines.
type Jobs struct {
	k       *keeper
	prober  *prober
	applier *applier
	sweeper *sweeper
	pruner  *pruner
}

// Lead is the number under which the sale is led.
func (j *Jobs) Lead() int64 { return j.k.lead.Number }

// Over tells whether the lead has ended here: then the jobs do nothing more.
func (j *Jobs) Over() bool { return j.k.ctx.Err() != nil }

// Beat raises the heartbeat if a round has allowed it.
func (j *Jobs) Beat() bool {
	select {
	case w := <-j.k.words:
		return !j.Over() && j.k.beat(j.k.ctx, w)
	default:
		return false
	}
}

// Probe probes the sale, and rebuilds it if it must.
func (j *Jobs) Probe() (Trigger, error) {
	if j.Over() {
		return Sound, j.k.ctx.Err()
	}
	return j.prober.runOnce(j.k.ctx)
}

// Doubted tells whether something was refused since it was last asked: then the
// next probe is due.
func (j *Jobs) Doubted() bool { return taken(j.k.doubt) }

// Apply applies some of the pending moves.
func (j *Jobs) Apply() (ApplyCounts, error) {
	if j.Over() {
		return ApplyCounts{}, j.k.ctx.Err()
	}
	return j.applier.runOnce(j.k.ctx)
}

// Sweep publishes again what PostgreSQL never received, drops old epochs and prunes.
func (j *Jobs) Sweep() (SweepCounts, error) {
	if j.Over() {
		return SweepCounts{}, j.k.ctx.Err()
	}
	c, err := j.sweeper.runOnce(j.k.ctx)
	if err == nil {
		_, err = j.pruner.runOnce(j.k.ctx)
	}
	return c, err
}

// stepping tells whether there are Steps.
func (r *Recovery) stepping() bool { return r.steps != nil }

// sleep waits for d, or returns false when ctx ended.
func (r *Recovery) sleep(ctx context.Context, d time.Duration) bool {
	if r.stepping() {
		return r.steps.Sleep(ctx, d)
	}
	return sleep(ctx, d, nil)
}

func (r *Recovery) within(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	if r.stepping() {
		return r.steps.Within(ctx, d)
	}
	return context.WithTimeout(ctx, d)
}

// lock locks mu. One goroutine that steps several jobs must not wait for itself.
func (r *Recovery) lock(mu *sync.Mutex) {
	if !r.stepping() {
		mu.Lock()
		return
	}
	for !mu.TryLock() {
		r.steps.Sleep(context.Background(), lockPoll)
	}
}

// await waits for a rebuild's turn.
func (r *Recovery) await(ctx context.Context, n *turn) error {
	if !r.stepping() {
		return n.wait(ctx)
	}
	t, began := n.all, r.now()
	t.mu.Lock()
	t.ready = append(t.ready, n)
	t.grant()
	t.mu.Unlock()
	for !taken(n.go_) {
		if !r.steps.Sleep(ctx, lockPoll) {
			return ctx.Err()
		}
		if n.patient && r.now().Sub(began) >= yieldMost {
			t.mu.Lock()
			n.patient = false
			t.grant()
			t.mu.Unlock()
		}
	}
	return nil
}

// closed waits until c is closed, or returns false when ctx ended.
func (r *Recovery) closed(ctx context.Context, c <-chan struct{}) bool {
	for r.stepping() && !taken(c) {
		if !r.steps.Sleep(ctx, lockPoll) {
			return false
		}
	}
	select {
	case <-ctx.Done():
		return false
	case <-c:
		return true
	}
}

func taken(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
