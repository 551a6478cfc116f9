package simulate

import (
	"fmt"
	"time"

	"github.com/doorbuster/doorbuster/engine"
	"github.com/doorbuster/doorbuster/engine/orders"
)

// plan is what kind of story a seed tells.
type plan struct {
	sales    int
	durable  bool // what Redis took it has on disk, unless it says otherwise
	checkout bool // buyers begin to pay by themselves, and holds run out
	opens    time.Duration
	closes   time.Duration // 0: not in this story
	settles  bool          // a sale that is closed gets the time to be settled
	rush     bool          // at the end the rest is sold
	replays  bool          // at the end everything comes again
}

const farAway = 24 * time.Hour

func (w *world) planned() plan {
	one := func(in int) bool { return w.rng.IntN(in) == 0 }
	p := plan{sales: 1, opens: -time.Hour, durable: one(6), checkout: one(6), rush: one(4), replays: one(4)}
	if one(8) {
		p.sales = 2
		w.count("two sales")
	}
	if one(6) {
		p.opens = w.between(3*time.Second, 8*time.Second)
		w.count("opens in the story")
	}
	if one(8) {
		p.closes, p.settles = w.between(9*time.Second, 20*time.Second), one(2)
		w.count("closes by its window")
	}
	if p.durable {
		w.count("durable mode")
	}
	if p.checkout {
		w.count("checkout")
	}
	return p
}

// shop is a sale of the story, and what is known about it that no service knows.
type shop struct {
	id     engine.SaleID
	skus   [2]engine.SKU
	prices [2]int64
	doors  []*doorway // of each door

	lead   orders.Lead // PostgreSQL's table of leads
	leader string

	window      // law 14
	priced bool // a price was changed
	pruned bool // tombstones were
	life   int  // of Redis, when its slot was last told that the sale is settled
	rushed bool // at the end somebody came for every unit that was left
}

var goods = [...][2]engine.SKU{{"A", "B"}, {"C", "D"}}

func (w *world) newShop(i int) *shop {
	s := &shop{id: saleID, skus: goods[i], prices: [2]int64{100, 250}, doors: make([]*doorway, doors)}
	if i > 0 {
		s.id = engine.SaleID(fmt.Sprint(saleID, i))
	}
	def := engine.Sale{
		ID: s.id, Name: "sim", KeyNumber: 1, Mode: engine.ModeStandard, Payment: engine.PayAtOrder, Provider: "bank", Currency: currency,
		Opens: dawn.Add(w.plan.opens), Closes: dawn.Add(farAway), LimitPerBuyer: limit, LimitPerIdentity: identityLimit,
		HoldFor: engine.DefaultHoldFor, ReplayWindow: engine.DefaultReplay,
		Items: []engine.Item{{SKU: s.skus[0], Price: s.prices[0], Units: 6 + w.rng.Int64N(6)}, {SKU: s.skus[1], Price: s.prices[1], Units: 3 + w.rng.Int64N(4)}},
	}
	if w.plan.durable {
		def.Mode = engine.ModeDurable
	}
	if w.plan.checkout {
		def.Payment, def.HoldFor = engine.PayCheckout, w.between(3*time.Second, 12*time.Second)
	}
	if w.plan.closes > 0 {
		def.Closes, def.ReplayWindow = dawn.Add(w.plan.closes), w.between(2*time.Second, time.Minute)
	}
	s.defined(&def)
	if err := w.db.m.CreateSale(w.ctx, def, orders.Note{}); err != nil {
		panic(err)
	}
	return s
}

// shop finds a sale of the story.
func (w *world) shop(id engine.SaleID) *shop {
	for _, s := range w.shops {
		if s.id == id {
			return s
		}
	}
	return nil
}

// body is what somebody asks for who has seen these prices.
func (s *shop) body(b basket, prices [2]int64) (body []byte, total int64) {
	lines := ""
	for i, n := range b {
		if n > 0 {
			if lines != "" {
				lines += ","
			}
			lines += fmt.Sprintf(`{"sku":%q,"quantity":%d}`, s.skus[i], n)
			total += int64(n) * prices[i]
		}
	}
	return fmt.Appendf(nil, `{"lines":[%s],"total":{"amount":%d,"currency":%q}}`, lines, total, currency), total
}
