// Package queue is where an accepted order becomes safe: it publishes envelopes
// to RabbitMQ with confirms and hands them to the workers.
//
// It owns one direct exchange, [Queues] ingest queues (a sale's messages all go
// to one of them: [IngestQueue]), a dead-letter exchange and a dead-letter queue,
// all named with Config.Prefix. All queues are quorum queues with a delivery
// limit; what exceeds it goes to the dead-letter queue at least once. The
// topology is declared again on every new connection, so that a broker that came
// back empty is whole again.
//
// Invariants: [Publisher.Publish] returns nil only after the broker confirmed a
// persistent message that it had routed to a queue. A [Delivery] can only be
// acknowledged on the channel it came from. Publishing and consuming never share
// a connection, because a memory alarm blocks the publishing one.
//
// Concurrency: a Publisher is safe for many goroutines. Its windows bound what
// is unconfirmed; who finds them full waits, at most until his ctx ends. Consume
// runs its handler in the calling goroutine. Run, Consume and Measure block until ctx
// ends and everything they started has ended; a broker that is down is no error,
// they come back with it. amqp091's own recovery stays off: after it, held
// deliveries would acknowledge others (DEPENDENCIES: delivery tags restart).
//
// It imports engine only, and knows nothing of what a message says.
package queue
