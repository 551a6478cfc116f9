package orders

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

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

// saleOf finds the sale of an order. ErrNoOrder.
func (s *Store) saleOf(ctx context.Context, order engine.OrderID) (sale engine.SaleID, err error) {
	err = s.pool.QueryRow(ctx, `SELECT s.id FROM orders o JOIN sales s ON s.no = o.sale_no WHERE o.id = $1`, order).Scan(&sale)
	if errors.Is(err, pgx.ErrNoRows) {
		return "", fmt.Errorf("order %s: %w", order, ErrNoOrder)
	}
	if err != nil {
		return "", fmt.Errorf("order %s: %w", order, err)
	}
	return sale, nil
}

// Cancel ends a reserved order on its buyer's wish, or notes the wish if it is
// paying. Calling again gives the same answer, or a later one.
func (s *Store) Cancel(ctx context.Context, buyer engine.BuyerID, order engine.OrderID) (CancelOutcome, error) {
	sale, err := s.saleOf(ctx, order)
	if errors.Is(err, ErrNoOrder) {
		return CancelPending, nil
	}
	if err != nil {
		return 0, fmt.Errorf("cancel: %w", err)
	}
	var out CancelOutcome
	err = s.inSale(ctx, "cancel order of", sale, func(tx pgx.Tx, in saleInfo) error {
		var state engine.OrderState
		var reason engine.Reason
		err := tx.QueryRow(ctx, `SELECT state, reason FROM orders WHERE id = $1 AND buyer = $2 FOR UPDATE`, order, buyer).Scan(&state, &reason)
		if errors.Is(err, pgx.ErrNoRows) {
			out = CancelPending
			return nil
		}
		if err != nil {
			return err
		}
		switch {
		case state == engine.Reserved:
			out = CancelDone
			_, err = in.endReserved(ctx, tx, []string{string(order)}, engine.ReasonBuyer)
		case state == engine.Paying:
			out = CancelWished
			_, err = tx.Exec(ctx, `UPDATE orders SET wished = true WHERE id = $1 AND NOT wished`, order)
		case state == engine.Cancelled && reason == engine.ReasonBuyer:
			out = CancelDone
		default:
			out = CancelForbidden
		}
		return err
	})
	return out, err
}

// endReserved cancels reserved orders, gives back what they claimed and writes
// their release row.
func (in *saleInfo) endReserved(ctx context.Context, tx pgx.Tx, ids []string, why engine.Reason) (int, error) {
	var which attempts
	for _, id := range ids {
		which.add(engine.OrderID(id), anyAttempt, engine.Cancelled, why)
	}
	_, back, err := in.finish(ctx, tx, engine.Reserved, which)
	if err != nil {
		return 0, err
	}
	if err := giveBack(ctx, tx, in.no, back); err != nil {
		return 0, err
	}
	ended := make([]engine.OrderID, len(back))
	for i, o := range back {
		ended[i] = o.Order
	}
	return len(back), endRows(ctx, tx, in.no, ended)
}

// Expire cancels reserved orders whose deadline has passed, of whatever sales,
// at most limit, and returns how many. A payment that has begun keeps its order.
func (s *Store) Expire(ctx context.Context, limit int) (int, error) {
	n := 0
	for n < limit {
		took, ended := 0, 0
		err := s.dueSale(ctx, workDeadline, "", func(tx pgx.Tx, in saleInfo) error {
			ids, err := takeWork(ctx, tx, workRow{no: in.no, kind: workDeadline}, min(limit-n, MaxBatch))
			if took, ended = len(ids), 0; err != nil || took == 0 {
				return err
			}
			// A reserved order stands in one row of work, and that is due: whether
			// it is still reserved is all there is to ask.
			ended, err = in.endReserved(ctx, tx, ids, engine.ReasonExpired)
			return err
		})
		if err != nil {
			return n, fmt.Errorf("expire: %w", err)
		}
		if n += ended; took == 0 {
			break
		}
	}
	return n, nil
}

// Return takes a confirmed order back: its units are for sale again and count no
// longer for its buyer. The order stays confirmed; that it came back is a later
// record. False if it had been returned before. ErrNoOrder; ErrState if it is
// not confirmed.
func (s *Store) Return(ctx context.Context, order engine.OrderID, note Note) (returned bool, err error) {
	sale, err := s.saleOf(ctx, order)
	if err != nil {
		return false, fmt.Errorf("return: %w", err)
	}
	err = s.inSale(ctx, "return order to", sale, func(tx pgx.Tx, in saleInfo) error {
		returned = false
		v, err := readView(ctx, tx, order, " FOR UPDATE OF o")
		if err != nil {
			return err
		}
		if v.State != engine.Confirmed {
			return fmt.Errorf("order %s is %s: %w", order, v.State, ErrState)
		}
		if v.Returned {
			return nil
		}
		if _, err := tx.Exec(ctx, `UPDATE orders SET returned = true WHERE id = $1`, order); err != nil {
			return err
		}
		if err := giveBack(ctx, tx, in.no, []*engine.Order{&v.Order}); err != nil {
			return err
		}
		if err := wake(ctx, tx, in.no); err != nil {
			return err
		}
		var move int64
		err = tx.QueryRow(ctx, `INSERT INTO moves (sale_no, op, orders, hold_epoch, hold_seq, body, buyer, identities, lines)
			SELECT sale_no, $2, ARRAY[id], hold_epoch, hold_seq, body, buyer, identities, lines FROM orders WHERE id = $1 RETURNING id`,
			order, engine.Return).Scan(&move)
		if err != nil {
			return err
		}
		returned = true
		line := trailLine{what: engine.Return.String(), order: order, units: engine.Units(v.Lines), move: move}
		return writeTrail(ctx, tx, in.no, line, note)
	})
	return returned, err
}
