package audit_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/doorbuster/doorbuster/engine"
	"github.com/doorbuster/doorbuster/engine/orders"
)

// The number of an order that was rejected is spent, not missing: whatever is known
// of it, the sale comes to rest and only law 9 speaks, of an order put aside. Where
// nothing at all could be read the number is missing, and law 7 says so too.
func TestRejectedOrdersSpendTheirNumbers(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.withQueues()
	for name, c := range map[string]struct {
		known  func(o engine.Order) *engine.Order
		broken []int
	}{
		"the whole order": {func(o engine.Order) *engine.Order { return &o }, []int{9}},
		"its hold": {func(o engine.Order) *engine.Order {
			return &engine.Order{Basket: engine.Basket{Order: o.Order, Body: o.Body}, Hold: o.Hold}
		}, []int{8, 9}}, // answered 202, and no order that its buyer could see
		"nothing": {func(engine.Order) *engine.Order { return nil }, []int{7, 8, 9, 10, 13}},
	} {
		b.fresh()
		b.sell()
		o, outcome := b.ask("fay", engine.Line{SKU: "CAP", Quantity: 1, Price: capPrice})
		if outcome != engine.Accepted {
			t.Fatalf("%s: %v", name, outcome)
		}
		b.ok(b.Reject(t.Context(), b.sale.ID, orders.Rejected{Order: o.Order, Bytes: []byte(o.Order), Cause: "poison", Known: c.known(o)}))
		b.apply()
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		waiting, err := b.auditor.WaitForRest(ctx, b.sale.ID)
		cancel()
		if err != nil || waiting != "" {
			t.Errorf("%s: not at rest: %s, %v", name, waiting, err)
		}
		r := b.rest()
		if got := r.Broken(); !slices.Equal(got, c.broken) || !strings.Contains(r.Law(9).Detail, "1 orders rejected") {
			t.Errorf("%s: broken %v, want %v: %+v", name, got, c.broken, r.Laws)
		}
	}
}
