package payment_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/doorbuster/doorbuster/payment"
	"github.com/doorbuster/doorbuster/payment/ledger"
	"github.com/doorbuster/doorbuster/payment/provider"
)

// dead is a house whose first calls of each kind find a connection on which nobody
// answers, ever: only their own deadline ends them.
type dead struct {
	*house
	noDue, noFinish, noExpire chan struct{}
}

func newDead() dead {
	d := dead{newHouse(), make(chan struct{}, 1), make(chan struct{}, 1), make(chan struct{}, 1)}
	for _, c := range []chan struct{}{d.noDue, d.noFinish, d.noExpire} {
		c <- struct{}{}
	}
	return d
}

// silent waits for the end of ctx, the first time.
func silent(ctx context.Context, first chan struct{}) error {
	select {
	case <-first:
		<-ctx.Done()
		return ctx.Err()
	default:
		return nil
	}
}

func (d dead) Due(ctx context.Context, limit int, lease time.Duration) ([]ledger.Task, error) {
	if err := silent(ctx, d.noDue); err != nil {
		return nil, err
	}
	return d.house.Due(ctx, limit, lease)
}

func (d dead) Finish(ctx context.Context, rs []ledger.Result) (int, error) {
	if err := silent(ctx, d.noFinish); err != nil {
		return 0, err
	}
	return d.house.Finish(ctx, rs)
}

func (d dead) Expire(ctx context.Context, limit int) (int, error) {
	if err := silent(ctx, d.noExpire); err != nil {
		return 0, err
	}
	return d.house.Expire(ctx, limit)
}

// A connection that is dead without a word must not keep captures for ever: chaos saw
// 72 of them owed, and a worker that did not end (worker-postgresql/half-open, seed 12).
func TestDeadConnectionsHoldNothingUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, q := newDead(), newPipe()
		w, err := payment.New(payment.Config{
			Orders: d, Stock: newShelf(1), Ledger: d, Providers: map[string]provider.Provider{"p": provider.NewInstant()}, Source: q.source,
		})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- w.Run(ctx) }()
		q.publish(agedEnvelope(1, 0))
		time.Sleep(time.Minute)
		synctest.Wait()
		d.mu.Lock()
		if owed := len(d.tasks); owed != 0 || len(d.noDue)+len(d.noFinish)+len(d.noExpire) != 0 {
			t.Errorf("%d tasks are owed after a minute; not called: due %d, finish %d, expire %d", owed, len(d.noDue), len(d.noFinish), len(d.noExpire))
		}
		d.mu.Unlock()
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}
