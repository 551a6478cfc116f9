// Package simulate runs the engine against services that fail, in virtual time,
// from a seed: the same seed gives the same story, step by step.
//
// What runs is the production code: the door's admission, groups and lease
// (door.Steps), the worker's stages (payment.Steps), the leader's round, heartbeat,
// probe, rebuild, applier and sweep (recovery.Steps), the relay's pass. What is
// simulated is what they talk to: Redis (stock.Model, which tests keep equal to the
// real scripts), PostgreSQL (orders.Model, likewise, and the few tables beside it),
// RabbitMQ, the payment provider, and the clock. The package declares no transition
// and no guard of its own; a test reads its source for that.
//
// # One at a time
//
// Everything that acts is an actor: a coroutine (iter.Pull), of which exactly one
// runs. It gives up its turn inside of every call to a service, before and after the
// call takes effect, and wherever it would wait. Who goes on is decided by virtual
// time and the seed. So a rebuild, an ingest, an applier is as many steps as it makes
// calls, and anything may happen between any two of them. Actors of a process share
// its memory, and die with it.
//
// # What fails
//
// A request or its answer gets lost; a call takes effect after its caller gave up; a
// process dies before or after a call, or stands still for seconds; Redis restarts, loses
// what it wrote last, or everything, or its scripts alone, hands over to a replica that
// lags behind (and back), has its scripts loaded by another sale first, answers a durable
// sale before it writes; the broker is away, loses confirms, delivers twice and in another
// order, has a queue purged or deleted; PostgreSQL is away; the clock of either jumps; the
// provider answers late or not at all. After a while all of it stops, and the house must
// come to rest: then verdict.go looks at it.
//
// # Who acts
//
// Buyers, some of whom share an identity or pay by themselves (checkout), repeat, cancel,
// or ask for something else under the same key. An operator restocks, withdraws, takes
// back, redefines, pauses, resumes and closes through engine/control. Windows open and
// close in the story; a sale that is over is settled and pruned; some stories have two
// sales (plan.go). In some the rest is sold at the end, or all that was ever sent comes
// again (epilogue.go).
//
// The model of a service is one of what it does, not of how: a transaction of
// PostgreSQL and a script of Redis are one step each, because they are.
package simulate
