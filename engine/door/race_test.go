//go:build race

package door_test

// Under the race detector sync.Pool drops things on purpose.
const raceEnabled = true
