// Package audit proves a sale: it reads PostgreSQL, Redis, the broker, the
// provider's ledger and the crowd's own log on connections of its own, and says
// of each law whether it holds. It believes no counter of the door.
//
// # The laws
//
//  1. Redis, per SKU: available + held + sold = units, none negative. At rest
//     also: the held records add up to held.
//  2. PostgreSQL, per SKU: claimed = the units of live orders, at most units.
//  3. Confirmed minus returned units never exceed units, at every sample.
//  4. No order was accepted that took its buyer or an identity above the limit in
//     force at its accept.
//  5. One terminal event per order, and terminal states are never left.
//  6. The provider's ledger: a confirmed order was authorised or captured once,
//     never above its amount; a cancelled one has net nothing, and nothing open.
//     Our own books balance and say the same.
//  7. Sale, epoch and sequence number name one order; gapless in the last epoch.
//  8. Every 202 in the client log has one terminal order of that buyer, key and
//     price, and nobody was told the opposite of what became of his order.
//  9. Outbox, queues, rejected and parked orders, release rows and tasks owed to the provider
//     are empty; nothing is reserved or paying.
//  10. Redis and PostgreSQL agree: available = units − live, held = 0.
//  11. Where demand reached the stock and payments were good, all of it was sold.
//  12. The same key gave the same order; a changed body was answered 422.
//  13. Anything replayed changes nothing: what Redis has is what a rebuild from
//     PostgreSQL would load, definition, stock, records and counters.
//  14. Every accept lies inside the window by Redis' clock, which is within 2 s of
//     PostgreSQL's.
//
// 1 to 7 and 14 can be checked while the sale runs ([Auditor.Live]); 8 to 13 need
// rest ([Auditor.WaitForRest], [Auditor.AtRest]). Who replays something asks for
// the hash of the state before and after ([Auditor.States]).
//
// # What it owns
//
// Nothing but its connections, and the memory of what its samples saw. It is the
// only package whose SQL reads tables of other owners; it writes none.
//
// Invariants: a law that could not be checked (a server that is down, no client
// log) is Unchecked, never Holds. Figures count rows, charges and log lines.
//
// Concurrency: one Auditor may be used by one goroutine at a time. It starts
// none. Everything ends with its ctx.
//
// It imports engine, stock, engine/queue and payment/provider; never the door,
// the workers or the packages whose tables it reads.
package audit
