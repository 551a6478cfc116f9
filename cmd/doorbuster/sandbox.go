package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"time"

	"github.com/doorbuster/doorbuster/payment/provider/sandbox"
)

// Names of the payment providers that a sale may choose.
const (
	instantProvider = "instant" // in process, for benches
	sandboxProvider = "sandbox" // a process of its own, with scripted faults
)

// SandboxCmd serves the sandbox provider.
type SandboxCmd struct {
	JSON           JSONFlag      `help:"Print JSON." name:"json"`
	Listen         string        `help:"Address to listen on." default:"127.0.0.1:8090"`
	Ledger         string        `required:"" help:"File of its ledger; it is appended to, and read again at a restart." placeholder:"FILE" type:"path"`
	Seed           uint64        `help:"Chooses which orders meet a fault." default:"1"`
	Latency        time.Duration `help:"Of every answer." default:"2ms"`
	Declines       int           `help:"Declined authorisations, per mille." default:"0"`
	TimeoutsStored int           `help:"Calls that succeed and are never answered, per mille." default:"0"`
	TimeoutsLost   int           `help:"Calls that fail and are never answered, per mille." default:"0"`
	ErrorsStored   int           `help:"Calls that succeed and are answered 500, per mille." default:"0"`
	ErrorsLost     int           `help:"Calls that fail and are answered 503, per mille." default:"0"`
	Throttled      int           `help:"Calls answered 429, per mille." default:"0"`
	CaptureRefused int           `help:"Keys whose capture is refused, per mille." default:"0"`
	Hang           time.Duration `help:"How long a call that is never answered is held." default:"3s"`
}

// Run serves until ctx ends.
func (c *SandboxCmd) Run(ctx context.Context, g *Globals) error {
	script := sandbox.Script{
		Seed: c.Seed, Latency: c.Latency, Hang: c.Hang, DeclinePerMille: c.Declines,
		TimeoutStoredPerMille: c.TimeoutsStored, TimeoutLostPerMille: c.TimeoutsLost,
		ErrorStoredPerMille: c.ErrorsStored, ErrorLostPerMille: c.ErrorsLost,
		ThrottlePerMille: c.Throttled, CaptureRefusedPerMille: c.CaptureRefused,
	}
	if err := script.Validate(); err != nil {
		return err
	}
	if err := writable(c.Ledger); err != nil {
		return fmt.Errorf("--ledger: %w", err)
	}
	ln, err := (&net.ListenConfig{}).Listen(ctx, "tcp", c.Listen)
	if err != nil {
		return fmt.Errorf("--listen: %w", err)
	}
	at := servingAt{URL: httpURL(ln.Addr().String())}
	if err := g.say(at, "sandbox provider at %s\n", at.URL); err != nil {
		return err
	}
	return sandbox.Serve(ctx, ln, script, c.Ledger)
}

// writable tells whether the ledger can be written, before anything is said to
// be served.
func writable(path string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	return f.Close()
}
