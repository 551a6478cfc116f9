package payment

import (
	"context"
	"time"

	"github.com/doorbuster/doorbuster/engine/failpoint"
	"github.com/doorbuster/doorbuster/engine/postgres"
	"github.com/doorbuster/doorbuster/payment/ledger"
)

const (
	tasksTogether = 8 // finished in one transaction
	firstTry      = 250 * time.Millisecond
	maxTry        = 30 * time.Second
	maxDoublings  = 8
)

// captureLoop works on tasks that the payers hand over and that come due, until ctx
// has ended and toCapture is closed and empty.
func (w *Worker) captureLoop(ctx, work context.Context) {
	p := w.pace("capture")
	poll := time.NewTicker(pollEvery)
	defer poll.Stop()
	for {
		select {
		case <-poll.C: // first: see payLoop
			w.captureDue(ctx, work, p)
			continue
		default:
		}
		select {
		case task, open := <-w.toCapture:
			if !open {
				return
			}
			_ = w.work(work, w.more([]ledger.Task{task})) // on error the rows come due
		case <-poll.C:
			w.captureDue(ctx, work, p)
		}
	}
}

// more adds tasks that are there already, so that one transaction finishes them.
func (w *Worker) more(tasks []ledger.Task) []ledger.Task {
	for len(tasks) < tasksTogether {
		select {
		case t, open := <-w.toCapture:
			if !open {
				return tasks
			}
			tasks = append(tasks, t)
		default:
			return tasks
		}
	}
	return tasks
}

func (w *Worker) captureDue(ctx, work context.Context, p *pace) {
	for ctx.Err() == nil {
		n, err := w.captureOnce(work, p.limit())
		if !p.met(ctx, err) || n < tasksTogether {
			return
		}
	}
}

// captureOnce takes due tasks and works on them.
func (w *Worker) captureOnce(ctx context.Context, limit time.Duration) (tasks int, err error) {
	asking, cancel := w.within(ctx, limit)
	due, err := w.cfg.Ledger.Due(asking, tasksTogether, captureLease)
	cancel()
	if err != nil || len(due) == 0 {
		return 0, err
	}
	return len(due), w.work(ctx, due)
}

// work does tasks at their providers and writes down what came of them. On error
// they come due again and meet the same keys.
func (w *Worker) work(ctx context.Context, tasks []ledger.Task) (err error) {
	done := w.m.stage("capture")
	defer func() { done(err) }()
	results := make([]ledger.Result, len(tasks))
	for i := range tasks {
		results[i] = w.ask(ctx, &tasks[i])
	}
	failpoint.Hit("pay/after-capture")
	captured, err := w.finish(ctx, results)
	if err == nil {
		failpoint.Hit("pay/after-finish")
		w.m.captured.Add(float64(captured))
	}
	return err
}

// finish writes results down, trying for writeMost. Whoever takes the tasks meanwhile,
// when their lease is over, hears the same of the provider.
func (w *Worker) finish(ctx context.Context, results []ledger.Result) (captured int, err error) {
	ctx, cancel := w.within(ctx, writeMost)
	defer cancel()
	p := w.pace("finish")
	for {
		captured, err = w.finishOnce(ctx, results, p)
		if err == nil || postgres.OfTheData(err) || !p.met(ctx, err) {
			return captured, err
		}
	}
}

func (w *Worker) finishOnce(ctx context.Context, results []ledger.Result, p *pace) (captured int, err error) {
	defer w.giveWay.take(ctx)()
	ctx, cancel := w.within(ctx, p.limit())
	defer cancel()
	return w.cfg.Ledger.Finish(ctx, results)
}

// ask does one task at its provider.
func (w *Worker) ask(ctx context.Context, t *ledger.Task) ledger.Result {
	r := ledger.Result{Task: *t, Next: w.jitter(nextTry(t.Tries))}
	g := w.gateways[t.Book.Provider]
	if g == nil {
		w.log.Error("no such provider", "provider", t.Book.Provider, "sale", t.Book.Sale, "charges", len(t.Charges))
		r.Later, r.Next = t.Charges, maxTry
		return r
	}
	for i, err := range g.do(ctx, t) {
		c := t.Charges[i]
		switch {
		case err == nil:
			r.Done = append(r.Done, c)
		case refuses(err):
			w.log.Error("the provider refuses", "kind", t.Kind, "sale", t.Book.Sale, "order", c.Order, "attempt", c.Attempt, "err", err)
			w.m.refused.Inc()
			r.Refused = append(r.Refused, c)
		default:
			r.Later = append(r.Later, c)
		}
	}
	if t.Kind == ledger.Void {
		w.m.voided.Add(float64(len(r.Done)))
	}
	w.m.putOff.Add(float64(len(r.Later)))
	return r
}

// nextTry doubles from firstTry, at most maxTry.
func nextTry(tries int) time.Duration {
	return min(2*firstTry<<min(tries, maxDoublings), maxTry)
}
