package orders_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/doorbuster/doorbuster/engine"
)

func (b *bundle) exec(sql string, args ...any) {
	b.t.Helper()
	_, err := b.pool.Exec(context.Background(), sql, args...)
	b.ok(err)
}

func (b *bundle) stateOf(sale engine.SaleID) engine.SaleState {
	b.t.Helper()
	s, _, err := b.Sale(context.Background(), sale)
	b.ok(err)
	return s.State
}

// settle tries to settle the sale in epoch 1.
func (b *bundle) settleSale() bool {
	b.t.Helper()
	ok, err := b.SettleSale(context.Background(), b.sale.ID, 1, note, nil)
	b.ok(err)
	return ok
}

// Only a sale that is closed and at rest in that epoch is settled.
func TestSettleSaleAtRestOnly(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.ingest(b.order("ann", 1))
	b.exec(`UPDATE orders SET state = $1`, engine.Confirmed)
	if b.settleSale() {
		t.Fatal("settled before it closed")
	}
	b.ok(b.SetSaleState(t.Context(), b.sale.ID, engine.SaleClosed, note))
	for name, c := range map[string]struct{ do, undo string }{
		"an order is reserved":  {`UPDATE orders SET state = 1`, `UPDATE orders SET state = 3`},
		"an order is paying":    {`UPDATE orders SET state = 2`, `UPDATE orders SET state = 3`},
		"a row is pending":      {`INSERT INTO moves (sale_no, op, lines) VALUES (1, 5, 'MUG*1*1')`, `DELETE FROM moves`},
		"an envelope is parked": {`INSERT INTO parked (sale_no, n, body) VALUES (1, 1, '')`, `DELETE FROM parked`},
		"a rebuild is going on": {`UPDATE sales SET frozen = true`, `UPDATE sales SET frozen = false`},
		"another epoch":         {`UPDATE sales SET epoch = 2`, `UPDATE sales SET epoch = 1`},
	} {
		b.exec(c.do)
		if b.settleSale() {
			t.Errorf("%s: settled", name)
		}
		b.exec(c.undo)
	}
	failed := errors.New("Redis is away")
	_, err := b.SettleSale(t.Context(), b.sale.ID, 1, note, func(context.Context) error { return failed })
	if !errors.Is(err, failed) || b.stateOf(b.sale.ID) != engine.SaleClosed {
		t.Errorf("%v; the sale is %s", err, b.stateOf(b.sale.ID))
	}
	if !b.settleSale() || b.stateOf(b.sale.ID) != engine.SaleSettled {
		t.Errorf("at rest, and the sale is %s", b.stateOf(b.sale.ID))
	}
	if got := led(t, b.Leader()); len(got) != 0 {
		t.Errorf("a settled sale is led: %q", got)
	}
	if ok, err := b.Freeze(t.Context(), b.sale.ID, 1); ok || err != nil {
		t.Errorf("a settled sale is frozen, and nobody leads it: %v, %v", ok, err)
	}
}

// Whatever Redis must follow wakes a settled sale: it is closed, and led again.
func TestSettledSaleWakes(t *testing.T) {
	t.Parallel()
	b := setup(t)
	ann, bob := b.order("ann", 1), b.order("bob", 1)
	b.ingest(ann)
	b.exec(`UPDATE orders SET state = $1, finished_at = now(), due_at = NULL`, engine.Confirmed)
	b.ok(b.SetSaleState(t.Context(), b.sale.ID, engine.SaleClosed, note))
	for i, c := range []struct {
		name string
		do   func()
	}{
		{"a message that slept", func() { b.ingest(bob); b.exec(`UPDATE orders SET state = 3, finished_at = now()`) }},
		{"a message that came again", func() { b.ingest(ann) }},
		{"a return", func() { _, err := b.Return(context.Background(), ann.Order, note); b.ok(err) }},
		{"an envelope that was set aside", func() {
			b.ok(b.Park(context.Background(), b.sale.ID, []engine.Order{b.order("cy", 1)}))
			_, ok, err := b.Parked(context.Background(), time.Minute, []engine.SaleID{"other", b.sale.ID})
			if err != nil || ok {
				t.Fatalf("of no other sale: %v, %v", ok, err)
			}
			p, ok, err := b.Parked(context.Background(), time.Minute, nil)
			if err != nil || !ok {
				t.Fatalf("%v, %v", ok, err)
			}
			b.ok(b.Unpark(context.Background(), p.ID))
		}},
		{"a restock", func() { _, err := b.Restock(context.Background(), b.sale.ID, "MUG", 1, note); b.ok(err) }},
	} {
		b.exec(`UPDATE moves SET done = true`)
		if !b.settleSale() {
			t.Fatalf("before %s: not settled", c.name)
		}
		c.do()
		if got := b.stateOf(b.sale.ID); got != engine.SaleClosed {
			t.Errorf("%s: the sale is %s", c.name, got)
		}
		want := []string{fmt.Sprint("drop ", 2*i+2)} // no number twice, whoever slept meanwhile
		if got := led(t, b.Leader()); !slices.Equal(got, want) {
			t.Errorf("%s: led %q, want %q", c.name, got, want)
		}
		b.exec(`DELETE FROM leaders`)
	}
}

// A finished order that comes again and again has one row beside its batch's.
func TestMetAgainHasOneRow(t *testing.T) {
	t.Parallel()
	b := setup(t)
	ann := b.order("ann", 1)
	b.ingest(ann)
	b.exec(`UPDATE orders SET state = $1, finished_at = now(), due_at = NULL`, engine.Confirmed)
	for range 3 {
		b.ingest(ann)
		n, err := b.Backlog(t.Context(), b.sale.ID)
		b.ok(err)
		if n != 1 {
			t.Fatalf("%d rows wait, want 1", n)
		}
		b.exec(`UPDATE moves SET done = true`)
	}
}

// Pruning takes a bounded number of rows, only of sales settled for long enough,
// and only those that told ends.
func TestPruneSettled(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.exec(`INSERT INTO moves (sale_no, op, done) SELECT 1, 0, true FROM generate_series(1, 5)`)
	b.exec(`INSERT INTO moves (sale_no, op, done, orders) VALUES (1, 2, true, '{x}'), (1, 5, true, '{}')`)
	prune := func(age time.Duration, want int) {
		t.Helper()
		if n, err := b.PruneSettled(t.Context(), age, 3); err != nil || n != want {
			t.Errorf("pruned %d, %v; want %d", n, err, want)
		}
	}
	prune(0, 0) // not settled
	b.ok(b.SetSaleState(t.Context(), b.sale.ID, engine.SaleClosed, note))
	if !b.settleSale() {
		t.Fatal("not settled")
	}
	prune(time.Hour, 0)
	prune(0, 3)
	prune(0, 2)
	prune(0, 0)
	var left int
	b.ok(b.pool.QueryRow(t.Context(), `SELECT count(*) FROM moves`).Scan(&left))
	if left != 2 {
		t.Errorf("%d rows left, want those of the drop and the restock", left)
	}
}
