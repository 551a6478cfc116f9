// Package recovery keeps Redis a true picture of PostgreSQL: it makes the keys
// of a sale (a new sale's too), notices when they are lost, makes them again as a
// new epoch, and carries to them what PostgreSQL decided.
//
// Every process of this role runs [Recovery]; each sale in use is led by one of
// them. A lead runs out 2 s after the process' last round, by PostgreSQL's clock,
// and has a number that rises when it changes hands: every transaction of a leader
// compares it and is refused when another leads (orders.ErrDeposed). In Redis the
// epoch does the same: it is frozen, cut and unfrozen by compare-and-set, keys carry
// it in their names, scripts their incarnation, and rows are marked only in the
// epoch they were applied to. So a leader may pause or die at any point, and the
// next one starts again.
//
// A round (recovery.go) renews every lead, takes free ones and reads the fences, in
// three statements whatever the number of sales. It waits for no sale: each has
// goroutines of its own, and of its rebuild only the heavy part waits for others
// (turns.go: those first in which somebody just bought, those that are over last).
//
// The leader of a sale runs (one file each)
//
//	heartbeat.go  every 500 ms raises the number from which doors take their lease,
//	              while PostgreSQL confirms epoch and not frozen
//	probe.go      each second asks whether Redis still has what it had
//	glance.go     without asking PostgreSQL, where nothing happens
//	rebuild.go    and if not: freeze, wait, drain (drain.go), one cut, new keys
//	applier.go    applies pending moves (settle, release, restock …) without pause;
//	              one look for all sales together (scout.go) tells which have some
//	sweep.go      every 10 s publishes orders again that PostgreSQL never received
//	epochs.go     and deletes the keys of old epochs that hold nothing any more
//	prune.go      deletes tombstones after the replay window
//	lag.go        tells the doors how far the ingest is behind
//	clock.go      compares the clocks of Redis and PostgreSQL
//	follow.go     repeats a change of state or definition that stopped half-way
//	calendar.go   writes down that the window opened or closed the sale
//	diary.go      notes each step of a rebuild for those who look on (report.go)
//	settle.go     settles a sale that is closed and at rest: nobody leads it then
//
// `load` of a new sale is the rebuild of a sale without orders: epoch 0 to 1.
//
// It owns no keys and no tables; it reaches them through the interfaces of
// ports.go, so that a simulator can stand in for them. Run returns when ctx ends
// and every goroutine has ended; nothing is flushed then, because nothing is held
// back. A service that is down is logged once per change and tried again.
//
// It imports engine, stock, queue and orders, never relay: what is left in the
// outbox is relayed through an interface wired by cmd.
package recovery
