package stock_test

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/doorbuster/doorbuster/engine"
	"github.com/doorbuster/doorbuster/stock"
)

// TestModel runs random schedules against Redis and the model: after every step
// both have said the same and hold the same, and no counter is negative.
func TestModel(t *testing.T) {
	t.Parallel()
	w := shared(t)
	rapid.Check(t, func(rt *rapid.T) {
		m := newMachine(rt, w)
		rt.Repeat(rapid.StateMachineActions(m))
	})
}

// machine is the rest of the house, as far as the stock can tell: it knows what
// PostgreSQL would know, and asks nothing of the stock that the house would not.
type machine struct {
	*bundle
	rows   []engine.Move // written, applied or not; a rebuild covers them
	orders []*known
	nextID int64
	firsts []int64 // entries of the outbox in this epoch
}

// known is an order that PostgreSQL has.
type known struct {
	engine.Order
	fate     engine.MoveOp // Settle or Release, once decided
	returned bool
	pruned   bool
}

func newMachine(rt *rapid.T, w *world) *machine {
	m := &machine{}
	m.bundle = w.open(rt, func(s *engine.Sale) {
		s.LimitPerBuyer = rapid.Int64Range(0, 6).Draw(rt, "limit")
		s.LimitPerIdentity = rapid.Int64Range(0, 6).Draw(rt, "limit per identity")
		s.Items[0].Units = rapid.Int64Range(0, 20).Draw(rt, "mugs")
	})
	return m
}

// Check is what holds after every action, beside that both worlds are the same.
func (m *machine) Check(rt *rapid.T) {
	m.t = rt
	m.same()
	for _, it := range m.watch().Items {
		if min(it.Available, it.Held, it.Sold) < 0 || it.Available+it.Held+it.Sold != it.Units {
			rt.Fatalf("item %+v", it)
		}
	}
}

func (m *machine) draw(rt *rapid.T) engine.Basket {
	buyer, key := rapid.IntRange(0, 4).Draw(rt, "buyer"), rapid.IntRange(0, 8).Draw(rt, "key")
	var lines []string
	for _, sku := range []string{"MUG", "CAP.red", "HAT"} {
		if n := rapid.SampledFrom([]int{0, 0, 1, 1, 2, 5}).Draw(rt, sku); n > 0 && (sku != "HAT" || n == 5) {
			lines = append(lines, fmt.Sprintf("%s*%d", sku, n))
		}
	}
	if len(lines) == 0 {
		lines = []string{"MUG"}
	}
	b := basket(100*buyer+key, fmt.Sprint("buyer-", buyer), lines...)
	for i := range b.Lines { // at the price in force, unless it is the wrong one
		it, _ := m.def.Item(b.Lines[i].SKU)
		if it != nil {
			b.Lines[i].Price = it.Price
		}
	}
	b.Total, _ = engine.Total(b.Lines)
	if rapid.IntRange(0, 15).Draw(rt, "wrong total") == 0 {
		b.Total++
	}
	b.Body = engine.BodyHash(b.Lines, b.Total, "KRW")
	b.Max = rapid.SampledFrom([]int64{0, 0, 0, 1, 3}).Draw(rt, "max")
	b.MaxIdentity = rapid.SampledFrom([]int64{0, 0, 0, 1, 3}).Draw(rt, "max identity")
	if buyer > 0 {
		b = with(b, rapid.SliceOfNDistinct(rapid.ByteRange(1, 4), 0, 3, rapid.ID[byte]).Draw(rt, "identities")...)
	}
	return b
}

func (m *machine) Reserve(rt *rapid.T) { m.group(rt, m.reserve) }
func (m *machine) Retake(rt *rapid.T)  { m.group(rt, m.retake) }

func (m *machine) group(rt *rapid.T, reserve func(...engine.Basket) stock.Decision) {
	m.t = rt
	var baskets []engine.Basket
	for range rapid.IntRange(1, 12).Draw(rt, "baskets") {
		baskets = append(baskets, m.draw(rt))
	}
	d := reserve(baskets...)
	if d.First > 0 {
		m.firsts = append(m.firsts, d.First)
	}
	for i, v := range d.Verdicts {
		if v.Outcome != engine.Accepted {
			continue
		}
		o := engine.Order{Basket: baskets[i], Hold: v.Hold, AcceptedAt: d.At, LimitBuyer: v.LimitBuyer, LimitIdentity: v.LimitIdentity}
		if slices.ContainsFunc(m.orders, func(k *known) bool { return k.Order.Order == o.Order }) {
			m.row(engine.Drop, &o) // PostgreSQL has it under another hold
			continue
		}
		m.orders = append(m.orders, &known{Order: o})
	}
}

