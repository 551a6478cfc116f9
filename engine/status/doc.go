// Package status tells a buyer what became of his order, after the door has
// answered: one order, his orders of a sale, cancelling, and live status by
// server-sent events.
//
//	GET  /v1/orders/{id}          the order
//	GET  /v1/orders/{id}/events   the same, live (text/event-stream)
//	POST /v1/orders/{id}/cancel   cancel it
//	GET  /v1/sales/{id}/mine      the buyer's orders of a sale
//
// A buyer shows who he is by the ticket he bought with (its MAC must be right; it
// may be over: the order outlives it) or by a bearer JWT (EdDSA). An order of
// somebody else is answered as if it did not exist.
//
// It owns the bounds that keep it from starving the sale: pools of its own (given
// by the caller), at most MaxQueries questions to PostgreSQL and to Redis at once,
// answers within answerIn whatever these do, at most MaxStreams streams, one poller
// per process that asks for all watched orders together, however many streams there
// are, and one search of a sale's records for all who ask for orders that are not
// ingested yet (pending.go).
//
// Invariants: an order that was answered 202 is never "not found", even before
// it is in PostgreSQL (the Redis record answers then), and a list that may lack one
// says so. Nothing here writes Redis.
//
// Handlers are safe for concurrent use. Run owns the poller; when its ctx ends
// every stream ends, then Run returns.
//
// It imports engine, engine/ticket, engine/orders and stock; never the door,
// beside which it is mounted, nor payment.
package status
