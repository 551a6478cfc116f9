package orders

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/doorbuster/doorbuster/engine"
)

// newKind says as what an order is written.
type newKind int

const (
	newLive     newKind = iota // claims units, under its number
	newStray                   // claims units, beside the order that has its number
	newRefused                 // cancelled: the stock refused it when it was taken again
	newRejected                // cancelled: it could not be ingested
)

const insertOrders = `INSERT INTO orders (sale_no, state, reason, attempt, stray, due_at, finished_at,
		id, hold_epoch, hold_seq, accepted_at, limit_buyer, limit_identity, body, buyer, identities, lines, total)
	SELECT $1, $2, $3, $4, $5, now() + $6::interval, CASE WHEN $7 THEN now() END, u.* FROM unnest($8::text[], $9::bigint[], $10::bigint[], $11::timestamptz[],
		$12::bigint[], $13::bigint[], $14::bigint[], $15::text[], $16::text[], $17::text[], $18::bigint[]) AS u
`

// insertUnknown leaves out what is there already, insertNew fails on it.
const (
	insertUnknown = insertOrders + `ON CONFLICT DO NOTHING RETURNING id`
	insertNew     = insertOrders
)

// columns are orders turned by 90 degrees, as unnest wants them.
type columns struct {
	id, buyer, identities, lines                []string
	epoch, seq, limitBuyer, limitIdentity, body []int64
	total                                       []int64
	accepted                                    []time.Time
	text                                        []byte
}

func newColumns(n int) *columns {
	ints, strs := make([]int64, 6*n), make([]string, 4*n)
	cut := func(i int) []int64 { return ints[i*n : i*n : (i+1)*n] }
	words := func(i int) []string { return strs[i*n : i*n : (i+1)*n] }
	return &columns{
		id: words(0), buyer: words(1), identities: words(2), lines: words(3),
		epoch: cut(0), seq: cut(1), limitBuyer: cut(2), limitIdentity: cut(3), body: cut(4), total: cut(5),
		accepted: make([]time.Time, 0, n),
	}
}

func (c *columns) add(o *engine.Order) {
	c.id = append(c.id, string(o.Order))
	c.buyer = append(c.buyer, string(o.Buyer))
	c.text = engine.AppendIdentities(c.text[:0], o.Identities)
	c.identities = append(c.identities, string(c.text))
	c.text = engine.AppendLines(c.text[:0], o.Lines)
	c.lines = append(c.lines, string(c.text))
	c.epoch = append(c.epoch, o.Hold.Epoch)
	c.seq = append(c.seq, o.Hold.Seq)
	c.limitBuyer = append(c.limitBuyer, o.LimitBuyer)
	c.limitIdentity = append(c.limitIdentity, o.LimitIdentity)
	c.body = append(c.body, int64(o.Body))
	c.total = append(c.total, o.Total)
	c.accepted = append(c.accepted, o.Accepted())
}

// insert writes arrivals that are not there yet and tells them from those left
// over: known, or of a number that another order has.
func (in *ingestion) insert(ctx context.Context, arrivals []*Arrival, kind newKind) (written, left []*Arrival, err error) {
	if len(arrivals) == 0 {
		return nil, nil, nil
	}
	c := newColumns(len(arrivals))
	for _, a := range arrivals {
		c.add(&a.Order)
	}
	_, wait := in.plan()
	state, reason, attempt, due := engine.Reserved, engine.NoReason, 0, &wait
	switch {
	case kind == newRefused:
		state, reason, due = engine.Cancelled, engine.ReasonEpoch, nil
	case kind == newRejected:
		state, reason, due = engine.Cancelled, engine.ReasonRejected, nil
	case in.claims():
		state, attempt = engine.Paying, 1
	}
	args := []any{
		in.sale.no, state, reason, attempt, kind != newLive, due, state == engine.Cancelled,
		c.id, c.epoch, c.seq, c.accepted, c.limitBuyer, c.limitIdentity, c.body, c.buyer, c.identities, c.lines, c.total,
	}
	if in.mode == hopeful {
		_, err := in.tx.Exec(ctx, insertNew, args...)
		return arrivals, nil, err
	}
	rows, err := in.tx.Query(ctx, insertUnknown, args...)
	if err != nil {
		return nil, nil, err
	}
	ids, err := pgx.CollectRows(rows, pgx.RowTo[engine.OrderID])
	if err != nil {
		return nil, nil, err
	}
	if len(ids) == len(arrivals) {
		return arrivals, nil, nil
	}
	written, left = sift(arrivals, ids)
	return written, left, nil
}

// sift tells the arrivals named by ids from the others.
func sift(arrivals []*Arrival, ids []engine.OrderID) (named, others []*Arrival) {
	is := make(map[engine.OrderID]bool, len(ids))
	for _, id := range ids {
		is[id] = true
	}
	for _, a := range arrivals {
		if is[a.Order.Order] {
			named = append(named, a)
		} else {
			others = append(others, a)
		}
	}
	return named, others
}

// claims tells whether new orders are written as paying.
func (in *ingestion) claims() bool { return in.lease > 0 && in.sale.payment != engine.PayCheckout }
