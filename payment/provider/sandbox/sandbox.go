// Package sandbox is a payment provider of our own: an HTTP server, in a process
// of its own, that behaves as badly as the script says.
package sandbox

import (
	"context"
	"errors"
	"net"
	"time"
)

// Script says how the sandbox behaves. What happens to a charge is chosen by Seed
// and key alone. Shares are per mille of the keys; the faults exclude each other.
// The zero value is a provider without faults.
type Script struct {
	Seed                   uint64
	Latency                time.Duration // of every answer
	DeclinePerMille        int
	TimeoutStoredPerMille  int           // first authorise: stored, then no answer
	TimeoutLostPerMille    int           // first authorise: not stored, and no answer
	ErrorStoredPerMille    int           // first authorise: stored, then 500
	ThrottlePerMille       int           // first authorise: 429
	CaptureRefusedPerMille int           // every capture: refused
	Hang                   time.Duration // how long a call without an answer is held; 0 is 10 s
}

// Serve answers on ln until ctx ends. The ledger file is replayed first and then
// appended to; it is created if it is not there. ln is closed on return.
func Serve(ctx context.Context, ln net.Listener, script Script, ledgerFile string) error {
	_ = ctx
	_, _ = script, ledgerFile
	return errors.Join(errors.New("not written yet"), ln.Close())
}
