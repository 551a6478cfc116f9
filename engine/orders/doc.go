// Package orders is PostgreSQL's side of a sale: every transaction on its tables.
//
// # What it owns
//
// The tables of migrations/: sales, items and their trail; orders, counters and
// what is due (work); release rows (moves), rejected and parked orders; incarnations and
// markers. No other package writes them; engine/audit reads them.
//
// # What holds
//
//   - items.claimed is the sum over live orders, and never above items.units.
//   - counters.used is the same per buyer and identity. An order is judged by the
//     limits it carries, those in force at its accept.
//   - States move along engine.NextOrderStates; an ended order stays ended.
//   - The transaction that ends an order writes the release row that Redis has to
//     follow. What Redis is to do is read from the ended order, so two rows
//     cannot say different things.
//   - Each open order stands in a row of work that is due no later than it is.
//   - (sale, epoch, seq) names one order.
//
// # How transactions keep out of each other's way
//
// Every one that changes a sale's orders, claims, units or release rows holds the
// sale's advisory lock shared; the cut of a rebuild holds it alone. Then rows are
// locked in one order: the sale's lock, work, orders by id, moves, items by SKU,
// counters by key. A statement locks rows in the order of the arrays it is given,
// which are sorted; a transaction locks orders once. A deadlock is tried again
// all the same (postgres.InTx).
//
// # Batches
//
// The group is the unit of movement here too: an order costs one insert and one
// update, and a share of a row in work and in moves. See migrations/ for what was
// measured.
//
// A Store is safe for use by many goroutines. It starts none, so there is
// nothing to stop. It imports engine and engine/postgres only; Redis, the queue
// and money are not known here.
package orders
