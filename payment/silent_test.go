package payment_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/doorbuster/doorbuster/engine"
	"github.com/doorbuster/doorbuster/payment"
	"github.com/doorbuster/doorbuster/payment/provider"
)

// Connections to PostgreSQL that are dead without a word hold nothing up for long: all
// is at rest 10 s after the first that is answered, and the worker ends. Chaos saw 72
// captures owed for ever, a worker that did not end, and 20 s for an ingest
// (worker-postgresql/half-open, seed 12).
func TestDeadConnectionsHoldNothingUp(t *testing.T) {
	all := []string{"ingest", "claim", "settle", "due", "finish", "expire", "marker", "parked", "unpark", "count", "owed", "defer"}
	for _, steps := range append([][]string{all}, each(all)...) {
		t.Run(fmt.Sprint(steps[0], len(steps)), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { restsAfter(t, 3*time.Second, steps) })
		})
	}
}

func each(names []string) (out [][]string) {
	for i := range names {
		out = append(out, names[i:i+1])
	}
	return out
}

// startOn starts a worker on a house in which an envelope is set aside, with ten orders
// in its queue. stop ends it.
func startOn(t *testing.T, h *house) (q *pipe, stop func() error) {
	t.Helper()
	q = newPipe()
	h.asideOf("drop", 100)
	w, err := payment.New(payment.Config{
		Orders: h, Stock: newShelf(1), Ledger: h, Providers: map[string]provider.Provider{"p": provider.NewInstant()}, Source: q.source,
	})
	must(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- w.Run(ctx) }()
	q.publish(agedEnvelope(1, 0))
	return q, func() error { cancel(); return <-ended }
}

// restsAfter lets every call of those steps that begins before heal hang for ever.
func restsAfter(t *testing.T, heal time.Duration, steps []string) {
	t.Helper()
	h := newHouse()
	h.dead = map[string]time.Time{}
	for _, s := range steps {
		h.dead[s] = time.Now().Add(heal)
	}
	q, stop := startOn(t, h)
	q.publish([]byte("1M|n1"))
	time.Sleep(heal + 10*time.Second)
	synctest.Wait()
	h.mu.Lock()
	if got := h.counts()[engine.Confirmed]; got != 11 || len(h.tasks) != 0 || len(h.parked) != 0 || len(h.markers) != 1 {
		t.Errorf("%d confirmed, want 11; %d tasks owed, %d set aside, %d markers", got, len(h.tasks), len(h.parked), len(h.markers))
	}
	h.mu.Unlock()
	began := time.Now()
	if err := stop(); err != nil || time.Since(began) > 10*time.Second {
		t.Errorf("ended after %v: %v", time.Since(began), err)
	}
}

// A PostgreSQL that is slow, and not dead, gets its work done: no step is cut off for
// ever by a limit that is meant for dead connections.
func TestSlowPostgresGetsThrough(t *testing.T) {
	for _, step := range []string{"ingest", "claim", "settle", "due", "finish", "parked", "unpark"} {
		for _, takes := range []time.Duration{5 * time.Second, 7 * time.Second, 15 * time.Second} {
			t.Run(fmt.Sprint(step, takes), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { getsThrough(t, step, takes) })
			})
		}
	}
}

func getsThrough(t *testing.T, step string, takes time.Duration) {
	t.Helper()
	h := newHouse()
	h.slow = map[string]time.Duration{step: takes}
	_, stop := startOn(t, h)
	time.Sleep(2 * time.Minute)
	synctest.Wait()
	h.mu.Lock()
	if got := h.counts()[engine.Confirmed]; got != 11 || len(h.tasks) != 0 || len(h.parked) != 0 {
		t.Errorf("%d confirmed after two minutes, want 11; %d tasks owed, %d set aside", got, len(h.tasks), len(h.parked))
	}
	h.mu.Unlock()
	must(t, stop())
}
