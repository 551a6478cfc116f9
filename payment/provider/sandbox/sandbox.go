// Package sandbox is a payment provider of our own: an HTTP server, in a process
// of its own, that behaves as badly as its [Script] says. Its interface is
// written down at provider.Wire, and provider.NewHTTP is the client.
//
// It owns one file, the ledger: append-only, a line per event, written before the
// event takes effect and before it is answered. The file is what the audit
// compares with the orders, so it must survive kill -9 of the sandbox (the page
// cache keeps a finished write); it is not synced, so not the machine's power cut.
// At start it is replayed; a last line that was cut off is removed.
//
// Invariants: those of provider.Provider; a charge is in the ledger before anyone
// hears of it; two processes never write one file (it is locked). What goes wrong
// is chosen by seed, operation and key alone, and only at the first call: a repeat
// of the same key meets the stored outcome.
//
// Concurrency: one lock around the book, held for one write(2). Serve blocks until
// every call has been answered or dropped; it stops when ctx ends, calls held back
// by the script are dropped at once, others have drainFor. It imports engine and
// payment/provider.
package sandbox

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"
)

const (
	defaultHang       = 10 * time.Second
	drainFor          = 3 * time.Second
	readHeaderTimeout = 5 * time.Second
	idleTimeout       = 2 * time.Minute
	maxBodyBytes      = 4 << 10
)

// Script says how the sandbox behaves. Shares are per mille of the keys. The five
// faults exclude each other and happen to the first authorise, and independently to
// the first capture and the first void, of a key. The zero value is a provider
// without faults.
type Script struct {
	Seed                   uint64
	Latency                time.Duration // of every answer
	DeclinePerMille        int
	TimeoutStoredPerMille  int           // done, then no answer
	TimeoutLostPerMille    int           // not done, and no answer
	ErrorStoredPerMille    int           // done, then 500
	ErrorLostPerMille      int           // not done, 503
	ThrottlePerMille       int           // not done, 429
	CaptureRefusedPerMille int           // every capture of the key: refused
	Hang                   time.Duration // how long "no answer" takes before the connection is closed; 0 is 10 s
}

// Validate tells which share is out of range, or nil.
func (s *Script) Validate() error {
	faults := 0
	for _, f := range []struct {
		name     string
		perMille int
		fault    bool
	}{
		{"declines", s.DeclinePerMille, false},
		{"refused captures", s.CaptureRefusedPerMille, false},
		{"time-outs that succeed", s.TimeoutStoredPerMille, true},
		{"time-outs that fail", s.TimeoutLostPerMille, true},
		{"errors that succeed", s.ErrorStoredPerMille, true},
		{"errors that fail", s.ErrorLostPerMille, true},
		{"throttled", s.ThrottlePerMille, true},
	} {
		if f.perMille < 0 || f.perMille > 1000 {
			return fmt.Errorf("sandbox script: %s: %d per mille", f.name, f.perMille)
		}
		if f.fault {
			faults += f.perMille
		}
	}
	if faults > 1000 {
		return fmt.Errorf("sandbox script: faults add up to %d per mille", faults)
	}
	if s.Latency < 0 || s.Hang < 0 {
		return errors.New("sandbox script: negative time")
	}
	return nil
}

// Serve answers on ln until ctx ends. The ledger file is replayed first and then
// appended to; it is created if it is not there. ln is closed on return. The end of
// ctx is no error.
func Serve(ctx context.Context, ln net.Listener, script Script, ledgerFile string) error {
	defer func() { _ = ln.Close() }()
	if err := script.Validate(); err != nil {
		return err
	}
	if script.Hang == 0 {
		script.Hang = defaultHang
	}
	b, err := openBook(ledgerFile)
	if err != nil {
		return err
	}
	s := &server{script: script, book: b, closing: make(chan struct{}), met: make(map[string]struct{})}
	srv := &http.Server{
		Handler: s.routes(), ReadHeaderTimeout: readHeaderTimeout, IdleTimeout: idleTimeout,
	}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(ln) }()
	select {
	case err = <-served:
	case <-ctx.Done():
		close(s.closing)
		last, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainFor)
		defer cancel()
		if srv.Shutdown(last) != nil {
			_ = srv.Close()
		}
		err = <-served
	}
	if errors.Is(err, http.ErrServerClosed) {
		err = nil
	}
	return errors.Join(err, b.close())
}
