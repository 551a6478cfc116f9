package audit_test

import (
	"testing"
	"time"

	"github.com/doorbuster/doorbuster/engine"
	"github.com/doorbuster/doorbuster/engine/audit"
)

// The laws hold for a settled sale, and also when its release rows have been
// pruned and its records and counters are no longer in Redis.
func TestSettledSalePasses(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.withQueues()
	b.sell()
	w, err := b.stock.Watch(t.Context(), b.sale.ID, 0)
	b.ok(err)
	b.ok(b.stock.SetState(t.Context(), b.sale.ID, w.Grip, engine.SaleClosed))
	b.ok(b.SetSaleState(t.Context(), b.sale.ID, engine.SaleClosed, note))
	settled, err := b.SettleSale(t.Context(), b.sale.ID, 1, note, nil)
	b.ok(err)
	if !settled {
		t.Fatal("a sale at rest was not settled")
	}
	passes := func(when string) {
		t.Helper()
		r := b.rest()
		for i := range r.Laws {
			if l := &r.Laws[i]; l.Holds != audit.Holds {
				t.Errorf("%s: law %d %s: %s", when, l.Number, l.Holds, l.Detail)
			}
		}
	}
	passes("settled")
	pruned, err := b.PruneSettled(t.Context(), 0, 1000)
	b.ok(err)
	if pruned == 0 {
		t.Fatal("nothing to prune")
	}
	b.ok(b.stock.Retire(t.Context(), b.sale.ID, 1, time.Millisecond))
	for _, part := range []string{"o", "b"} { // the server deletes what has run out when it is asked for it
		for deadline := time.Now().Add(5 * time.Second); ; {
			n, err := b.rdb.Exists(t.Context(), b.redisKey(part)).Result()
			b.ok(err)
			if n == 0 {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("%s does not go", b.redisKey(part))
			}
		}
	}
	passes("pruned")
}
