package orders

import (
	"context"

	"github.com/doorbuster/doorbuster/engine"
)

// Moved says that a release row was applied.
type Moved struct {
	ID    int64
	Taken int64 // units a withdraw took
}

// PendingMoves lists moves of one sale that Redis has not followed, oldest rows
// first, about limit of them: never a part of a row. A row that settles or
// releases a batch of orders is returned as one Move per order, all with the
// row's ID: mark the row when all of them were applied, never before.
func (s *Store) PendingMoves(ctx context.Context, sale engine.SaleID, limit int) ([]engine.Move, error) {
	return nil, errTODO
}

// MarkMoved marks rows as applied in that epoch. moved is true, and nothing was
// marked, if the sale is frozen or of another epoch by now. An ID that stands
// in rows more than once is marked once; marking again changes nothing. done
// counts rows.
func (s *Store) MarkMoved(ctx context.Context, sale engine.SaleID, epoch int64, rows []Moved) (done int, moved bool, err error) {
	return 0, false, errTODO
}

// Backlog counts the rows of a sale that wait.
func (s *Store) Backlog(ctx context.Context, sale engine.SaleID) (int64, error) { return 0, errTODO }

// HoldOf is an order under a hold.
type HoldOf struct {
	Order engine.OrderID
	Hold  engine.Hold
}

// Unknown returns those that PostgreSQL does not know under that hold: neither
// an order that has it, nor a drop that gave it back.
func (s *Store) Unknown(ctx context.Context, sale engine.SaleID, holds []HoldOf) ([]HoldOf, error) {
	return nil, errTODO
}
