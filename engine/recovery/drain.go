package recovery

import (
	"context"
	"crypto/rand"
	"sync"
	"time"

	"github.com/doorbuster/doorbuster/engine/queue"
)

const (
	drainMost    = 2 * time.Second        // for the outbox and the marker each
	markerPoll   = 10 * time.Millisecond  // between looks for the marker, at first
	markerSlow   = 160 * time.Millisecond // between looks, at last
	markerRetry  = 50 * time.Millisecond  // between tries to publish it
	markerGather = 100 * time.Millisecond // that a marker waits for more sales behind one on its way
)

// drain lets as many orders of the old epoch reach PostgreSQL as come in a
// bounded time: what is left in the outboxes is published, then a marker is sent
// behind it and awaited. What does not come in time is not lost, it is taken
// again in the new epoch. All messages of a sale are in one ingest queue, so one
// marker does. It never fails: a broker that is away only means that nothing was
// drained.
func (b *rebuilder) drain(ctx context.Context) {
	k := b.k
	relayed, cancel := b.k.r.within(ctx, drainMost)
	if err := k.r.cfg.Drainer.Drain(relayed, k.sale); err != nil {
		k.log.Info("rebuild goes on with a full outbox", "err", err)
	}
	cancel()
	ctx, cancel = b.k.r.within(ctx, drainMost)
	defer cancel()
	until := k.r.now().Add(drainMost) // ctx goes by the real clock, the steps by another
	q := queue.IngestQueue(k.sale)
	for ctx.Err() == nil && k.r.now().Before(until) {
		m, first := k.r.markers.join(q)
		if first {
			b.lead(ctx, q, m, until)
			return
		}
		if k.r.closed(ctx, m.over) && m.seen {
			return
		}
	}
}

// marker is a message behind which sales wait together: a thousand that drain at once
// need some dozens of them.
type marker struct {
	over chan struct{} // closed when it was seen or given up
	seen bool          // true to read after that
}

// markers are those of this process. The zero value is ready.
type markers struct {
	mu     sync.Mutex
	open   [queue.Queues]*marker // of each queue the one that is not sent yet
	onward [queue.Queues]int     // that are sent, and not over
}

// join returns the marker of a queue that is sent next; the first to join sends it.
func (m *markers) join(q int) (_ *marker, first bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.open[q] == nil {
		m.open[q], first = &marker{over: make(chan struct{})}, true
	}
	return m.open[q], first
}

// alone tells whether no marker of the queue is on its way.
func (m *markers) alone(q int) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.onward[q] == 0
}

// shut ends the joining: the marker is sent.
func (m *markers) shut(q int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.open[q] = nil
	m.onward[q]++
}

func (m *markers) end(q int, of *marker) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.onward[q]--
	close(of.over)
}

// lead sends a marker and waits for it, for all that joined.
func (b *rebuilder) lead(ctx context.Context, q int, m *marker, until time.Time) {
	r := b.k.r
	if !r.markers.alone(q) {
		r.sleep(ctx, markerGather)
	}
	r.markers.shut(q)
	defer r.markers.end(q, m)
	m.seen = b.await(ctx, q, until)
}

// await publishes a marker and returns whether a worker met it in time.
func (b *rebuilder) await(ctx context.Context, q int, until time.Time) bool {
	k := b.k
	nonce := string(k.sale) + "-" + rand.Text()
	for k.r.cfg.Publisher.PublishMarker(ctx, q, nonce) != nil {
		if !k.r.now().Before(until) || !k.r.sleep(ctx, markerRetry) {
			k.log.Info("rebuild goes on without a drain: the broker is away")
			return false
		}
	}
	for pause := markerPoll; ; pause = min(2*pause, markerSlow) {
		seen, err := k.orders.SeenMarker(ctx, nonce)
		if err == nil && seen {
			return true
		}
		if !k.r.now().Before(until) || !k.r.sleep(ctx, pause) {
			k.log.Info("rebuild goes on: the ingest is still behind")
			return false
		}
	}
}
