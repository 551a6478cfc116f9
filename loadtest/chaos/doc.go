// Package chaos breaks real servers under real load and asks afterwards whether a
// law was broken.
//
// One run is one [Cell] (what breaks, named component/fault) at one [Moment] (when):
// a sale of its own, in a database and under queue names of its own, on servers that
// are kept between runs; a process each for door, relay, worker, recovery and the
// sandbox provider; a crowd that is paced in open loop. The nemesis strikes when a
// counter reaches its mark (accepts that buyers heard, heartbeats, sold-out answers,
// the freeze of a rebuild), never on time alone; it proves that it struck, holds,
// heals, and the run measures how long it takes until nothing is under way. The
// verdict is that of engine/audit with the crowd's own log of every answer, and of
// loadtest/history over the same log; a role that ends by itself is a violation too.
//
// A run counts only if the fault lay inside its moment, is proven (process id, state
// or exit, connections and reads that met the toxic, what the server says) and at
// least MinRate orders a second were accepted before it. At before-open nothing can
// have been accepted: there the rate says nothing and is not asked for. A run that
// does not count is repeated, and counted as what it is.
//
// Everything that is chosen (order of the runs, how long a fault holds, which
// payments fail) follows from the seed. What the machine does in between does not:
// the same seed is the same experiment, not the same interleaving.
//
// A cell that breaks more than a process brings servers of its own (own.go): a Redis
// whose clock is wrong or whose replica lags, small disks (a tmpfs, so as root), a
// cluster of brokers. They lie beside the data of the others and end with the last run.
// What such a cell lacks (root, libfaketime, the build of `make shifted`) it says, and
// its runs do not count.
//
// It owns the roles it starts (children, killed with it) and the proxies between
// them; the servers must be private ones of engine/backing, because it kills them,
// and empties Redis before every run. It returns after all it started has ended. It
// reads no environment; who calls it passes one on to the children.
package chaos
