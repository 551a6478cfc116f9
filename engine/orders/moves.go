package orders

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/doorbuster/doorbuster/engine"
)

// Moved says that a release row was applied.
type Moved struct {
	ID    int64
	Taken int64 // units a withdraw took
}

// maxMoveRows bounds the release rows of one reading.
const maxMoveRows = 1024

// moveRow is a release row, before its orders are read.
type moveRow struct {
	move   engine.Move
	op     int16
	orders []string
}

// PendingMoves lists moves of one sale that Redis has not followed, oldest rows
// first, about limit of them: never a part of a row. A row that settles or
// releases a batch of orders is returned as one Move per order, all with the
// row's ID: mark the row when all of them were applied, never before.
func (s *Store) PendingMoves(ctx context.Context, sale engine.SaleID, limit int) ([]engine.Move, error) {
	in, err := s.info(ctx, sale)
	if err != nil {
		return nil, fmt.Errorf("pending moves: %w", err)
	}
	rows, err := s.pendingRows(ctx, in.no, limit)
	if err != nil {
		return nil, fmt.Errorf("pending moves of sale %s: %w", sale, err)
	}
	var ids []string
	for i := range rows {
		if rows[i].op == opOutcome {
			ids = append(ids, rows[i].orders...)
		}
	}
	outcomes, err := s.outcomes(ctx, ids)
	if err != nil {
		return nil, fmt.Errorf("pending moves of sale %s: %w", sale, err)
	}
	moves := make([]engine.Move, 0, len(ids)+len(rows))
	for i := range rows {
		m := rows[i].move
		if m.Sale = sale; rows[i].op != opOutcome {
			moves = append(moves, m)
			continue
		}
		for _, id := range rows[i].orders {
			o, ok := outcomes[id]
			if !ok {
				return nil, fmt.Errorf("move %d of sale %s: order %s has not ended", m.ID, sale, id)
			}
			o.ID, o.Sale = m.ID, sale
			moves = append(moves, o)
		}
	}
	return moves, nil
}

func (s *Store) pendingRows(ctx context.Context, no int32, limit int) ([]moveRow, error) {
	limit = max(limit, 1)
	// Rows are taken until those before have limit orders between them.
	rows, err := s.pool.Query(ctx, `WITH few AS (SELECT id, sum(n) OVER (ORDER BY id) - n AS before FROM
			(SELECT id, n FROM moves WHERE sale_no = $1 AND NOT done ORDER BY id LIMIT $3) m)
		SELECT m.id, m.op, m.orders, m.hold_epoch, m.hold_seq, m.body, m.buyer, m.identities, m.lines
		FROM few, LATERAL (SELECT * FROM moves WHERE id = few.id OFFSET 0) m WHERE few.before < $2 ORDER BY m.id`, no, limit, min(limit, maxMoveRows))
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(r pgx.CollectableRow) (row moveRow, err error) {
		var body int64
		var identities, lines string
		m := &row.move
		if err := r.Scan(&m.ID, &row.op, &row.orders, &m.Hold.Epoch, &m.Hold.Seq, &body, &m.Buyer, &identities, &lines); err != nil {
			return row, err
		}
		m.Op, m.Body = engine.MoveOp(row.op), uint64(body)
		if len(row.orders) > 0 && row.op != opOutcome {
			m.Order = engine.OrderID(row.orders[0])
		}
		if m.Identities, err = engine.ParseIdentities(identities); err != nil {
			return row, fmt.Errorf("move %d: %w", m.ID, err)
		}
		if lines != "" {
			m.Lines, err = engine.ParseLines(lines)
		}
		return row, err
	})
}

