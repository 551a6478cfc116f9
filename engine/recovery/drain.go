package recovery

import (
	"context"
	"crypto/rand"
	"time"

	"github.com/doorbuster/doorbuster/engine/queue"
)

const (
	drainMost   = 2 * time.Second       // for the outbox and the marker each
	markerPoll  = 20 * time.Millisecond // between looks for the marker
	markerRetry = 50 * time.Millisecond // between tries to publish it
)

// drain lets as many orders of the old epoch reach PostgreSQL as come in a
// bounded time: what is left in the outboxes is published, then a marker is sent
// behind it and awaited. What does not come in time is not lost, it is taken
// again in the new epoch. All messages of a sale are in one ingest queue, so one
// marker does. It never fails: a broker that is away only means that nothing was
// drained.
func (b *rebuilder) drain(ctx context.Context) {
	k := b.k
	relayed, cancel := context.WithTimeout(ctx, drainMost)
	if err := k.r.cfg.Drainer.Drain(relayed, k.sale); err != nil {
		k.log.Info("rebuild goes on with a full outbox", "err", err)
	}
	cancel()
	ctx, cancel = context.WithTimeout(ctx, drainMost)
	defer cancel()
	nonce := string(k.sale) + "-" + rand.Text()
	until := k.r.now().Add(drainMost) // ctx goes by the real clock, the steps by another
	for k.r.cfg.Publisher.PublishMarker(ctx, queue.IngestQueue(k.sale), nonce) != nil {
		if !k.r.now().Before(until) || !k.r.sleep(ctx, markerRetry) {
			k.log.Info("rebuild goes on without a drain: the broker is away")
			return
		}
	}
	for {
		seen, err := k.orders.SeenMarker(ctx, nonce)
		if err == nil && seen {
			return
		}
		if !k.r.now().Before(until) || !k.r.sleep(ctx, markerPoll) {
			k.log.Info("rebuild goes on: the ingest is still behind")
			return
		}
	}
}
