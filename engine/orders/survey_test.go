package orders_test

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/doorbuster/doorbuster/engine"
	"github.com/doorbuster/doorbuster/engine/orders"
)

// survey reads a sale for the cuts that follow, until the next survey.
func (m *both) survey() {
	sale := m.sale()
	v, err := m.b.Survey(m.ctx, sale)
	m.same("survey", nil, err)
	m.seen[sale] = v
}

// A cut after a survey has what was written by a transaction that was under way when it
// was read, in a savepoint too, and what came later: its image is that of a cut which
// reads everything.
func TestSurveyMissesNothing(t *testing.T) {
	t.Parallel()
	b := setup(t)
	ctx := t.Context()
	b.ingest(b.order("ann", 1), b.order("bob", 1), b.order("cat", 1), b.order("dan", 1))
	under, err := b.pool.Begin(ctx)
	b.ok(err)
	end := func(q interface {
		Begin(ctx context.Context) (pgx.Tx, error)
	}, buyer string, state engine.OrderState,
	) {
		t.Helper()
		tx, err := q.Begin(ctx)
		b.ok(err)
		_, err = tx.Exec(ctx, `UPDATE orders SET state = $2, finished_at = now() WHERE buyer = $1`, buyer, state)
		b.ok(err)
		b.ok(tx.Commit(ctx))
	}
	end(under, "ann", engine.Confirmed)
	end(b.pool, "dan", engine.Confirmed) // over before
	v, err := b.Survey(ctx, b.sale.ID)
	b.ok(err)
	if v.Orders() != 4 {
		t.Fatalf("%d orders surveyed, want 4", v.Orders())
	}
	end(under, "bob", engine.Cancelled)
	b.ok(under.Commit(ctx))
	b.ingest(b.order("eve", 1))
	after, err := b.CutAfter(ctx, b.sale.ID, 1, v)
	b.ok(err)
	whole, err := b.Cut(ctx, b.sale.ID, 2)
	b.ok(err)
	if len(whole.Live) != 4 || len(whole.Tombstones) != 1 {
		t.Fatalf("%d live, %d tombstones", len(whole.Live), len(whole.Tombstones))
	}
	for _, img := range []*orders.Image{&after, &whole} {
		slices.SortFunc(img.Live, func(a, b orders.LiveOrder) int { return cmp.Compare(a.Order.Order, b.Order.Order) })
	}
	if got, want := fmt.Sprintf("%+v %+v", after.Live, after.Tombstones), fmt.Sprintf("%+v %+v", whole.Live, whole.Tombstones); got != want {
		t.Errorf("after the survey\n%s\nread as a whole\n%s", got, want)
	}
}