func (m *machine) row(op engine.MoveOp, o *engine.Order) {
	m.nextID++
	m.rows = append(m.rows, move(m.nextID, op, o.Basket, o.Hold))
}

// Decide ends some orders, or brings them back.
func (m *machine) Decide(rt *rapid.T) {
	for _, k := range m.orders {
		switch n := rapid.IntRange(0, 5).Draw(rt, "fate"); {
		case k.fate == 0 && n < 2:
			k.fate = []engine.MoveOp{engine.Settle, engine.Release}[n]
			m.row(k.fate, &k.Order)
		case k.fate == engine.Settle && !k.returned && n == 2:
			k.returned = true
			m.row(engine.Return, &k.Order)
		}
	}
}

// Restock and withdraw.
func (m *machine) Stockist(rt *rapid.T) {
	m.nextID++
	i := rapid.IntRange(0, 1).Draw(rt, "item")
	n := rapid.Int64Range(1, 5).Draw(rt, "units")
	if rapid.Bool().Draw(rt, "restock") {
		m.def.Items[i].Units += n // PostgreSQL first
		m.rows = append(m.rows, stockMove(m.nextID, engine.Restock, m.def.Items[i].SKU, n))
		return
	}
	m.rows = append(m.rows, stockMove(m.nextID, engine.Withdraw, m.def.Items[i].SKU, n))
}

// Apply applies rows in any order, some of them again and again.
func (m *machine) Apply(rt *rapid.T) {
	m.t = rt
	if len(m.rows) == 0 {
		rt.Skip("no rows")
	}
	moves := rapid.SliceOfN(rapid.SampledFrom(m.rows), 1, 12).Draw(rt, "rows")
	wrong := rapid.SampledFrom(m.rows).Draw(rt, "row with another hold")
	if wrong.Op == engine.Settle || wrong.Op == engine.Release || wrong.Op == engine.Drop {
		if slices.ContainsFunc(m.orders, func(k *known) bool { return k.Order.Order == wrong.Order && !k.pruned }) {
			wrong.Hold.Seq += 1000
			moves = append(moves, wrong)
		}
	}
	seen := map[int64]bool{}
	for i, n := range m.apply(moves...) {
		if mv := moves[i]; mv.Op == engine.Withdraw && !seen[mv.ID] {
			seen[mv.ID] = true
			item, _ := m.def.Item(mv.Lines[0].SKU)
			at := slices.IndexFunc(m.rows, func(r engine.Move) bool { return r.ID == mv.ID })
			if m.rows[at].Body == 0 { // not counted yet: Body marks it
				m.rows[at].Body = 1
				item.Units -= n // PostgreSQL after
			}
		}
	}
}

func (m *machine) Prune(rt *rapid.T) {
	m.t = rt
	var ids []engine.OrderID
	for _, k := range m.orders {
		if rapid.Bool().Draw(rt, "prune") {
			ids, k.pruned = append(ids, k.Order.Order), true
		}
	}
	m.prune(ids...)
}

func (m *machine) Mark(rt *rapid.T) {
	m.t = rt
	if len(m.firsts) == 0 {
		rt.Skip("no entries")
	}
	ids := rapid.SliceOfN(rapid.SampledFrom(m.firsts), 1, 3).Draw(rt, "entries")
	must(rt, m.store.Mark(rt.Context(), m.def.ID, m.grip.Epoch, ids))
	must(rt, m.model.Mark(rt.Context(), m.def.ID, m.grip.Epoch, ids))
	got, n, err := m.store.Outbox(rt.Context(), m.def.ID, m.grip.Epoch, 3)
	must(rt, err)
	want, length, _ := m.model.Outbox(rt.Context(), m.def.ID, m.grip.Epoch, 3)
	equal(rt, "outbox", got, want)
	equal(rt, "length", n, length)
}

