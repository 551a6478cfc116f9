package provider

import (
	"context"
	"errors"
	"iter"

	"github.com/doorbuster/doorbuster/engine"
)

// Instant is a provider in this process that answers at once and forgets
// everything with the process: for benches and for tests.
type Instant struct {
	// Decline, if set, says which requests are declined. It must say the same of
	// the same request each time. Set it before the first call.
	Decline func(Request) bool
}

// NewInstant returns an empty instant provider that approves everything.
func NewInstant() *Instant { return &Instant{} }

var errStub = errors.New("not written yet")

// Authorise implements Provider.
func (p *Instant) Authorise(context.Context, Request) (Auth, error) { return Auth{}, errStub }

// Capture implements Provider.
func (p *Instant) Capture(context.Context, string, engine.Money) error { return errStub }

// Void implements Provider.
func (p *Instant) Void(context.Context, string) error { return errStub }

// Refund implements Provider.
func (p *Instant) Refund(context.Context, string, string, engine.Money) error { return errStub }

// Lookup implements Provider.
func (p *Instant) Lookup(context.Context, string) (Charge, error) { return Charge{}, errStub }

// Ledger implements Auditor.
func (p *Instant) Ledger(context.Context) iter.Seq2[Charge, error] {
	return func(func(Charge, error) bool) {}
}
