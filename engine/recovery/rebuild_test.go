package recovery_test

import (
	"testing"

	"github.com/doorbuster/doorbuster/engine/orders"
)

func TestNewSaleIsLoaded(t *testing.T) {
	t.Parallel()
	w := setup(t, "")
	w.recover()
	watch := w.sells(1)
	if watch.Epoch != 1 || watch.Items[1].Available != mugs || watch.Items[0].Available != caps {
		t.Errorf("%+v", watch)
	}
	w.known(w.buy(3))
	w.counts(mugs-3, 3, 0)
}

// The whole way: orders held, sold and given back, then every key is gone. What
// PostgreSQL knows comes back; what never got a 202 does not.
func TestKeysAreLost(t *testing.T) {
	t.Parallel()
	w := setup(t, "")
	w.recover()
	w.sells(1)
	b := w.buy(30)
	w.known(b)
	w.pay(b[:10], orders.Confirmed)
	w.pay(b[10:15], orders.Declined)
	w.counts(mugs-25, 15, 10) // the applier has carried the moves
	w.reserve(4)              // and never published

	w.wipe()
	w.sells(2)
	w.counts(mugs-25, 15, 10)

	more := w.buy(5)
	w.known(more)
	w.pay(more, orders.Confirmed)
	w.counts(mugs-30, 15, 15)
}

// An order that was confirmed by the broker and not yet ingested when the keys
// were lost is taken again in the new epoch.
func TestQueuedOrdersOutliveTheKeys(t *testing.T) {
	t.Parallel()
	w := setup(t, "")
	w.recover()
	w.sells(1)
	w.halt.Lock() // the worker is slower than the drain waits
	b := w.buy(7)
	w.wipe()
	w.sells(2)
	w.halt.Unlock()
	w.known(b)
	w.counts(mugs-7, 7, 0)
	for i := range b {
		v, err := w.orders.Order(t.Context(), b[i].Order)
		w.ok(err)
		if v.Hold.Epoch < 2 || v.State.Terminal() {
			t.Errorf("order %s: hold %v, state %v", v.Order.Order, v.Hold, v.State)
		}
	}
}
