// Package backing brings up the servers a sale stands on: a private Redis,
// RabbitMQ and PostgreSQL, and Prometheus where it is asked for, for the demo,
// the tests and chaos.
//
// # What it does
//
// [Up] finds each server in this order: the caller's own (a URL in [Config]),
// the programs on this machine, the system's packages (installed where it may),
// Docker Compose. What it starts has its own port on the loopback, its own data
// directory and its own password; nothing of the host's is touched. It starts
// them side by side and returns when each has answered in its own protocol.
//
// # What it owns
//
// The directory [Config].Dir: state.json (ports, password, process ids with
// their start times), a lock, and the servers' data. Where the servers' accounts
// cannot reach that directory (a checkout below /root, say), the data lies in a
// temporary directory that state.json names.
//
// # Invariants
//
// Only a process whose id and start time this package wrote down is signalled,
// or a child of one: never by name. A second Up finds what runs, starts what
// does not, on the same ports and data. After Down nothing it started runs, not
// RabbitMQ's port mapper either. As root every server runs under an ordinary
// account, because RabbitMQ wants directories of its own and PostgreSQL refuses
// root.
//
// # Concurrency
//
// Methods of [Services] may be called from several goroutines and from several
// processes: Up, Start, Kill, Wipe, Down and Remove take the directory's lock.
// No goroutine outlives a call.
//
// # How it stops
//
// The servers outlive the process that started them; Down ends them. A ctx that
// ends makes Up and Start give up, and stops what this call had begun.
//
// It does not import stock, queue or orders: it knows servers, not sales.
package backing
