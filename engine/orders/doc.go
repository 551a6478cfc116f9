// Package orders is PostgreSQL's side of a sale: the tables of sales, items,
// orders, counters, release rows, rejected orders and the trail, and every
// transaction on them.
package orders
