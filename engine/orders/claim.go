package orders

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/doorbuster/doorbuster/engine"
)

// ClaimOptions say what to claim.
type ClaimOptions struct {
	Sale  engine.SaleID // empty: the sale whose work is due first
	Limit int           // orders, at most MaxBatch; 0 is engine.MaxGroup
	Lease time.Duration // until then nobody else gets them; 0 is DefaultLease
}

// DefaultLease is how long a payer has before another may take its orders.
const DefaultLease = 30 * time.Second

// Claim takes due orders of one sale: reserved ones of at-order sales become
// paying, attempt 1; paying ones whose time has come are handed out again with
// the attempt they have. Rows that another payer is taking are skipped. None
// due: none returned.
func (s *Store) Claim(ctx context.Context, opt ClaimOptions) ([]Payable, error) {
	if opt.Limit <= 0 {
		opt.Limit = engine.MaxGroup
	}
	opt.Limit = min(opt.Limit, MaxBatch)
	if opt.Lease <= 0 {
		opt.Lease = DefaultLease
	}
	for range maxClaimRounds {
		out, took, err := s.claimOnce(ctx, opt)
		if err != nil {
			return nil, fmt.Errorf("claim: %w", err)
		}
		if len(out) > 0 || took == 0 {
			slices.SortFunc(out, func(a, b Payable) int { return strings.Compare(string(a.Order), string(b.Order)) })
			return out, nil
		}
	}
	return nil, nil
}

// maxClaimRounds bounds how many batches of work that turns out to be done
// already one Claim passes over.
const maxClaimRounds = 64

// claimOnce takes some rows of work, and of their orders those that are due.
func (s *Store) claimOnce(ctx context.Context, opt ClaimOptions) (out []Payable, took int, err error) {
	err = s.dueSale(ctx, workPay, opt.Sale, func(tx pgx.Tx, in saleInfo) error {
		out, took = nil, 0
		ids, err := takeWork(ctx, tx, workRow{no: in.no, kind: workPay}, opt.Limit)
		if took = len(ids); err != nil || took == 0 {
			return err
		}
		open, err := in.due(ctx, tx, ids)
		if err != nil || len(open) == 0 {
			return err
		}
		out, err = in.lease(ctx, tx, open, opt.Lease)
		return err
	})
	return out, took, err
}

// due reads which of the orders are open and due, as they would be claimed:
// mostly none, as their payer ended them long before the lease. It locks
// nothing, for a lock is a write.
func (in *saleInfo) due(ctx context.Context, tx pgx.Tx, ids []string) ([]Payable, error) {
	rows, err := tx.Query(ctx, `SELECT o.id, o.buyer, o.total, o.attempt, o.wished, o.state,
		(1000 * extract(epoch FROM now() - o.ingested_at))::bigint FROM unnest($1::text[]) AS u(id)
		JOIN orders o ON o.id = u.id WHERE o.due_at <= now() AND o.sale_no + 0 = $2`, ids, in.no)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(r pgx.CollectableRow) (Payable, error) {
		var id engine.OrderID
		var buyer engine.BuyerID
		var total int64
		var attempt int
		var wished bool
		var state engine.OrderState
		var ageMS int64
		if err := r.Scan(&id, &buyer, &total, &attempt, &wished, &state, &ageMS); err != nil {
			return Payable{}, err
		}
		p := in.payable(id, buyer, total, attempt)
		p.Again, p.CancelWished, p.Age = state == engine.Paying, wished, time.Duration(ageMS)*time.Millisecond
		return p, nil
	})
}

// lease makes those of the orders paying that are still open and due, and
// returns them. Whether one was paying before is what due read: who changed it
// since then made it due later, or ended it.
func (in *saleInfo) lease(ctx context.Context, tx pgx.Tx, open []Payable, lease time.Duration) ([]Payable, error) {
	ids, at := make([]string, len(open)), make(map[string]int, len(open))
	for i := range open {
		ids[i], at[string(open[i].Order)] = string(open[i].Order), i
	}
	rows, err := tx.Query(ctx, `UPDATE orders o SET state = $4, attempt = greatest(o.attempt, 1), due_at = now() + $3::interval
		FROM unnest($1::text[]) AS u(id) WHERE o.id = u.id AND o.sale_no + 0 = $2 AND o.due_at <= now()
		RETURNING o.id, o.attempt, o.wished`, ids, in.no, lease, engine.Paying)
	if err != nil {
		return nil, err
	}
	leased := make([]engine.OrderID, 0, len(open))
	out := make([]Payable, 0, len(open))
	var id string
	var attempt int
	var wished bool
	if _, err := pgx.ForEachRow(rows, []any{&id, &attempt, &wished}, func() error {
		p := open[at[id]]
		p.Attempt, p.CancelWished = attempt, wished
		out, leased = append(out, p), append(leased, p.Order)
		return nil
	}); err != nil {
		return nil, err
	}
	return out, workRows(ctx, tx, workRow{in.no, workPay, lease}, leased)
}

// dueSale runs fn under the lock of the given sale, or of the one whose work of
// that kind has waited longest. No work: fn does not run.
func (s *Store) dueSale(ctx context.Context, kind int16, sale engine.SaleID, fn func(tx pgx.Tx, in saleInfo) error) error {
	if sale == "" {
		err := s.pool.QueryRow(ctx, `SELECT s.id FROM (SELECT sale_no FROM work WHERE kind = $1 AND due_at <= now()
			ORDER BY due_at LIMIT 1) w JOIN sales s ON s.no = w.sale_no`, kind).Scan(&sale)
		if errors.Is(err, pgx.ErrNoRows) {
			return nil
		}
		if err != nil {
			return err
		}
	}
	return s.inSale(ctx, "work of", sale, fn)
}

// maxWorkRows bounds the rows of work one transaction takes.
const maxWorkRows = 64

// takeWork takes due rows of work out of the table and returns their orders, at
// most limit, sorted. What is left of the last row goes back.
func takeWork(ctx context.Context, tx pgx.Tx, w workRow, limit int) ([]string, error) {
	rows, err := tx.Query(ctx, `SELECT id, orders FROM work WHERE kind = $1 AND sale_no = $2 AND due_at <= now()
		ORDER BY due_at LIMIT $3 FOR UPDATE SKIP LOCKED`, w.kind, w.no, min(limit, maxWorkRows))
	if err != nil {
		return nil, err
	}
	var taken []int64
	var ids, rest []string
	var id int64
	var orders []string
	var restOf int64
	if _, err := pgx.ForEachRow(rows, []any{&id, &orders}, func() error {
		room := limit - len(ids)
		switch {
		case room == 0:
		case len(orders) > room:
			restOf, rest = id, slices.Clone(orders[room:])
			ids = append(ids, orders[:room]...)
		default:
			taken = append(taken, id)
			ids = append(ids, orders...)
		}
		return nil
	}); err != nil {
		return nil, err
	}
	var b pgx.Batch
	if len(taken) > 0 {
		b.Queue(`DELETE FROM work WHERE id = ANY($1)`, taken)
	}
	if rest != nil {
		b.Queue(`UPDATE work SET orders = $2 WHERE id = $1`, restOf, rest)
	}
	slices.Sort(ids)
	return slices.Compact(ids), tx.SendBatch(ctx, &b).Close()
}
