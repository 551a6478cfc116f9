package orders

import (
	"context"
	"time"

	"github.com/doorbuster/doorbuster/engine"
)

// Arrival is an order on its way in.
type Arrival struct {
	engine.Order
	// Retaken: the order came back as stale and was reserved again; Hold is the
	// new hold, taken in Epoch.
	Retaken bool
	// Refused: as Retaken, but the stock refused. The order is written as
	// cancelled (epoch) under the Hold of its message. Epoch is the epoch that
	// refused.
	Refused bool
	Epoch   int64
}

// IngestReport says what became of the arrivals.
type IngestReport struct {
	Reserved  []engine.OrderID // new, to be paid
	Claimed   []Payable        // new, and leased to the caller: IngestAndClaim only
	Cancelled int              // new, but refused by a guard, or Refused
	Repeated  int              // known before under the same hold
	Foreign   int              // known before under another hold, which was dropped
	Forks     int              // among the stale: their sequence number names another order
	Stale     []engine.Order   // unknown and not of the present epoch: not ingested
	// Moved: the epoch is no longer the one a retake was made in. Nothing was
	// done; take again.
	Moved bool
}

// Ingest writes orders of one sale, at most MaxBatch, in one transaction under
// the sale's shared lock. ErrNoSale; an error for which postgres.OfTheData is
// true is one order's fault: call again order by order, and Reject the one that
// still fails. Calling again with the same orders changes nothing.
func (s *Store) Ingest(ctx context.Context, sale engine.SaleID, arrivals []Arrival) (IngestReport, error) {
	return IngestReport{}, errTODO
}

// IngestAndClaim is Ingest, but new orders of a sale that is paid at-order are
// written as paying, attempt 1, leased to the caller, who holds them in
// report.Claimed and pays them at once. It saves the transaction of Claim.
func (s *Store) IngestAndClaim(ctx context.Context, sale engine.SaleID, arrivals []Arrival, lease time.Duration) (IngestReport, error) {
	return IngestReport{}, errTODO
}

// Rejected is an order that could not be ingested.
type Rejected struct {
	Order engine.OrderID // empty if not even that could be read
	Bytes []byte         // its line of the envelope, or the whole message
	Cause string
	// Known is the order as far as it was read, nil if it was not. Its hold is
	// given back by a move.
	Known *engine.Order
}

// Reject keeps the bytes of an order that cannot be ingested, for the operator,
// and releases its hold if the order could be read. Calling it again with the
// same bytes changes nothing.
func (s *Store) Reject(ctx context.Context, sale engine.SaleID, r Rejected) error { return errTODO }
