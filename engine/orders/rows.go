package orders

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/doorbuster/doorbuster/engine"
)

// Kinds of work rows. Numbers are stored.
const (
	workPay      int16 = 1 // orders to pay, or whose payment is to be looked at again
	workDeadline int16 = 2 // reserved orders whose buyer has until then
)

// opOutcome is the op of a release row whose orders each say whether they are
// settled or released.
const opOutcome int16 = 0

func asStrings(ids []engine.OrderID) []string {
	out := make([]string, len(ids))
	for i, id := range ids {
		out[i] = string(id)
	}
	return out
}

// endRows writes the release rows of orders that are finished.
func endRows(ctx context.Context, tx pgx.Tx, no int32, ended []engine.OrderID) error {
	return inGroups(ctx, tx, ended, func(b *pgx.Batch, ids []string) {
		if b.Len() == 0 {
			b.Queue(wakeSQL, no)
		}
		b.Queue(`INSERT INTO moves (sale_no, op, n, orders) VALUES ($1, $2, $3, $4)`, no, opOutcome, len(ids), ids)
	})
}

type workRow struct {
	no   int32
	kind int16
	wait time.Duration // from now
}

// workRows writes down that orders are due after w.wait: the same time that
// their due_at was set to in this transaction.
func workRows(ctx context.Context, tx pgx.Tx, w workRow, orders []engine.OrderID) error {
	return inGroups(ctx, tx, orders, func(b *pgx.Batch, ids []string) {
		b.Queue(`INSERT INTO work (sale_no, kind, due_at, orders) VALUES ($1, $2, now() + $3::interval, $4)`, w.no, w.kind, w.wait, ids)
	})
}

func inGroups(ctx context.Context, tx pgx.Tx, orders []engine.OrderID, queue func(b *pgx.Batch, ids []string)) error {
	if len(orders) == 0 {
		return nil
	}
	var b pgx.Batch
	for ids := asStrings(orders); len(ids) > 0; {
		n := min(len(ids), engine.MaxGroup)
		queue(&b, ids[:n])
		ids = ids[n:]
	}
	return tx.SendBatch(ctx, &b).Close()
}

// againRows writes that the ends of finished orders are to be told again: one row
// per order and hold beside that of its batch, made pending again if it is there.
// They are sorted by order and hold.
func againRows(ctx context.Context, tx pgx.Tx, no int32, met []*Arrival) error {
	if len(met) == 0 {
		return nil
	}
	c := newColumns(len(met))
	for i, a := range met {
		if i == 0 || a.Order.Order != met[i-1].Order.Order {
			c.add(&a.Order)
		}
	}
	if err := wake(ctx, tx, no); err != nil {
		return err
	}
	_, err := tx.Exec(ctx, `INSERT INTO moves (sale_no, op, orders, hold_epoch, hold_seq)
		SELECT $1, $2, ARRAY[u.id], u.epoch, u.seq FROM unnest($3::text[], $4::bigint[], $5::bigint[]) AS u(id, epoch, seq)
		ON CONFLICT ((orders[1]), hold_epoch, hold_seq) WHERE op = 0 AND hold_seq > 0 DO UPDATE SET done = false`,
		no, opOutcome, c.id, c.epoch, c.seq)
	return err
}

// dropRows writes that holds of known orders are foreign and to be given back:
// one row per order and hold, made pending again if it is there. They are sorted
// by order and hold.
func dropRows(ctx context.Context, tx pgx.Tx, no int32, foreign []*Arrival) error {
	if len(foreign) == 0 {
		return nil
	}
	c := newColumns(len(foreign))
	for i, a := range foreign {
		if i == 0 || a.Order.Order != foreign[i-1].Order.Order || a.Hold != foreign[i-1].Hold {
			c.add(&a.Order)
		}
	}
	if err := wake(ctx, tx, no); err != nil {
		return err
	}
	_, err := tx.Exec(ctx, `INSERT INTO moves (sale_no, op, orders, hold_epoch, hold_seq, body, buyer, identities, lines)
		SELECT $1, $2, ARRAY[u.id], u.epoch, u.seq, u.body, u.buyer, u.identities, u.lines
		FROM unnest($3::text[], $4::bigint[], $5::bigint[], $6::bigint[], $7::text[], $8::text[], $9::text[])
			AS u(id, epoch, seq, body, buyer, identities, lines)
		ON CONFLICT ((orders[1]), hold_epoch, hold_seq, op) WHERE op IN (2, 3) DO UPDATE SET done = false`,
		no, engine.Drop, c.id, c.epoch, c.seq, c.body, c.buyer, c.identities, c.lines)
	return err
}

// payable is an order of the sale as a payer gets it.
func (in *saleInfo) payable(id engine.OrderID, buyer engine.BuyerID, total int64, attempt int) Payable {
	return Payable{
		Order: id, Sale: in.id, Buyer: buyer, Attempt: attempt, Provider: in.provider,
		Amount: engine.Money{Amount: total, Currency: in.currency},
	}
}
