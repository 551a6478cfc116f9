//go:build race

package ticket_test

// Under the race detector sync.Pool drops things on purpose.
const raceEnabled = true
