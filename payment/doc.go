// Package payment takes accepted orders from the queue to their end: ingest,
// pay, capture, expire, compensate.
package payment
