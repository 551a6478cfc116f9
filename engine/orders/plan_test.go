package orders_test

import (
	"testing"

	"github.com/doorbuster/doorbuster/engine"
	"github.com/doorbuster/doorbuster/engine/orders"
	"github.com/doorbuster/doorbuster/engine/postgres"
)

// A soak once marked 1,024 rows of 18,000 by reading all 18,000 for each: the index of
// pending rows holds their ids too, and the planner took it. No deadline was met any
// more, and the more there was to mark, the less was marked.
func TestMarkingReadsNoMoreThanItMarks(t *testing.T) {
	t.Parallel()
	b := setup(t)
	ctx := t.Context()
	pool, err := postgres.Open(ctx, b.url, postgres.Options{MaxConns: 1})
	b.ok(err)
	defer pool.Close()
	store := orders.New(pool)
	add := func(n int) {
		t.Helper()
		_, err := pool.Exec(ctx, `INSERT INTO moves (sale_no, op, lines) SELECT no, $1, 'MUG*1*1500' FROM sales, generate_series(1, $2) WHERE id = $3`,
			engine.Restock, n, b.sale.ID)
		b.ok(err)
	}
	read := func() (n int64) {
		t.Helper()
		_, err := pool.Exec(ctx, `SELECT pg_stat_force_next_flush()`)
		b.ok(err)
		b.ok(pool.QueryRow(ctx, `SELECT sum(idx_tup_read)::bigint FROM pg_stat_user_indexes WHERE relname = 'moves'`).Scan(&n))
		return n
	}
	mark := func(most int) int {
		t.Helper()
		ms, err := store.PendingMoves(ctx, b.sale.ID, most)
		b.ok(err)
		rows := make([]orders.Moved, len(ms))
		for i := range ms {
			rows[i].ID = ms[i].ID
		}
		done, moved, err := store.MarkMoved(ctx, b.sale.ID, 1, rows)
		b.ok(err)
		if moved || done != len(rows) || done == 0 {
			t.Fatalf("%d of %d rows marked (moved: %v)", done, len(rows), moved)
		}
		return done
	}
	const few, many, batch = 60, 20_000, 1_000
	add(few)
	mark(few)
	_, err = pool.Exec(ctx, `ANALYZE moves`) // when the table was small, and nothing pending
	b.ok(err)
	add(few)
	mark(few) // sessions keep the plans of this
	add(many)
	before := read()
	done := mark(batch)
	// Each row is found to be pending, read whole, locked and changed; entries of rows
	// that were marked before are met as well.
	if n := read() - before; n > int64(8*done+4*few) {
		t.Errorf("%d index entries were read to mark %d rows", n, done)
	}
}
