// Package relay publishes again what a door accepted and did not publish: every
// entry of a sale's outbox that is older than [Age], because its door died, its
// broker was away, or the mark was lost.
//
// It owns nothing: entries belong to stock, and go when the broker has confirmed
// them. Invariant: an entry is marked only after the confirm. Duplicates are
// harmless, so any number of relays may work on the same sale, and a door may
// still be publishing what a relay publishes.
//
// Old epochs' outboxes are relayed like the present one's, until they are empty.
//
// Concurrency: a Relay is safe for many goroutines. Run has a
// goroutine for each sale in use, so that a sale whose Redis is silent delays no
// other, and returns when ctx ends and all of them have ended. A service that is
// down is logged once and tried again with the next pass.
//
// It imports engine, stock and queue; the list of sales comes through a small
// interface.
package relay
