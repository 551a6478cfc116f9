package orders

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

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

// MaxViews is the most orders one call of Orders reads.
const MaxViews = 1000

const selectView = `SELECT o.id, s.id, o.state, o.reason, o.attempt, o.wished, o.returned, o.hold_epoch, o.hold_seq, o.body, o.total,
	o.limit_buyer, o.limit_identity, o.accepted_at, o.ingested_at, o.due_at, o.finished_at, o.buyer, o.identities, o.lines,
	s.currency, s.provider FROM orders o JOIN sales s ON s.no = o.sale_no `

func scanView(r pgx.CollectableRow) (v View, err error) {
	var body int64
	var accepted time.Time
	var due, finished *time.Time
	var identities, lines string
	err = r.Scan(&v.Order.Order, &v.Sale, &v.State, &v.Reason, &v.Attempt, &v.CancelWished, &v.Returned, &v.Hold.Epoch, &v.Hold.Seq,
		&body, &v.Total, &v.LimitBuyer, &v.LimitIdentity, &accepted, &v.Ingested, &due, &finished, &v.Buyer, &identities, &lines,
		&v.Amount.Currency, &v.Provider)
	if err != nil {
		return View{}, err
	}
	v.Body, v.Amount.Amount = uint64(body), v.Total
	v.AcceptedAt, v.Ingested = accepted.UnixMilli(), v.Ingested.UTC()
	if due != nil {
		v.Due = due.UTC()
	}
	if finished != nil {
		v.Finished = finished.UTC()
	}
	return v, parseBasket(&v.Order, identities, lines)
}

func readView(ctx context.Context, q querier, id engine.OrderID, lock string) (View, error) {
	rows, err := q.Query(ctx, selectView+`WHERE o.id = $1`+lock, id)
	if err != nil {
		return View{}, fmt.Errorf("order %s: %w", id, err)
	}
	v, err := pgx.CollectExactlyOneRow(rows, scanView)
	if errors.Is(err, pgx.ErrNoRows) {
		return View{}, fmt.Errorf("order %s: %w", id, ErrNoOrder)
	}
	if err != nil {
		return View{}, fmt.Errorf("order %s: %w", id, err)
	}
	return v, nil
}

// Order reads an order. ErrNoOrder.
func (s *Store) Order(ctx context.Context, id engine.OrderID) (View, error) {
	return readView(ctx, s.pool, id, "")
}

// Orders reads up to MaxViews orders; those not known are left out. The order of
// the result is that of ids.
func (s *Store) Orders(ctx context.Context, ids []engine.OrderID) ([]View, error) {
	if len(ids) > MaxViews {
		return nil, fmt.Errorf("read %d orders, at most %d", len(ids), MaxViews)
	}
	return s.views(ctx, `JOIN unnest($1::text[]) WITH ORDINALITY AS u(id, n) ON u.id = o.id ORDER BY u.n`, asStrings(ids))
}

// OrdersOf lists a buyer's orders of one sale, newest first. ErrNoSale.
func (s *Store) OrdersOf(ctx context.Context, sale engine.SaleID, buyer engine.BuyerID, limit int) ([]View, error) {
	in, err := s.info(ctx, sale)
	if err != nil {
		return nil, err
	}
	return s.views(ctx, `WHERE o.sale_no = $1 AND o.buyer = $2 ORDER BY o.accepted_at DESC, o.id LIMIT $3`, in.no, buyer, limit)
}

// MayLack tells whether orders of the sale that were answered 202 may stand in neither
// PostgreSQL nor Redis: some are parked, or Redis' keys were made anew within the time
// given, and what the old ones held may be in the queue yet. ErrNoSale.
func (s *Store) MayLack(ctx context.Context, sale engine.SaleID, within time.Duration) (may bool, err error) {
	in, err := s.info(ctx, sale)
	if err != nil {
		return false, err
	}
	err = s.pool.QueryRow(ctx, `SELECT (epoch > 1 AND cut_at > now() - $2::interval) IS TRUE OR EXISTS (SELECT FROM parked WHERE sale_no = $1)
		FROM sales WHERE no = $1`, in.no, within).Scan(&may)
	if err != nil {
		return false, fmt.Errorf("what is under way in sale %s: %w", sale, err)
	}
	return may, nil
}

func (s *Store) views(ctx context.Context, where string, args ...any) ([]View, error) {
	rows, err := s.pool.Query(ctx, selectView+where, args...)
	if err != nil {
		return nil, fmt.Errorf("read orders: %w", err)
	}
	out, err := pgx.CollectRows(rows, scanView)
	if err != nil {
		return nil, fmt.Errorf("read orders: %w", err)
	}
	return out, nil
}
