package provider

import (
	"context"
	"iter"

	"github.com/doorbuster/doorbuster/engine"
)

// HTTP is a client of the sandbox's HTTP interface.
type HTTP struct{ url string }

// NewHTTP returns a client of the sandbox at this URL, as in
// http://127.0.0.1:17020.
func NewHTTP(url string) *HTTP { return &HTTP{url: url} }

// Close closes idle connections.
func (p *HTTP) Close() {}

// Authorise implements Provider.
func (p *HTTP) Authorise(context.Context, Request) (Auth, error) { return Auth{}, errStub }

// Capture implements Provider.
func (p *HTTP) Capture(context.Context, string, engine.Money) error { return errStub }

// Void implements Provider.
func (p *HTTP) Void(context.Context, string) error { return errStub }

// Refund implements Provider.
func (p *HTTP) Refund(context.Context, string, string, engine.Money) error { return errStub }

// Lookup implements Provider.
func (p *HTTP) Lookup(context.Context, string) (Charge, error) { return Charge{}, errStub }

// Ledger implements Auditor.
func (p *HTTP) Ledger(context.Context) iter.Seq2[Charge, error] {
	return func(func(Charge, error) bool) {}
}
