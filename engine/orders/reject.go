package orders

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/doorbuster/doorbuster/engine"
	"github.com/doorbuster/doorbuster/engine/postgres"
)

// MaxRejectedBytes bounds what is kept of a rejected message.
const MaxRejectedBytes = 256 << 10

// Rejected is an order that could not be ingested.
type Rejected struct {
	Order engine.OrderID // empty if not even that could be read
	Bytes []byte         // its line of the envelope, or the whole message; the first MaxRejectedBytes are kept
	Cause string
	// Known is the order as far as it was read, nil if it was not. Its hold is
	// given back by a move. One without lines is known by its id and hold only.
	Known *engine.Order
}

var errNotAnOrder = errors.New("cannot stand as an order")

// sound tells whether an order's lines are such that it can be written, added up and
// read again.
func sound(o *engine.Order) bool {
	for i := range o.Lines {
		if q := o.Lines[i].Quantity; q < 1 || q > engine.MaxQuantity {
			return false
		}
	}
	return len(o.Lines) > 0
}

// Reject keeps the bytes of an order that cannot be ingested, for the operator,
// and releases its hold if the order could be read: where that can be written,
// as an order cancelled (rejected), so that its buyer learns of it. Calling it
// again with the same bytes changes nothing. The sale need not exist.
func (s *Store) Reject(ctx context.Context, sale engine.SaleID, r Rejected) error {
	if err := s.keepRejected(ctx, sale, r); err != nil {
		return fmt.Errorf("reject order %s of sale %s: %w", r.Order, sale, err)
	}
	if r.Known == nil {
		return nil
	}
	err := errNotAnOrder
	if sound(r.Known) {
		err = s.endRejected(ctx, sale, r.Known, true)
	}
	if errors.Is(err, errNotAnOrder) || postgres.OfTheData(err) {
		err = s.endRejected(ctx, sale, r.Known, false)
	}
	if errors.Is(err, ErrNoSale) || postgres.OfTheData(err) {
		return nil // nothing can hold units for it, or nobody could write down what to release
	}
	return err
}

func (s *Store) keepRejected(ctx context.Context, sale engine.SaleID, r Rejected) error {
	if r.Bytes == nil {
		r.Bytes = []byte{}
	}
	_, err := s.pool.Exec(ctx, `INSERT INTO rejected (sale, order_id, bytes, cause) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING`,
		printable(string(sale)), printable(string(r.Order)), r.Bytes[:min(len(r.Bytes), MaxRejectedBytes)], printable(r.Cause))
	return err
}

// endRejected releases the hold of an order that PostgreSQL does not know.
func (s *Store) endRejected(ctx context.Context, sale engine.SaleID, o *engine.Order, asOrder bool) error {
	return s.inSale(ctx, "reject order of", sale, func(tx pgx.Tx, in saleInfo) error {
		if asOrder {
			g := ingestion{tx: tx, sale: in}
			written, _, err := g.insert(ctx, []*Arrival{{Order: *o}}, newRejected)
			if err != nil || len(written) == 0 {
				return err
			}
			return endRows(ctx, tx, in.no, []engine.OrderID{o.Order})
		}
		// What is held stands in the record that the hold names; the rest of the
		// order may be what cannot be written.
		if err := wake(ctx, tx, in.no); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, `INSERT INTO moves (sale_no, op, orders, hold_epoch, hold_seq, body)
			SELECT $1, $2, ARRAY[$3], $4, $5, $6 WHERE NOT EXISTS (SELECT FROM orders WHERE id = $3)
			ON CONFLICT ((orders[1]), hold_epoch, hold_seq, op) WHERE op IN (2, 3) DO UPDATE SET done = false`,
			in.no, engine.Release, o.Order, o.Hold.Epoch, o.Hold.Seq, int64(o.Body))
		return err
	})
}

// RejectedOf lists rejected orders of a sale, newest first. Known is nil.
func (s *Store) RejectedOf(ctx context.Context, sale engine.SaleID, limit int) ([]Rejected, error) {
	rows, err := s.pool.Query(ctx, `SELECT order_id, bytes, cause FROM rejected WHERE sale = $1 ORDER BY id DESC LIMIT $2`, sale, limit)
	if err != nil {
		return nil, fmt.Errorf("rejected of sale %s: %w", sale, err)
	}
	out, err := pgx.CollectRows(rows, func(r pgx.CollectableRow) (j Rejected, err error) {
		err = r.Scan(&j.Order, &j.Bytes, &j.Cause)
		return j, err
	})
	if err != nil {
		return nil, fmt.Errorf("rejected of sale %s: %w", sale, err)
	}
	return out, nil
}

// printable makes text of any bytes: PostgreSQL takes neither zero bytes nor
// broken UTF-8.
func printable(s string) string {
	out := make([]rune, 0, len(s))
	for _, r := range s {
		if r == 0 {
			r = '\uFFFD'
		}
		out = append(out, r)
	}
	return string(out)
}
