// Package payment takes accepted orders from the queue to their end: ingest, pay,
// capture, expire, compensate. [Worker.Run] is the worker role.
//
// # Stages
//
//	queue ─► ingest ─► pay ─► settle ─► capture
//	            │        ▲                 ▲
//	            ▼        │ poll            │ poll
//	          orders (work rows)        ledger (tasks)
//
// Each stage works on batches, commits, and hands the batch on in memory, so that
// no order waits for a poll under load. What is handed on also stands in a row that
// is leased: if the process dies, or the next stage has no room, the row comes due
// and any worker's poll takes it. So the arrows in memory may be cut at any time.
//
// # Invariants
//
//   - A message is acknowledged only after the transaction with all of its orders
//     has been committed. PostgreSQL being down delays messages, and loses none.
//   - One order that cannot be written never takes another with it: the batch is
//     halved until the guilty one is alone, and only that goes to rejected.
//   - A stale order is taken again through the stock script under its own id, and
//     only then written, in the epoch that took it. While its sale is frozen it is
//     parked in PostgreSQL, so that no other sale of its queue waits for it.
//   - Unknown is unknown: what the provider did not answer is looked up and repeated
//     under the same key, and neither confirmed nor cancelled before it is known.
//   - A charge is captured after its order is confirmed, never before.
//   - Whoever was approved for an order that is not confirmed by that attempt voids.
//   - Every stage may run twice on the same thing, in any number of processes.
//
// # Concurrency
//
// Two batches at once per ingest queue, Config.Payers and Config.Capturers loops, one expirer.
// Within a batch at most MaxCalls calls to a provider are in flight; a provider
// that takes batches is called once. All waiting is bounded by the named limits.
//
// # Stopping
//
// When ctx ends, the consumers stop taking messages and finish the batch they hold;
// then the payers finish what was handed to them, then the capturers. After
// Config.DrainFor everything still running is cut off; its rows and messages come
// again.
//
// The package imports engine, engine/orders, engine/queue, stock, payment/ledger and
// payment/provider, all of them behind the small interfaces in worker.go. It owns no
// table and no key.
package payment
