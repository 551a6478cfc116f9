package audit_test

import (
	"testing"

	"github.com/doorbuster/doorbuster/engine"
	"github.com/doorbuster/doorbuster/engine/audit"
	"github.com/doorbuster/doorbuster/engine/orders"
)

// Histories that law 5 must not believe: ends that were made, or told, twice.
var endBreaks = []breach{
	{"ended twice", 5, "cancelled now, was ended 2 times", func(b *bundle, _ engine.Order) {
		b.sql(`INSERT INTO moves (sale_no, op, n, done, orders) SELECT sale_no, 0, 1, true, ARRAY[id] FROM orders WHERE buyer = 'cy'`)
	}},
	{"told two ends", 5, "told cancelled, before that confirmed", func(b *bundle, o engine.Order) {
		a := heard(o, "key-1")
		a.Status, a.Type = 200, audit.TypeCancelled
		b.say(a)
	}},
	{"another end than was told", 5, "its buyer was told that it is confirmed, it is cancelled", func(b *bundle, _ engine.Order) {
		b.sql(`UPDATE orders SET state = 4, reason = 6 WHERE buyer = 'ann'`)
	}},
	{"told an end, and is open", 5, "its buyer was told that it is confirmed, it is paying", func(b *bundle, _ engine.Order) {
		b.sql(`UPDATE orders SET state = 2, finished_at = NULL WHERE buyer = 'ann'`, `DELETE FROM moves`)
	}},
}

// An envelope that comes again has the end of its orders told again: under their holds,
// however often, it is the same end.
func TestAnEndThatIsToldAgainIsOne(t *testing.T) {
	t.Parallel()
	b := setup(t)
	o := b.sell()
	for range 2 {
		rep, err := b.Ingest(t.Context(), b.sale.ID, []orders.Arrival{{Order: o}})
		b.ok(err)
		if len(rep.Reserved) != 0 {
			t.Fatalf("taken again: %+v", rep)
		}
		b.apply()
	}
	var rows int
	b.ok(b.pool.QueryRow(t.Context(), `SELECT count(*) FROM moves WHERE op = 0 AND hold_seq > 0`).Scan(&rows))
	if l := b.rest().Law(5); l.Holds != audit.Holds || rows != 1 {
		t.Errorf("%d rows of repeats; law 5 %s: %s", rows, l.Holds, l.Detail)
	}
}
