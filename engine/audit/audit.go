package audit

import (
	"context"
	"errors"
	"io"
	"iter"
	"log/slog"
	"time"

	"github.com/doorbuster/doorbuster/engine"
	"github.com/doorbuster/doorbuster/engine/queue"
	"github.com/doorbuster/doorbuster/payment/provider"
)

// Ledger is the book of a payment provider: provider.Auditor.
type Ledger interface {
	Ledger(ctx context.Context) iter.Seq2[provider.Charge, error]
}

// Config says where to look. A URL that is empty, or does not answer, leaves its
// laws unchecked.
type Config struct {
	DatabaseURL string
	RedisURL    string
	Queue       queue.Config      // URL empty: queues are not looked at
	Ledgers     map[string]Ledger // by provider name
	Logger      *slog.Logger      // nil: none
	Now         func() time.Time  // nil: time.Now
}

// Auditor audits sales.
type Auditor struct{ cfg Config }

// Open returns an auditor. It connects to nothing yet; the error is for a URL
// that cannot be read.
func Open(cfg Config) (*Auditor, error) { return &Auditor{cfg: cfg}, nil }

// Close closes its connections.
func (a *Auditor) Close() {}

var errStub = errors.New("not written yet")

// Live checks what can be checked while the sale runs: laws 1 to 7 and 14. What
// it sees broken stays broken in every later report of this Auditor. The error
// is for ctx only.
func (a *Auditor) Live(ctx context.Context, sale engine.SaleID) (Report, error) {
	return Report{}, errStub
}

// AtRest checks every law. clientLog may be nil: laws 8, 11 and 12 are then
// unchecked. The error is for ctx and for a log that cannot be read.
func (a *Auditor) AtRest(ctx context.Context, sale engine.SaleID, clientLog io.Reader) (Report, error) {
	return Report{}, errStub
}

// WaitForRest polls until the sale is at rest as law 9 means it (and its moves
// are done), or ctx ends. It returns what is still under way, "" at rest.
func (a *Auditor) WaitForRest(ctx context.Context, sale engine.SaleID) (waiting string, err error) {
	return "", errStub
}

// Watch calls Live every interval and hands each report over, until ctx ends.
func (a *Auditor) Watch(ctx context.Context, sale engine.SaleID, every time.Duration, report func(Report)) error {
	return errStub
}
