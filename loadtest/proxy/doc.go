// Package proxy stands between two programs as the network does: a TCP proxy that
// passes what it hears, or delays, swallows or resets it as it is told.
//
// It owns a listener on the loopback and the connections through it. A delay makes
// nothing slower, only later: reads go on while what was read waits. Safe for use by
// many goroutines; Close returns when all of its own have ended. It imports the
// standard library only.
package proxy
