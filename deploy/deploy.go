// Package deploy carries the files by which Doorbuster's servers run in
// containers, so that the one binary needs no checkout. It holds bytes and
// nothing else: no state, no concurrency, nothing to stop, and it imports nothing
// of ours.
package deploy

import _ "embed" // for Compose

// Compose is compose.yaml: Redis, RabbitMQ, PostgreSQL and, under the profile
// "monitoring", Prometheus, for Docker Compose v2.
//
//go:embed compose.yaml
var Compose []byte
