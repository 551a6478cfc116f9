package door_test

import (
	"testing"
	"time"

	"github.com/doorbuster/doorbuster/engine"
	"github.com/doorbuster/doorbuster/engine/door"
	"github.com/doorbuster/doorbuster/engine/ticket"
)

var refusals = map[string]struct {
	option  option
	ask     func(b *bench) ask
	status  int
	problem string
}{
	"sold out": {
		option: units(0), status: 409, problem: "sold-out",
		ask: func(b *bench) ask { return ask{ticket: b.ticket("ann"), key: "k", body: oneMug} },
	},
	"closed": {
		option: func(_ *door.Config, s *engine.Sale) { s.State = engine.SaleClosed }, status: 409, problem: "closed",
		ask: func(b *bench) ask { return ask{ticket: b.ticket("ann"), key: "k", body: oneMug} },
	},
	"not open": {
		option: func(_ *door.Config, s *engine.Sale) { s.Opens = s.Opens.Add(30 * time.Minute) }, status: 409, problem: "not-open",
		ask: func(b *bench) ask { return ask{ticket: b.ticket("ann"), key: "k", body: oneMug} },
	},
	"early ticket": {
		status: 403, problem: "ticket-early",
		ask: func(b *bench) ask {
			return ask{ticket: b.ticket("ann", func(t *ticket.Ticket) { t.NotBefore = t.NotAfter }), key: "k", body: oneMug}
		},
	},
	"forged ticket": {
		status: 401, problem: "ticket-invalid",
		ask: func(b *bench) ask { return ask{ticket: b.ticket("ann") + "AAAA", key: "k", body: oneMug} },
	},
	"bad body": {
		status: 422, problem: "invalid",
		ask: func(b *bench) ask { return ask{ticket: b.ticket("ann"), key: "k", body: `{"lines":`} },
	},
	"throttled": {
		option: func(c *door.Config, _ *engine.Sale) { c.BuyerRate, c.BuyerBurst = 1e-3, 1 }, status: 429, problem: "throttled",
		ask: func(b *bench) ask { return ask{ticket: b.ticket("ann"), key: "k", body: oneMug} },
	},
	"overloaded": {
		option: func(c *door.Config, s *engine.Sale) { c.LagMax = 1 }, status: 503, problem: "overloaded",
		ask: func(b *bench) ask {
			b.want(b.buy("eve", "k"), 202, "")
			_ = b.stock.SetLag(b.Context(), testSale, b.grip(), 1000)
			b.watched()
			return ask{ticket: b.ticket("ann"), key: "k", body: oneMug}
		},
	},
	"sold out, with repeats remembered": {
		option: units(1), status: 409, problem: "sold-out",
		ask: func(b *bench) ask {
			b.broker.set(errReset, nil)
			b.want(b.buy("eve", "k"), 503, "outcome-unknown")
			b.watched()
			return ask{ticket: b.ticket("a-buyer-with-a-name-longer-than-thirty-two-bytes"), key: "k", body: oneMug}
		},
	},
	"sale page": {
		status: 200,
		ask:    func(*bench) ask { return ask{method: "GET", path: "/v1/sales/drop"} },
	},
}

// A refusal from memory costs no Redis command and no allocation, through the
// whole handler.
func TestRefusalsDoNotAllocate(t *testing.T) {
	for name, c := range refusals {
		t.Run(name, func(t *testing.T) {
			if c.option == nil {
				c.option = func(*door.Config, *engine.Sale) {}
			}
			b := setup(t, c.option)
			ctx := b.context(c.ask(b).bytes())
			b.serve(ctx)
			until(t, func() bool { // the first may have met a door that knew nothing yet
				ctx.Response.Reset()
				b.serve(ctx)
				r := b.read(&ctx.Response)
				return r.status == c.status && r.problem == c.problem
			})
			calls := b.stock.reserves.Load()
			allocations := testing.AllocsPerRun(100, func() {
				ctx.Response.Reset()
				b.serve(ctx)
			})
			b.want(b.read(&ctx.Response), c.status, c.problem)
			if b.stock.reserves.Load() != calls {
				t.Error("the script was asked")
			}
			if allocations != 0 && !raceEnabled {
				t.Errorf("%v allocations", allocations)
			}
		})
	}
}
