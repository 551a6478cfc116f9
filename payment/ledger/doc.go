// Package ledger keeps the books of money in PostgreSQL: which charge confirmed
// which order, what was captured, and what is still to be done at the provider.
//
// It owns the tables books, charges, postings and tasks. A charge is written in
// the transaction that confirms its order ([Store.Authorise] takes that
// transaction), with a task to capture it. Whoever holds the task captures at the
// provider, and then, in one transaction ([Store.Finish]), marks the charges
// captured, posts the movements and takes the task away. If that one is lost, the
// task comes due again and the provider meets the same keys.
//
// Invariants: an order's attempt has one charge; a charge is captured once,
// decided by a compare-and-set on its state; every movement is two postings of
// sum zero, inserted and never changed; amounts are minor units; a charge that is
// authorised stands in a task.
//
// Lock order: tasks by id, then charges by order id. Store is safe for concurrent use
// and starts no goroutine. It imports engine and engine/postgres, knows no
// provider but its name, and touches no table of others.
package ledger
