package orders_test

import (
	"testing"

	"github.com/doorbuster/doorbuster/engine"
	"github.com/doorbuster/doorbuster/engine/orders"
)

func TestAnOrderIsReservedClaimedConfirmedAndMarked(t *testing.T) {
	t.Parallel()
	b := setup(t)
	o := b.order("ann", 2)
	o.Identities = []engine.Identity{{1}, {2}}
	b.reserved(o)
	if got := b.view(o); got.Order.Body != o.Body || got.Lines[0] != o.Lines[0] || len(got.Identities) != 2 || got.AcceptedAt != o.AcceptedAt {
		t.Errorf("read back: %+v, want %+v", got.Order, o)
	}
	if p := b.claim(); len(p) != 1 || p[0].Order != o.Order || p[0].Attempt != 1 || p[0].Again || p[0].Amount != (engine.Money{Amount: 3000, Currency: "KRW"}) {
		t.Fatalf("claimed %+v", p)
	}
	if p := b.claim(); len(p) != 0 {
		t.Fatalf("claimed again within the lease: %+v", p)
	}
	b.laws()
	if got := b.settle(orders.Confirmed, o); !got[0].Won || got[0].State != engine.Confirmed {
		t.Fatalf("settled %+v", got)
	}
	if got := b.settle(orders.Confirmed, o); got[0].Won || got[0].State != engine.Confirmed || got[0].Attempt != 1 {
		t.Fatalf("settled again %+v", got)
	}
	ms := b.moves()
	if len(ms) != 1 || ms[0].Op != engine.Settle || ms[0].Order != o.Order || ms[0].Hold != o.Hold || ms[0].Body != o.Body || len(ms[0].Identities) != 2 {
		t.Fatalf("moves %+v", ms)
	}
	if n := b.markAll(1); n != 1 || len(b.moves()) != 0 {
		t.Fatalf("marked %d, left %v", n, b.moves())
	}
	b.laws()
}
