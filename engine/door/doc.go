// Package door is the front door: ticket → group → stock → envelope → reply.
//
// It answers two routes. POST /v1/sales/{id}/orders asks for units and hears 202
// only after the broker has confirmed the order and while the door still holds
// its lease of the sale. GET /v1/sales/{id} shows the sale, rendered once per
// tick of the watch.
//
// # How a request travels
//
// The handler (order.go) refuses what it can from memory, cheapest first:
// ticket, window, state, sold out, the buyer's bucket, the gate. Those refusals
// cost no Redis command and no allocation. What is left joins the group that is
// gathering (lane.go): while a script call of the sale is in flight requests
// gather, and the next call takes them all, 1 to engine.MaxGroup. There is no
// timer: without load a group has one member. At most Config.InFlight groups of a
// sale are between script and confirm. The group (group.go) calls the script,
// answers whom it refused, publishes what it accepted as one envelope, waits for
// the confirm and answers the rest.
//
// # The watch and the lease
//
// While a sale is in use its watch (watch.go) reads the sale's state every
// 50 ms. The door may say 202 only under a lease: until 2 s after it sent the
// earlier of two reads between which recovery's heartbeat number rose. Only the
// door's own monotonic clock counts. Another epoch, a lower number and a fenced
// call end the lease. What the memory refuses by is never older than 150 ms.
//
// # What Redis cannot say
//
// A settled sale whose Redis restarted or came back empty is brought back by nobody:
// its repeats are answered from PostgreSQL (past.go), a few questions at a time. So is
// whoever has a ticket for a sale that its slot does not know: only PostgreSQL can say
// that there is none. A sale that sells is never looked up there.
//
// # Invariants
//
//   - A 202 is said only after a confirm, and only while the lease holds.
//   - No member of a group whose script call failed hears anything final.
//   - A repeat passes the memory flags: the holder of the last unit never hears
//     "sold out".
//   - Nothing of a *fasthttp.RequestCtx outlives its handler.
//   - A sale nobody asks for has no goroutine and no memory.
//
// # Concurrency and stopping
//
// A Door is safe for many goroutines. Lanes start with traffic and stop when
// nothing waits; a watch ends when its sale was not asked for in a while. Run
// owns all of them: when its ctx ends, it refuses new requests, lets the groups
// in flight finish (each is bounded by its time-outs) and returns. Shut the HTTP
// server down first.
//
// It imports engine, engine/ticket, engine/queue and stock; not PostgreSQL (see
// Archive), not RabbitMQ, not Redis.
package door
