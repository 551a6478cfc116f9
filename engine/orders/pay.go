package orders

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
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
	Again        bool          // an attempt of this number may exist at the provider: look up first
	Age          time.Duration // since its ingest, by PostgreSQL's clock; 0 if it was claimed there
	CancelWished bool          // the buyer asked to cancel while it was paying: void if you can
}

// PaymentResult is how an attempt ended.
type PaymentResult int

// The results. Unknown is not among them: Defer.
const (
	Confirmed PaymentResult = 1
	Declined  PaymentResult = 2 // known declined; the order is cancelled (declined)
	Voided    PaymentResult = 3 // known voided, as the buyer wished; cancelled (buyer)
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

// Settle ends orders of one sale, at most MaxBatch: a compare-and-set on
// (paying, attempt), with the units given back and the move written in the same
// transaction. also, if not nil, runs in it too, with those confirmed by this
// call (it may run more than once, see postgres.InTx). The result has one entry
// per payment, in their order; of several for one order the first counts.
// Calling again changes nothing.
func (s *Store) Settle(ctx context.Context, sale engine.SaleID, payments []Payment,
	also func(ctx context.Context, tx pgx.Tx, confirmed []Payable) error,
) ([]Settled, error) {
	if len(payments) > MaxBatch {
		return nil, fmt.Errorf("settle sale %s: %d payments, at most %d", sale, len(payments), MaxBatch)
	}
	var out []Settled
	err := s.inSale(ctx, "settle", sale, func(tx pgx.Tx, in saleInfo) error {
		st := settlement{tx: tx, sale: in, ended: make(map[engine.OrderID]engine.OrderState, len(payments))}
		if err := st.finish(ctx, payments); err != nil {
			return err
		}
		// Before the units are given back: the rows of items are the ones that
		// everybody waits for.
		if also != nil && len(st.confirmed) > 0 {
			if err := also(ctx, tx, st.confirmed); err != nil {
				return err
			}
		}
		if err := giveBack(ctx, tx, in.no, st.back); err != nil {
			return err
		}
		if err := endRows(ctx, tx, in.no, st.endedIDs()); err != nil {
			return err
		}
		var err error
		out, err = st.results(ctx, payments)
		return err
	})
	return out, err
}

// settlement is one Settle transaction.
type settlement struct {
	tx        pgx.Tx
	sale      saleInfo
	confirmed []Payable
	back      []*engine.Order
	ended     map[engine.OrderID]engine.OrderState
}

func (st *settlement) endedIDs() []engine.OrderID {
	ids := make([]engine.OrderID, 0, len(st.ended))
	for i := range st.confirmed {
		ids = append(ids, st.confirmed[i].Order)
	}
	for _, o := range st.back {
		ids = append(ids, o.Order)
	}
	return ids
}

func (st *settlement) finish(ctx context.Context, payments []Payment) error {
	sorted := slices.Clone(payments)
	slices.SortStableFunc(sorted, func(a, b Payment) int { return strings.Compare(string(a.Order), string(b.Order)) })
	sorted = slices.CompactFunc(sorted, func(a, b Payment) bool { return a.Order == b.Order })
	var which attempts
	for _, p := range sorted {
		to, why := engine.Cancelled, engine.NoReason
		switch p.Result {
		case Confirmed:
			to = engine.Confirmed
		case Declined:
			why = engine.ReasonDeclined
		case Voided:
			why = engine.ReasonBuyer
		default:
			return fmt.Errorf("order %s: payment result %d: %w", p.Order, p.Result, ErrState)
		}
		which.add(p.Order, p.Attempt, to, why)
	}
	var err error
	st.confirmed, st.back, err = st.sale.finish(ctx, st.tx, engine.Paying, which)
	for i := range st.confirmed {
		st.ended[st.confirmed[i].Order] = engine.Confirmed
	}
	for _, o := range st.back {
		st.ended[o.Order] = engine.Cancelled
	}
	return err
}

// attempts are columns for a compare-and-set on (state, attempt).
type attempts struct {
	ids                  []string
	attempts, to, reason []int16
}

// anyAttempt is the attempt that matches whatever the order has.
const anyAttempt = -1

func (a *attempts) add(id engine.OrderID, attempt int, to engine.OrderState, why engine.Reason) {
	a.ids = append(a.ids, string(id))
	a.attempts = append(a.attempts, int16(attempt))
	a.to = append(a.to, int16(to))
	a.reason = append(a.reason, int16(why))
}

// finish ends orders of one state whose attempt is as expected: all in one
// statement, because two, each in the order of ids, would not keep that order
// between them (and met each other in deadlocks). It returns those confirmed,
// and of those cancelled what they had claimed.
func (in *saleInfo) finish(ctx context.Context, tx pgx.Tx, from engine.OrderState, which attempts) (confirmed []Payable, back []*engine.Order, err error) {
	if len(which.ids) == 0 {
		return nil, nil, nil
	}
	rows, err := tx.Query(ctx, `UPDATE orders o SET state = u.state, reason = u.reason, finished_at = now(), due_at = NULL
		FROM unnest($1::text[], $2::smallint[], $3::smallint[], $4::smallint[]) AS u(id, attempt, state, reason)
		WHERE o.id = u.id AND o.sale_no + 0 = $5 AND o.state = $6 AND u.attempt IN (-1, o.attempt)
		RETURNING o.id, o.buyer, o.total, o.attempt, o.state, CASE WHEN o.state = $7 THEN o.identities ELSE '' END,
			CASE WHEN o.state = $7 THEN o.lines ELSE '' END`,
		which.ids, which.attempts, which.to, which.reason, in.no, from, engine.Cancelled)
	if err != nil {
		return nil, nil, err
	}
	confirmed = make([]Payable, 0, len(which.ids))
	var id engine.OrderID
	var buyer engine.BuyerID
	var total int64
	var attempt int
	var state engine.OrderState
	var identities, lines string
	_, err = pgx.ForEachRow(rows, []any{&id, &buyer, &total, &attempt, &state, &identities, &lines}, func() error {
		if state == engine.Confirmed {
			confirmed = append(confirmed, in.payable(id, buyer, total, attempt))
			return nil
		}
		o := &engine.Order{Basket: engine.Basket{Order: id, Buyer: buyer}}
		back = append(back, o)
		return parseBasket(o, identities, lines)
	})
	return confirmed, back, err
}

func parseBasket(o *engine.Order, identities, lines string) (err error) {
	if o.Identities, err = engine.ParseIdentities(identities); err != nil {
		return fmt.Errorf("order %s: %w", o.Order, err)
	}
	if o.Lines, err = engine.ParseLines(lines); err != nil {
		return fmt.Errorf("order %s: %w", o.Order, err)
	}
	return nil
}

// results tells for each payment what its order is now; those that lost are read.
func (st *settlement) results(ctx context.Context, payments []Payment) ([]Settled, error) {
	out := make([]Settled, len(payments))
	var lost []string
	won := make(map[engine.OrderID]bool, len(payments))
	for i, p := range payments {
		out[i] = Settled{Order: p.Order, State: st.ended[p.Order], Attempt: p.Attempt}
		if out[i].State != 0 && !won[p.Order] {
			out[i].Won, won[p.Order] = true, true
			continue
		}
		lost = append(lost, string(p.Order))
	}
	if len(lost) == 0 {
		return out, nil
	}
	rows, err := st.tx.Query(ctx, `SELECT o.id, o.state, o.attempt FROM unnest($1::text[]) AS u(id) JOIN orders o ON o.id = u.id`, lost)
	if err != nil {
		return nil, err
	}
	now := make(map[engine.OrderID]Settled, len(lost))
	var r Settled
	if _, err := pgx.ForEachRow(rows, []any{&r.Order, &r.State, &r.Attempt}, func() error {
		now[r.Order] = r
		return nil
	}); err != nil {
		return nil, err
	}
	for i := range out {
		if !out[i].Won {
			out[i].State, out[i].Attempt = now[out[i].Order].State, cmp.Or(now[out[i].Order].Attempt, out[i].Attempt)
		}
	}
	return out, nil
}

// Defer makes paying orders of one sale due again after next. Orders that are
// not paying are left alone.
func (s *Store) Defer(ctx context.Context, sale engine.SaleID, orders []engine.OrderID, next time.Duration) error {
	return s.inSale(ctx, "defer orders of", sale, func(tx pgx.Tx, in saleInfo) error {
		rows, err := tx.Query(ctx, `UPDATE orders o SET due_at = now() + $3::interval FROM unnest($1::text[]) AS u(id)
			WHERE o.id = u.id AND o.sale_no + 0 = $2 AND o.state = $4 RETURNING o.id`, sortedStrings(orders), in.no, next, engine.Paying)
		if err != nil {
			return err
		}
		ids, err := pgx.CollectRows(rows, pgx.RowTo[engine.OrderID])
		if err != nil {
			return err
		}
		return workRows(ctx, tx, workRow{in.no, workPay, next}, ids)
	})
}

func sortedStrings(orders []engine.OrderID) []string {
	ids := asStrings(orders)
	slices.Sort(ids)
	return slices.Compact(ids)
}

// NextAttempt raises the attempt of a paying order whose attempt is known
// declined or voided, and leases it to the caller. False if it was not paying at
// that attempt.
func (s *Store) NextAttempt(ctx context.Context, sale engine.SaleID, order engine.OrderID, attempt int) (ok bool, err error) {
	err = s.inSale(ctx, "next attempt in", sale, func(tx pgx.Tx, in saleInfo) error {
		tag, err := tx.Exec(ctx, `UPDATE orders SET attempt = attempt + 1, due_at = now() + $4::interval
			WHERE id = $1 AND sale_no + 0 = $2 AND state = $5 AND attempt = $3`, order, in.no, attempt, DefaultLease, engine.Paying)
		if ok = tag.RowsAffected() == 1; err != nil || !ok {
			return err
		}
		return workRows(ctx, tx, workRow{in.no, workPay, DefaultLease}, []engine.OrderID{order})
	})
	return ok, err
}

// BeginCheckout turns a reserved order of a checkout sale to paying, attempt 1,
// due again after lease: called before the buyer is given a payment intent.
// False if the order is not reserved, or its deadline has passed.
func (s *Store) BeginCheckout(ctx context.Context, sale engine.SaleID, order engine.OrderID, lease time.Duration) (p Payable, ok bool, err error) {
	err = s.inSale(ctx, "begin checkout in", sale, func(tx pgx.Tx, in saleInfo) error {
		ok = false
		if in.payment != engine.PayCheckout {
			return fmt.Errorf("payment %s: %w", in.payment, ErrState)
		}
		var buyer engine.BuyerID
		var total int64
		err := tx.QueryRow(ctx, `UPDATE orders SET state = $4, attempt = 1, due_at = now() + $3::interval
			WHERE id = $1 AND sale_no + 0 = $2 AND state = $5 AND due_at > now() RETURNING buyer, total`,
			order, in.no, lease, engine.Paying, engine.Reserved).Scan(&buyer, &total)
		if errors.Is(err, pgx.ErrNoRows) {
			return nil
		}
		if err != nil {
			return err
		}
		p, ok = in.payable(order, buyer, total, 1), true
		return workRows(ctx, tx, workRow{in.no, workPay, lease}, []engine.OrderID{order})
	})
	return p, ok, err
}
