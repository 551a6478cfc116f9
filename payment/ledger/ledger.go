// Package ledger keeps the books of money in PostgreSQL: what was authorised for
// which order, and what moved.
package ledger

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/doorbuster/doorbuster/engine"
)

// State is where a charge stands. Numbers are stored; never renumber.
type State int16

// The states of a charge.
const (
	Authorised State = 1
	Captured   State = 2
	Voided     State = 3
	Refunded   State = 4
	Refused    State = 5 // the provider would not capture: an operator looks at it
)

// Charge is one authorisation that an order was confirmed by.
type Charge struct {
	Order    engine.OrderID
	Attempt  int
	Sale     engine.SaleID
	Provider string
	Amount   engine.Money
}

// Balance is one line of the trial balance.
type Balance struct {
	Account  string
	Currency string
	Amount   int64 // minor units; debits are positive
}

// Store reads and writes the books.
type Store struct{ pool *pgxpool.Pool }

// New returns a store on the pool.
func New(pool *pgxpool.Pool) *Store { return &Store{pool: pool} }

var errStub = errors.New("not written yet")

// Migrate brings the tables to this version. Safe to call twice and at once.
func Migrate(context.Context, string) error { return errStub }

// Authorise writes the charges of confirmed orders in the transaction that
// confirms them. A charge that is there already is left alone. They are due for
// capture after the given time.
func Authorise(context.Context, pgx.Tx, []Charge, time.Duration) error { return errStub }

// Capture marks charges captured and posts the movements, in one transaction. A
// charge that is not authorised (any more) is left alone. It returns how many
// were captured by this call.
func (s *Store) Capture(context.Context, []Charge) (int, error) { return 0, errStub }

// TrialBalance sums the postings by account and currency. Per currency the
// amounts add up to 0.
func (s *Store) TrialBalance(context.Context) ([]Balance, error) { return nil, errStub }