// outcomes reads how orders ended, as moves without ID.
func (s *Store) outcomes(ctx context.Context, ids []string) (map[string]engine.Move, error) {
	if len(ids) == 0 {
		return nil, nil
	}
	rows, err := s.pool.Query(ctx, `SELECT o.id, o.state, o.hold_epoch, o.hold_seq, o.body, o.buyer, o.identities, o.lines
		FROM unnest($1::text[]) AS u(id) JOIN orders o ON o.id = u.id WHERE o.state IN ($2, $3)`, ids, engine.Confirmed, engine.Cancelled)
	if err != nil {
		return nil, err
	}
	out := make(map[string]engine.Move, len(ids))
	var o engine.Order
	var state engine.OrderState
	var body int64
	var identities, lines string
	_, err = pgx.ForEachRow(rows, []any{&o.Order, &state, &o.Hold.Epoch, &o.Hold.Seq, &body, &o.Buyer, &identities, &lines}, func() error {
		if err := parseBasket(&o, identities, lines); err != nil {
			return err
		}
		op := engine.Release
		if state == engine.Confirmed {
			op = engine.Settle
		}
		out[string(o.Order)] = engine.Move{
			Op: op, Order: o.Order, Hold: o.Hold, Buyer: o.Buyer, Identities: o.Identities, Lines: o.Lines,
			Body: uint64(body),
		}
		return nil
	})
	return out, err
}

// MarkMoved marks rows as applied in that epoch. moved is true, and nothing was
// marked, if the sale is frozen or of another epoch by now. An ID that stands
// in rows more than once is marked once; marking again changes nothing. done
// counts rows. A withdraw whose units orders have claimed meanwhile stays
// pending: Redis forgot those orders, and the rebuild that follows takes it up.
func (s *Store) MarkMoved(ctx context.Context, sale engine.SaleID, epoch int64, rows []Moved) (done int, moved bool, err error) {
	sorted := slices.Clone(rows)
	slices.SortStableFunc(sorted, func(a, b Moved) int { return cmp.Compare(a.ID, b.ID) })
	sorted = slices.CompactFunc(sorted, func(a, b Moved) bool { return a.ID == b.ID })
	ids, taken := make([]int64, len(sorted)), make([]int64, len(sorted))
	for i, r := range sorted {
		ids[i], taken[i] = r.ID, r.Taken
	}
	err = s.inSale(ctx, "mark moves of", sale, func(tx pgx.Tx, in saleInfo) error {
		done, moved = 0, false
		var present int64
		var frozen bool
		if err := tx.QueryRow(ctx, `SELECT epoch, frozen FROM sales WHERE no = $1`, in.no).Scan(&present, &frozen); err != nil {
			return err
		}
		if moved = frozen || present != epoch; moved {
			return nil
		}
		var err error
		done, err = mark(ctx, tx, in.no, ids, taken)
		return err
	})
	return done, moved, err
}

func mark(ctx context.Context, tx pgx.Tx, no int32, ids, taken []int64) (done int, err error) {
	// A row that an ingest makes pending again at this moment is skipped, not
	// waited for: it is to be applied again. LATERAL, and a condition that no partial
	// index has: else the planner reads all rows, or all that are pending, for each.
	rows, err := tx.Query(ctx, `UPDATE moves m SET done = true, done_at = now(), taken = u.taken FROM (
			SELECT m.id, u.taken FROM unnest($2::bigint[], $3::bigint[]) AS u(id, taken), LATERAL (
				SELECT id, sale_no, done FROM moves WHERE id = u.id AND done::integer = 0 FOR UPDATE SKIP LOCKED) m
			WHERE m.sale_no = $1 OFFSET 0) u
		WHERE m.id = u.id RETURNING m.id, m.op, m.lines, m.taken`, no, ids, taken)
	if err != nil {
		return 0, err
	}
	type withdrawal struct {
		id int64
		skuUnits
	}
	var withdrawn []withdrawal
	var id, n int64
	var op engine.MoveOp
	var lines string
	if _, err := pgx.ForEachRow(rows, []any{&id, &op, &lines, &n}, func() error {
		done++
		if op != engine.Withdraw || n == 0 {
			return nil
		}
		l, err := engine.ParseLines(lines)
		if err == nil {
			withdrawn = append(withdrawn, withdrawal{id, skuUnits{l[0].SKU, n}})
		}
		return err
	}); err != nil {
		return 0, err
	}
	slices.SortFunc(withdrawn, func(a, b withdrawal) int { return cmp.Or(cmp.Compare(a.sku, b.sku), cmp.Compare(a.id, b.id)) })
	for _, w := range withdrawn { // few, by hand
		tag, err := tx.Exec(ctx, `UPDATE items SET units = units - $3 WHERE sale_no = $1 AND sku = $2 AND claimed <= units - $3`, no, w.sku, w.n)
		if err != nil {
			return 0, err
		}
		if tag.RowsAffected() == 1 {
			continue
		}
		done--
		if _, err := tx.Exec(ctx, `UPDATE moves SET done = false, taken = 0 WHERE id = $1`, w.id); err != nil {
			return 0, err
		}
	}
	return done, nil
}

