// Package control is a sale's life in an operator's hands: read its definition
// from a file, create it, pause, resume and close it, change prices and limits,
// add units and take unsold ones out. Each act is recorded with who and why.
//
// It owns no table and no key: it calls engine/orders and stock in the order
// that keeps both right. What tightens (pause, close, withdraw) is done in Redis
// first, what loosens (resume, restock) in PostgreSQL first: whatever dies in
// between, the sale is then stricter than it should be, never looser.
//
// Invariants: an act that returned nil is in PostgreSQL, in the trail, and in
// Redis if the sale is loaded there, so that every door follows with its next
// watch. PostgreSQL's state is the sale's state: whoever finds Redis saying
// something else makes it follow.
//
// To pause, resume and close may be repeated; to restock and withdraw counts
// again. Safe for concurrent use, by several processes too;
// nothing runs on after a call has returned. It imports engine, engine/orders
// and stock; never the door or the workers.
package control
