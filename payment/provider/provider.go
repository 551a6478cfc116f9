// Package provider is how Doorbuster speaks to a payment provider: authorise,
// capture, void, refund, look up. It has an in-process provider for benches
// ([Instant]) and a client of the HTTP sandbox ([HTTP]).
//
// It owns the meaning of "unknown". A call that timed out, met a 5xx or lost its
// connection returns [ErrUnknown]: the provider may have done it or not, and
// nobody may guess. The way out is always the same: [Provider.Lookup], and the
// same call again under the same key.
//
// Invariants every provider keeps:
//   - Authorise, Capture, Void and Refund are idempotent by key: a repeat meets
//     the stored outcome and moves no money.
//   - Void closes its key: nothing is authorised under it, now or later. A key
//     the provider never saw is closed as well, so an authorise that was delayed
//     on the way and comes after the void authorises nothing.
//   - A charge is captured at most once, never above what was authorised, and
//     refunded never above what was captured.
//
// Providers are safe for use by many goroutines and start none of their own, so
// there is nothing to stop but HTTP's idle connections ([HTTP.Close]). The package
// imports engine only, knows no order but its id, and writes no database.
package provider

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strconv"
	"strings"

	"github.com/doorbuster/doorbuster/engine"
)

// What a provider may answer instead of an outcome.
var (
	// ErrUnknown says that the call may or may not have happened: a time-out, a
	// 5xx, a lost connection. Look up, then repeat under the same key.
	ErrUnknown = errors.New("provider: outcome unknown")
	// ErrThrottled says that the provider did nothing and wants less traffic.
	// Repeat later under the same key.
	ErrThrottled = errors.New("provider: throttled")
	// ErrNotFound says that the provider has no charge under the key. After an
	// unknown outcome it does not say that none will come: repeat or void.
	ErrNotFound = errors.New("provider: no such charge")
	// ErrRefused says that the provider will not do this to that charge, now or
	// later: a capture it declines, a capture after a void, a refund above the
	// captured amount.
	ErrRefused = errors.New("provider: refused")
	// ErrMismatch says that the key was used before with other parameters.
	ErrMismatch = errors.New("provider: key used with other parameters")
)

// Outcome is what became of an authorisation.
type Outcome byte

// The outcomes of Authorise. The zero value means that none is known.
const (
	Approved Outcome = 1
	Declined Outcome = 2 // final for this key; so is a key that Void closed
)

// Request asks for an authorisation.
type Request struct {
	Key    string // see Key
	Order  engine.OrderID
	Buyer  engine.BuyerID
	Amount engine.Money
}

// Auth is the answer to a Request.
type Auth struct {
	Outcome Outcome
}

// Provider takes money for orders. Every method honours ctx; its end makes the
// outcome unknown.
type Provider interface {
	// Authorise reserves the amount under the key. ErrUnknown, ErrThrottled,
	// ErrMismatch.
	Authorise(ctx context.Context, r Request) (Auth, error)
	// Capture takes the authorised amount, or less. ErrUnknown, ErrThrottled,
	// ErrNotFound, ErrRefused.
	Capture(ctx context.Context, key string, amount engine.Money) error
	// Void gives an authorisation back and closes the key for good, also where
	// it was declined or never seen. ErrUnknown, ErrThrottled; ErrRefused if it
	// was captured.
	Void(ctx context.Context, key string) error
	// Refund gives back some of what was captured, once per refund key.
	// ErrUnknown, ErrThrottled, ErrNotFound, ErrRefused.
	Refund(ctx context.Context, key, refundKey string, amount engine.Money) error
	// Lookup reads the charge. ErrUnknown, ErrThrottled, ErrNotFound.
	Lookup(ctx context.Context, key string) (Charge, error)
}

// Batch is what a provider also offers if it takes many calls as one. Slices are
// parallel; a provider that implements it decides all of them or returns an
// error that holds for all.
type Batch interface {
	AuthoriseAll(ctx context.Context, rs []Request, out []Auth) error
	CaptureAll(ctx context.Context, cs []Capture, out []error) error
}

// Capture is one capture of a batch.
type Capture struct {
	Key    string
	Amount engine.Money
}

// Forgetful is a provider whose book is gone when its process ends. After a restart it
// does not know what it authorised and captured: it authorises again under the same
// key, and an audit finds confirmed orders without a charge. No money moves, so nobody
// is charged twice; for real sales it is not fit.
type Forgetful interface {
	Forgets()
}

// Auditor is a provider whose book can be read. The audit compares it with the
// orders.
type Auditor interface {
	// Ledger yields every charge once, in no order. An error ends it.
	Ledger(ctx context.Context) iter.Seq2[Charge, error]
}

// Key returns the idempotency key of an order's attempt, order:attempt.
func Key(order engine.OrderID, attempt int) string {
	return string(order) + ":" + strconv.Itoa(attempt)
}

// ParseKey reads what Key writes.
func ParseKey(key string) (engine.OrderID, int, error) {
	order, attempt, ok := strings.Cut(key, ":")
	n, err := strconv.Atoi(attempt)
	if !ok || err != nil || n < 1 {
		return "", 0, fmt.Errorf("key %q is not order:attempt", key)
	}
	id := engine.OrderID(order)
	if err := id.Validate(); err != nil {
		return "", 0, fmt.Errorf("key %q: %w", key, err)
	}
	return id, n, nil
}