// maxSalesWithMoves bounds the sales of one answer.
const maxSalesWithMoves = 1 << 14

// SalesWithMoves lists the sales that have moves which Redis has not followed, in no
// order, some thousands at most. It costs one look into an index for each
// of them, however many moves they have and however many sales have none.
func (s *Store) SalesWithMoves(ctx context.Context) ([]engine.SaleID, error) {
	rows, err := s.pool.Query(ctx, `WITH RECURSIVE p AS (
			(SELECT sale_no FROM moves WHERE NOT done ORDER BY sale_no, id LIMIT 1)
			UNION ALL
			SELECT (SELECT m.sale_no FROM moves m WHERE NOT m.done AND m.sale_no > p.sale_no ORDER BY m.sale_no, m.id LIMIT 1)
			FROM p WHERE p.sale_no IS NOT NULL)
		SELECT s.id FROM p JOIN sales s ON s.no = p.sale_no LIMIT $1`, maxSalesWithMoves)
	if err != nil {
		return nil, fmt.Errorf("sales with moves: %w", err)
	}
	sales, err := pgx.CollectRows(rows, pgx.RowTo[engine.SaleID])
	if err != nil {
		return nil, fmt.Errorf("sales with moves: %w", err)
	}
	return sales, nil
}

// Backlog counts the release rows of a sale that wait.
func (s *Store) Backlog(ctx context.Context, sale engine.SaleID) (n int64, err error) {
	in, err := s.info(ctx, sale)
	if err == nil {
		err = s.pool.QueryRow(ctx, `SELECT count(*) FROM moves WHERE sale_no = $1 AND NOT done`, in.no).Scan(&n)
	}
	if err != nil {
		return 0, fmt.Errorf("backlog of moves: %w", err)
	}
	return n, nil
}

// HoldOf is an order under a hold.
type HoldOf struct {
	Order engine.OrderID
	Hold  engine.Hold
}

// Unknown returns those that PostgreSQL does not know under that hold: neither
// an order that has it, nor a row that gives it back.
func (s *Store) Unknown(ctx context.Context, sale engine.SaleID, holds []HoldOf) ([]HoldOf, error) {
	ids, epochs, seqs := make([]string, len(holds)), make([]int64, len(holds)), make([]int64, len(holds))
	for i, h := range holds {
		ids[i], epochs[i], seqs[i] = string(h.Order), h.Hold.Epoch, h.Hold.Seq
	}
	rows, err := s.pool.Query(ctx, `SELECT u.id, u.epoch, u.seq FROM unnest($1::text[], $2::bigint[], $3::bigint[]) AS u(id, epoch, seq)
		WHERE NOT EXISTS (SELECT FROM orders o WHERE o.id = u.id AND o.hold_epoch = u.epoch AND o.hold_seq = u.seq)
		AND NOT EXISTS (SELECT FROM moves m WHERE m.orders[1] = u.id AND m.hold_epoch = u.epoch AND m.hold_seq = u.seq AND m.op IN (2, 3))`,
		ids, epochs, seqs)
	if err != nil {
		return nil, fmt.Errorf("unknown holds of sale %s: %w", sale, err)
	}
	out, err := pgx.CollectRows(rows, func(r pgx.CollectableRow) (h HoldOf, err error) {
		err = r.Scan(&h.Order, &h.Hold.Epoch, &h.Hold.Seq)
		return h, err
	})
	if err != nil {
		return nil, fmt.Errorf("unknown holds of sale %s: %w", sale, err)
	}
	return out, nil
}
