package payment_test

import (
	"testing"

	"github.com/doorbuster/doorbuster/engine"
	"github.com/doorbuster/doorbuster/engine/orders"
	"github.com/doorbuster/doorbuster/payment/provider"
)

// An order is accepted for five units under a limit of five. Then the limits are
// lowered to one, and Redis loses the order before it is ingested. It was promised:
// it is taken again, all five.
func TestRealLoweredLimitsKeepWhatWasAccepted(t *testing.T) {
	t.Parallel()
	r := newSite(t, "instant", provider.NewInstant())
	o := order(1, r.epoch)
	o.Lines[0].Quantity, o.Total = 5, 3500
	o.Body = engine.BodyHash(o.Lines, o.Total, "KRW")
	o.Identities = []engine.Identity{{1}}
	o.LimitBuyer, o.LimitIdentity = 5, 6
	r.publish(t, [][]byte{engine.AppendEnvelope(nil, &engine.Envelope{Sale: r.sale, Orders: []engine.Order{o}})})

	def, _, err := r.orders.Sale(t.Context(), r.sale)
	must(t, err)
	def.LimitPerBuyer, def.LimitPerIdentity = 1, 1
	_, err = r.orders.Redefine(t.Context(), def, orders.Note{Who: "test", Why: "fewer each"})
	must(t, err)
	r.rebuild(t) // from PostgreSQL, which knows nothing of the order

	r.start(t)
	if f := r.atRest(t, 1); f.confirmed != 1 {
		t.Errorf("%+v", f)
	}
	rec, found, err := r.stock.Record(t.Context(), r.sale, o.Order)
	must(t, err)
	if !found || rec.Order.Hold.Epoch != r.epoch || rec.Order.LimitBuyer != 5 || rec.Order.LimitIdentity != 6 {
		t.Errorf("record %+v, want it held in epoch %d under its own limits", rec, r.epoch)
	}
}
