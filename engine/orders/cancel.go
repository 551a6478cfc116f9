package orders

import (
	"context"

	"github.com/doorbuster/doorbuster/engine"
)

// CancelOutcome is the answer to a buyer who cancels.
type CancelOutcome int

// The answers.
const (
	CancelPending   CancelOutcome = 1 // PostgreSQL does not know the order (yet), or it is not his
	CancelDone      CancelOutcome = 2 // cancelled now, or by him before
	CancelWished    CancelOutcome = 3 // it is paying: the wish is kept, the payer voids if he can
	CancelForbidden CancelOutcome = 4 // confirmed, or cancelled for another reason
)

// Cancel ends a reserved order on its buyer's wish.
func (s *Store) Cancel(ctx context.Context, buyer engine.BuyerID, order engine.OrderID) (CancelOutcome, error) {
	return 0, errTODO
}

// Expire cancels reserved orders whose deadline has passed, of whatever sales,
// at most limit, and returns how many.
func (s *Store) Expire(ctx context.Context, limit int) (int, error) { return 0, errTODO }

// Return takes a confirmed order back: its units are for sale again and count no
// longer for its buyer. The order stays confirmed; that it came back is a later
// record. False if it had been returned before. ErrNoOrder, ErrState.
func (s *Store) Return(ctx context.Context, order engine.OrderID, note Note) (bool, error) {
	return false, errTODO
}
