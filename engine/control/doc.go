// Package control is a sale's life in an operator's hands: read its definition
// from a file, create it, pause, resume and close it, add units and take unsold
// ones out. Each act is recorded with who and why.
//
// It owns no table and no key: it calls engine/orders and stock in the order
// that keeps both right. What tightens (pause, close, withdraw) is done in Redis
// first, what loosens (resume, restock) in PostgreSQL first: whatever dies in
// between, the sale is then stricter than it should be, never looser.
//
// Every act may be repeated. Safe for concurrent use; nothing runs on after a
// call has returned.
package control
