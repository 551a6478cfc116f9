// Package loadtest is the crowd: it plays buyers against the HTTP API of a
// running engine and counts what they were told.
//
// Five ways to press:
//
//   - [RunCrowd] plays the demo's buyers. They wait for the open by the server's
//     clock, storm, honour Retry-After, repeat under their Idempotency-Key until
//     an answer is final, and come back while units return.
//   - [RunScenario] is an open loop in phases (idle, spike at the open, plateau,
//     sell-out) on the vegeta library, with latency by outcome.
//   - [RunClosed] is a closed loop for the ceiling: as many requests as the
//     connections carry.
//   - [RunOpen] is a lean open loop at a fixed rate. Vegeta's net/http client
//     takes more CPU than the door it measures (about 15,000 requests/s on two
//     cores), so percentiles at tens of thousands a second need this one.
//   - [RunArrivals] is an open loop in which each request has its time beforehand,
//     and a sample is kept of each: for overload, and how long it is felt.
//
// It owns its connections and nothing else. All but RunScenario write HTTP/1.1
// themselves over bare connections: requests are put together from prebuilt
// bytes and of an answer only what is needed is read, because the crowd shares
// two cores with what it measures.
//
// Invariants: a buyer never asks under a second key; every request leaves
// exactly one line in the client log; refusals are counted, never failures. In
// the open loops latency runs from when a request was due, not from when a
// worker came round to it, and that lag is reported beside it.
//
// Concurrency: one call starts a bounded number of goroutines and returns after
// all of them have ended, which the end of its ctx brings about.
//
// It imports engine, engine/ticket and engine/audit (the client log's form);
// never a package that serves.
package loadtest
