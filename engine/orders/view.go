package orders

import (
	"context"
	"time"

	"github.com/doorbuster/doorbuster/engine"
)

// View is an order as its buyer and the operator see it. Times are UTC, zero if
// not yet.
type View struct {
	engine.Order
	Sale         engine.SaleID
	State        engine.OrderState
	Reason       engine.Reason
	Amount       engine.Money
	Provider     string
	Attempt      int
	CancelWished bool
	Returned     bool
	Ingested     time.Time
	Due          time.Time // reserved: the deadline, if the buyer's step is next; paying: the next try
	Finished     time.Time
}

// Order reads an order. ErrNoOrder.
func (s *Store) Order(ctx context.Context, id engine.OrderID) (View, error) { return View{}, errTODO }

// OrdersOf lists a buyer's orders of one sale, newest first.
func (s *Store) OrdersOf(ctx context.Context, sale engine.SaleID, buyer engine.BuyerID, limit int) ([]View, error) {
	return nil, errTODO
}

// RejectedOf lists rejected orders of a sale, newest first.
func (s *Store) RejectedOf(ctx context.Context, sale engine.SaleID, limit int) ([]Rejected, error) {
	return nil, errTODO
}
