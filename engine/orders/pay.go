package orders

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/doorbuster/doorbuster/engine"
)

// Payable is an order that a payer holds until its lease ends.
type Payable struct {
	Order        engine.OrderID
	Sale         engine.SaleID
	Buyer        engine.BuyerID
	Amount       engine.Money
	Provider     string
	Attempt      int
	Again        bool // an attempt of this number may exist at the provider: look up first
	CancelWished bool // the buyer asked to cancel while it was paying: void if you can
}

// ClaimOptions say what to claim.
type ClaimOptions struct {
	Sale  engine.SaleID // empty: the sale whose work is due first
	Limit int           // orders, at most MaxBatch; 0 is engine.MaxGroup
	Lease time.Duration // until then nobody else gets them; 0 is DefaultLease
}

// DefaultLease is how long a payer has before another may take its orders.
const DefaultLease = 30 * time.Second

// Claim takes due orders of one sale: reserved ones of at-order sales become
// paying, attempt 1; paying ones whose time has come are handed out again with
// the attempt they have. Rows that another payer is taking are skipped. None
// due: none returned.
func (s *Store) Claim(ctx context.Context, opt ClaimOptions) ([]Payable, error) { return nil, errTODO }

// PaymentResult is how an attempt ended.
type PaymentResult int

// The results. Unknown is not among them: Defer.
const (
	Confirmed PaymentResult = 1
	Declined  PaymentResult = 2 // known declined or voided
	Voided    PaymentResult = 3 // voided because the buyer wished to cancel
)

// Payment is the known end of an attempt.
type Payment struct {
	Order   engine.OrderID
	Attempt int
	Result  PaymentResult
}

// Settled is what became of a Payment.
type Settled struct {
	Order   engine.OrderID
	State   engine.OrderState // now; 0 if there is no such order
	Attempt int               // now
	Won     bool              // this call ended the order
}

// Settle ends orders of one sale: a compare-and-set on (paying, attempt), with
// the units given back and the move written in the same transaction. also, if
// not nil, runs in it too, with those confirmed by this call (it may run more
// than once, see postgres.InTx). The result has one entry per payment, in their
// order. Calling again changes nothing.
func (s *Store) Settle(ctx context.Context, sale engine.SaleID, payments []Payment,
	also func(ctx context.Context, tx pgx.Tx, confirmed []Payable) error,
) ([]Settled, error) {
	return nil, errTODO
}

// Defer makes paying orders of one sale due again after next. Orders that are
// not paying are left alone.
func (s *Store) Defer(ctx context.Context, sale engine.SaleID, orders []engine.OrderID, next time.Duration) error {
	return errTODO
}

// NextAttempt raises the attempt of a paying order whose attempt is known
// declined or voided, and leases it. False if it was not paying at that attempt.
func (s *Store) NextAttempt(ctx context.Context, sale engine.SaleID, order engine.OrderID, attempt int) (bool, error) {
	return false, errTODO
}

// BeginCheckout turns a reserved order of a checkout sale to paying, attempt 1,
// due again after lease: called before the buyer is given a payment intent.
func (s *Store) BeginCheckout(ctx context.Context, sale engine.SaleID, order engine.OrderID, lease time.Duration) (Payable, bool, error) {
	return Payable{}, false, errTODO
}