func (m *machine) Change(rt *rapid.T) {
	m.t = rt
	if rapid.IntRange(0, 3).Draw(rt, "what") == 0 {
		m.def.State = rapid.SampledFrom([]engine.SaleState{engine.SalePaused, engine.SaleClosed}).Draw(rt, "state")
		m.setState(m.def.State)
	}
	m.redefine(func(s *engine.Sale) {
		s.LimitPerBuyer = rapid.Int64Range(0, 9).Draw(rt, "limit")
		s.LimitPerIdentity = rapid.Int64Range(0, 9).Draw(rt, "limit per identity")
		s.Items[0].Price = rapid.Int64Range(1, 2).Draw(rt, "price")
	})
	m.def.State = engine.SaleOpen
	m.setState(m.def.State)
	must(rt, m.store.Beat(rt.Context(), m.def.ID, m.grip.Epoch))
	must(rt, m.model.Beat(rt.Context(), m.def.ID, m.grip.Epoch))
}

// Rebuild makes the next epoch from what PostgreSQL knows; rows it has are covered.
func (m *machine) Rebuild(rt *rapid.T) {
	m.t = rt
	ctx, e := rt.Context(), m.grip.Epoch
	if e == 8 { // the cleaning up knows so many
		rt.Skip("enough")
	}
	must(rt, m.store.Freeze(ctx, m.def.ID, e))
	must(rt, m.model.Freeze(ctx, m.def.ID, e))
	img := stock.Image{Sale: m.def, Epoch: e + 1, Incarnation: incarnation + e%2}
	for _, k := range m.orders {
		r := engine.Record{State: engine.RecordReleased}
		switch {
		case k.fate == 0 || (k.fate == engine.Settle && !k.returned):
			img.Live = append(img.Live, stock.LiveOrder{Order: k.Order, Settled: k.fate == engine.Settle})
			continue
		case k.fate == engine.Settle:
			r.State = engine.RecordSettled
		}
		img.Tombstones = append(img.Tombstones, stock.Tombstone{Order: k.Order.Order, Hold: k.Hold, Body: k.Body, State: r.State})
	}
	m.rows, m.firsts = nil, nil
	m.build(img)
	must(rt, m.store.DropEpoch(ctx, m.def.ID, e))
	must(rt, m.model.DropEpoch(ctx, m.def.ID, e))
}

// TestAnyOrderEndsTheSame applies the same rows to two sales in two orders, with
// repetitions and in batches of any size. What is left is the same.
func TestAnyOrderEndsTheSame(t *testing.T) {
	t.Parallel()
	w := shared(t)
	rapid.Check(t, func(rt *rapid.T) {
		var ends []map[string]string
		n := rapid.IntRange(1, 8).Draw(rt, "orders")
		fates := rapid.SliceOfN(rapid.IntRange(0, 3), n, n).Draw(rt, "fates")
		for range 2 {
			b := w.open(rt, nil)
			var rows []engine.Move
			for i, fate := range fates {
				x := with(basket(i, fmt.Sprint(i%3), "MUG"), byte(i))
				if v := b.reserve(x).Verdicts[0]; v.Outcome != engine.Accepted {
					continue
				} else if op := []engine.MoveOp{engine.Settle, engine.Release, engine.Drop, engine.Settle}[fate]; true {
					rows = append(rows, move(int64(i), op, x, v.Hold))
					if fate == 3 {
						rows = append(rows, move(int64(100+i), engine.Return, x, v.Hold))
					}
				}
			}
			rows = append(rows, stockMove(200, engine.Restock, "MUG", 3), move(201, engine.Settle, basket(55, "z", "MUG"), engine.Hold{Seq: 4}))
			for _, r := range rapid.SliceOfN(rapid.SampledFrom(rows), 0, 20).Draw(rt, "some") {
				b.apply(r)
			}
			b.apply(rapid.Permutation(rows).Draw(rt, "all")...)
			end := b.dump()
			maps.DeleteFunc(end, func(k, _ string) bool { return k[:min(len(k), 6)] == ":1:ob " }) // carries the time
			delete(end, ":1:st opens")
			delete(end, ":1:st closes")
			ends = append(ends, end)
		}
		equal(rt, "ends", diff(ends[0], ends[1]), []string(nil))
	})
}
