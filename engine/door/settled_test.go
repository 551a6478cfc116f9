package door_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/doorbuster/doorbuster/engine"
)

// A settled sale has no heartbeat. It is closed for whoever asks anew, and a
// repeat hears how the order ended, with no lease to be had, also from a door that
// never had one.
func TestSettledSaleAnswersWithoutLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := setup(t)
		first := b.buy("ann", "k")
		b.want(first, 202, "")
		o := b.broker.orders(t)[0]
		b.settle(o)
		if err := b.stock.SetState(t.Context(), testSale, b.grip(), engine.SaleClosed); err != nil {
			t.Fatal(err)
		}
		b.stock.still.Store(true)
		time.Sleep(3 * time.Second) // every lease has run out
		b.want(b.buy("ann", "k", replay), 503, "sale-frozen")
		if err := b.stock.Retire(t.Context(), testSale, 1, time.Hour); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		again := b.buy("ann", "k", replay)
		b.want(again, 200, "")
		if again.order() != first.order() || again.body["status"] != "confirmed" {
			t.Errorf("the repeat: %s", again.raw)
		}
		b.want(b.buy("bob", "k"), 409, "closed")
		b.want(b.buy("bob", "k", replay), 409, "closed")
	})
}
