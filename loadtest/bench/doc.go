// Package bench measures what docs/BENCHMARKS.md says, all of it in one run, and
// writes that page.
//
// Every figure has a letter. Figures that are compared are measured side by side,
// in alternating rounds, because a machine shared with others swings by half
// within a minute: a ratio is taken within a round, and the median and the spread
// over all rounds are printed.
//
// It owns child processes, sales of its own and, in PostgreSQL, a schema of bare
// tables. The load comes from this process; servers are children of it, started
// from the same binary, so that everything goes over TCP between processes:
// a bare fasthttp server, a door, a door that groups nothing, a door of a small
// capacity, the other roles, the worker alone, the sandbox provider. A replica of
// Redis comes and goes in a directory of its own.
//
// Invariants: rounds and durations are fixed before the run; every wait has a
// limit; only the loopback is used; all children have ended when Run returns.
//
// Run is for one goroutine. It imports what it measures alone (stock,
// engine/queue, engine/postgres), engine/orders to create sales, engine/backing for
// the replica, and loadtest;
// the whole engine is measured from outside.
package bench
