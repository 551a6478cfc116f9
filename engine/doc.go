// Package engine holds the words of Doorbuster: what a sale, an item, a
// basket, an order, a hold, an outcome and an amount of money are, how each may
// change, and how an accepted order is written down as bytes. It imports the
// standard library only, does no I/O, and every other package speaks in it.
//
// # Follow one order through the house
//
// A buyer asks for a [Basket]. The door (engine/door) checks his ticket
// (engine/ticket), derives the [OrderID] from his Idempotency-Key and puts the
// basket into the group that is gathering. One call of stock/reserve.lua
// decides the whole group; every basket gets an [Outcome].
//
// What was accepted now has a [Hold], a record in Redis ([Record]), and is one
// line of an [Envelope]. The door publishes the envelope to RabbitMQ and says
// 202 only after the broker confirmed it.
//
// The worker (payment) ingests the envelope into PostgreSQL (engine/orders):
// the order is [Reserved]. Paying turns it to [Paying], then [Confirmed] or
// [Cancelled]; [NextOrderStates] says which moves exist. The transaction that
// ends an order also writes a [Move], which the applier (engine/recovery)
// carries back to Redis: units are settled or released there.
//
// Redis decides, RabbitMQ keeps, PostgreSQL knows. engine/audit proves
// afterwards that the three agree.
//
// Values of this package are plain data: safe to copy, not safe to change from
// several goroutines at once.
package engine
