package stock_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/doorbuster/doorbuster/engine"
	"github.com/doorbuster/doorbuster/stock"
)

// suite is what must hold on one Redis and on a cluster alike.
var suite = []struct {
	name string
	run  func(t *testing.T, w *world)
}{
	{"ReserveChanges", reserveChanges},
	{"Outcomes", outcomesInOrder},
	{"Group", groupRuns},
	{"Identities", identities},
	{"MaxOrders", maxOrders},
	{"Replay", replay},
	{"Window", window},
	{"Retake", retake},
	{"Settle", settle},
	{"Release", release},
	{"Drop", drop},
	{"Return", returns},
	{"Stockist", stockist},
	{"Prune", prune},
	{"Define", define},
	{"Fences", fences},
	{"Outbox", outbox},
	{"Build", rebuild},
	{"Read", reads},
	{"Standing", standings},
}

func TestSuite(t *testing.T) {
	t.Parallel()
	for _, s := range suite {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			s.run(t, shared(t))
		})
	}
}

func reserveChanges(t *testing.T, w *world) {
	t.Helper()
	b := w.open(t, nil)
	first := with(basket(1, "ann", "MUG", "CAP.red"), 7, 8)
	b.changes(func() { b.reserve(first, basket(2, "bob", "MUG*2")) },
		":1:b ann: - → 2001",
		":1:b bob: - → 2001",
		":1:i \x00|\n\xff\x00\x00\x00\a: - → 2",
		":1:i \x00|\n\xff\x00\x00\x00\b: - → 2",
		":1:o "+string(first.Order)+": - → 1H|1|1.1|%d|2.3|"+fmt.Sprintf("%016x", first.Body)+"|ann|007c0aff00000007,007c0aff00000008|MUG*1*1500,CAP.red*1*900|2400",
		":1:o "+string(orderID(2))+": - → 1H|1|1.2|%d|2.3|"+fmt.Sprintf("%016x", basket(2, "", "MUG*2").Body)+"|bob||MUG*2*1500|3000",
		":1:ob 1-0: - → 1E|"+string(b.def.ID)+
			"\n"+string(first.Order)+"|1.1|%d|2.3|"+fmt.Sprintf("%016x", first.Body)+"|ann|007c0aff00000007,007c0aff00000008|MUG*1*1500,CAP.red*1*900|2400"+
			"\n"+string(orderID(2))+"|1.2|%d|2.3|"+fmt.Sprintf("%016x", basket(2, "", "MUG*2").Body)+"|bob||MUG*2*1500|3000",
		":1:st a:CAP.red: 4 → 3",
		":1:st a:MUG: 10 → 7",
		":1:st h:CAP.red: 0 → 1",
		":1:st h:MUG: 0 → 3",
		":1:st seq: 0 → 2",
	)
	b.changes(func() { b.reserve(first, basket(2, "bob", "MUG*2")) }) // twice changes nothing
}

// outcomesInOrder has one basket per outcome of a sale that is open; none but the
// first leaves anything behind.
func outcomesInOrder(t *testing.T, w *world) {
	t.Helper()
	b := w.open(t, func(s *engine.Sale) { s.LimitPerBuyer = 4 })
	b.reserve(basket(1, "ann", "MUG*2"))
	dear := basket(6, "dan", "MUG")
	dear.Total++
	capped := basket(8, "ann", "MUG*2")
	capped.Max = 3
	for _, c := range []struct {
		basket  engine.Basket
		outcome engine.Outcome
		returns bool
	}{
		{basket(1, "ann", "MUG*2"), engine.ReplayHeld, false},
		{basket(1, "ann", "MUG"), engine.Mismatch, false},
		{basket(3, "bob", "HAT"), engine.UnknownSKU, false},
		{basket(4, "bob", "MUG", "HAT"), engine.UnknownSKU, false},
		{dear, engine.PriceChanged, false},
		{basket(7, "ann", "MUG*3"), engine.OverLimit, false},
		{capped, engine.OverLimit, false},
		{basket(9, "bob", "CAP.red*4", "MUG"), engine.OverLimit, false},
	} {
		b.changes(func() {
			d := b.reserve(c.basket)
			if v := d.Verdicts[0]; v.Outcome != c.outcome || v.MayReturn != c.returns || d.First != 0 {
				t.Fatalf("%+v: got %+v, want %s", c.basket, v, c.outcome)
			}
			limit := int64(4)
			if c.basket.Max > 0 {
				limit = c.basket.Max
			}
			if v := d.Verdicts[0]; c.outcome == engine.OverLimit && v.LimitBuyer != limit {
				t.Fatalf("%+v: told the limit %d, want %d", c.basket, v.LimitBuyer, limit)
			}
		})
	}
	again, fresh := basket(1, "ann", "MUG*2"), basket(12, "eve", "MUG")
	again.ReplayOnly, fresh.ReplayOnly = true, true
	b.changes(func() { // with an expired ticket: what is stored, and nothing new
		d := b.reserve(again, fresh)
		if d.Verdicts[0].Outcome != engine.ReplayHeld || d.Verdicts[1].Outcome != engine.NoReplay || d.First != 0 {
			t.Fatalf("replays only: %+v", d.Verdicts)
		}
	})
	for i, buyer := range []string{"c", "d"} {
		b.reserve(basket(10+i, buyer, "CAP.red*2", "MUG*2"))
	}
	b.changes(func() { // all caps are held: sold out, but they may return; the mug in the basket is not taken
		d := b.reserve(basket(20, "e", "MUG", "CAP.red"))
		equal(t, "verdict", d.Verdicts[0], stock.Verdict{Outcome: engine.SoldOut, MayReturn: true})
	})
	d := b.reserve(basket(10, "c", "CAP.red*2", "MUG*2"), basket(11, "d", "CAP.red*2", "MUG*2"))
	b.apply(move(1, engine.Settle, basket(10, "c", "CAP.red*2", "MUG*2"), d.Verdicts[0].Hold),
		move(2, engine.Settle, basket(11, "d", "CAP.red*2", "MUG*2"), d.Verdicts[1].Hold))
	b.changes(func() { // all caps are sold
		d := b.reserve(basket(20, "e", "MUG", "CAP.red"), basket(21, "e", "CAP.red*2", "MUG*2"))
		equal(t, "verdict", d.Verdicts[0], stock.Verdict{Outcome: engine.SoldOut})
	})
}

// groupRuns decides a group in the order it came, with counts that run on.
func groupRuns(t *testing.T, w *world) {
	t.Helper()
	b := w.open(t, nil)
	d := b.reserve(
		basket(1, "ann", "CAP.red"),   // taken
		basket(2, "ann", "CAP.red"),   // taken, now ann has two
		basket(3, "ann", "MUG"),       // over the limit
		basket(1, "ann", "CAP.red"),   // the first one again
		basket(1, "ann", "CAP.red*2"), // its key with another body
		basket(4, "bob", "CAP.red*2"), // taken, the last two
		basket(5, "eve", "CAP.red"),   // sold out, all are held
		basket(5, "eve", "CAP.red"),   // and again
		basket(6, "eve", "MUG*2"),     // taken
	)
	equal(t, "outcomes", outcomes(d), "AALHMAOOA")
	equal(t, "holds", []int64{d.Verdicts[0].Hold.Seq, d.Verdicts[1].Hold.Seq, d.Verdicts[5].Hold.Seq, d.Verdicts[8].Hold.Seq}, []int64{1, 2, 3, 4})
	if v := d.Verdicts[3]; !v.Unpublished || v.Record.Entry != d.First || v.Hold != d.Verdicts[0].Hold {
		t.Errorf("the same id twice: %+v", v)
	}
	var many []engine.Basket
	for i := range engine.MaxGroup {
		many = append(many, basket(100+i, fmt.Sprint("buyer-", i), "MUG"))
	}
	d = b.reserve(many...)
	equal(t, "outcomes", outcomes(d), strings.Repeat("A", 8)+strings.Repeat("O", engine.MaxGroup-8))
	var none stock.Decision
	if err := w.store.Reserve(t.Context(), b.def.ID, b.grip, append(many, many[0]), &none); err == nil {
		t.Error("a group above the limit was not refused")
	}
	if err := w.store.Reserve(t.Context(), b.def.ID, b.grip, nil, &none); err == nil {
		t.Error("an empty group was not refused")
	}
}

func identities(t *testing.T, w *world) {
	t.Helper()
	b := w.open(t, func(s *engine.Sale) { s.LimitPerBuyer = 0; s.Items[0].Units = 50 })
	d := b.reserve(
		with(basket(1, "a", "MUG*2"), 1, 2, 3), // taken
		with(basket(2, "b", "MUG*2"), 3),       // identity 3 would have 4
		basket(3, "c", "MUG*9"),                // no identity, no limit
		with(basket(4, "d", "MUG*2"), 4, 2),    // identity 2 would have 4
		with(basket(5, "e", "MUG"), 2),         // taken, now 2 has three
		with(basket(6, "f", "MUG"), 2),         // over
		with(basket(7, "g", "MUG*3"), 4),       // taken
	)
	equal(t, "outcomes", outcomes(d), "AIAIAIA")
	d = b.reserve(with(basket(8, "h", "MUG"), 5, 4), with(basket(9, "i", "MUG"), 1))
	equal(t, "outcomes", outcomes(d), "IA")
}

func maxOrders(t *testing.T, w *world) {
	t.Helper()
	b := w.open(t, func(s *engine.Sale) { s.LimitPerBuyer = 0; s.Items[0].Units = 50 })
	var many []engine.Basket
	for i := range engine.MaxOrdersPerBuyer + 1 {
		many = append(many, basket(i, "ann", "MUG"))
	}
	equal(t, "outcomes", outcomes(b.reserve(many...)), strings.Repeat("A", engine.MaxOrdersPerBuyer)+"L")
	equal(t, "outcomes", outcomes(b.reserve(basket(99, "ann", "MUG"))), "L")
	b.apply(move(1, engine.Release, many[3], engine.Hold{Epoch: 1, Seq: 4}))
	equal(t, "outcomes", outcomes(b.reserve(basket(99, "ann", "MUG"))), "A")
}

// replay is answered before state, window, price, limit and stock.
func replay(t *testing.T, w *world) {
	t.Helper()
	b := w.open(t, func(s *engine.Sale) { s.Items[0].Units = 4 })
	held, settled, released := basket(1, "a", "MUG*2"), basket(2, "b", "MUG"), basket(3, "c", "MUG")
	d := b.reserve(held, settled, released)
	hold := func(i int) engine.Hold { return d.Verdicts[i].Hold }
	b.apply(move(1, engine.Settle, settled, hold(1)), move(2, engine.Release, released, hold(2)))
	b.reserve(basket(4, "d", "MUG")) // the last one
	check := func() {
		t.Helper()
		got := b.reserve(held, settled, released, basket(2, "b", "MUG*2"))
		equal(t, "outcomes", outcomes(got), "HSRM")
		for i, v := range got.Verdicts[:3] {
			if v.Hold != hold(i) || v.Record.Order.Hold != hold(i) {
				t.Errorf("basket %d: hold %v, want %v", i, v.Hold, hold(i))
			}
		}
		equal(t, "order", got.Verdicts[0].Record.Order.Lines, held.Lines)
	}
	check()
	if d := b.reserve(held); !d.Verdicts[0].Unpublished {
		t.Error("its entry is still in the outbox")
	}
	must(t, b.store.Mark(t.Context(), b.def.ID, 1, []int64{d.First}))
	must(t, b.model.Mark(t.Context(), b.def.ID, 1, []int64{d.First}))
	if d := b.reserve(held); d.Verdicts[0].Unpublished {
		t.Error("its entry is confirmed")
	}
	for _, state := range []engine.SaleState{engine.SalePaused, engine.SaleClosed} {
		b.setState(state)
		check()
	}
	b.setState(engine.SaleOpen)
	b.redefine(func(s *engine.Sale) { s.Opens = time.Now().Add(time.Minute); s.LimitPerBuyer = 1; s.Items[0].Price = 9 })
	check()
	b.redefine(func(s *engine.Sale) { s.Opens = s.Closes.Add(-3 * time.Hour); s.Closes = time.Now().Add(-time.Minute) })
	check()
}

func (b *bundle) setState(state engine.SaleState) {
	b.t.Helper()
	must(b.t, b.store.SetState(b.t.Context(), b.def.ID, b.grip, state))
	must(b.t, b.model.SetState(b.t.Context(), b.def.ID, b.grip, state))
	b.same()
	b.watch()
}

func (b *bundle) redefine(edit func(*engine.Sale)) {
	b.t.Helper()
	b.def.Version++
	edit(&b.def)
	must(b.t, b.store.Redefine(b.t.Context(), b.def.ID, b.grip, b.def))
	must(b.t, b.model.Redefine(b.t.Context(), b.def.ID, b.grip, b.def))
	b.same()
	b.watch()
}

// window is [opens, closes) by Redis' clock; state comes before it.
func window(t *testing.T, w *world) {
	t.Helper()
	b := w.open(t, nil)
	now := time.UnixMilli(b.watch().Now).UTC()
	n := 0
	ask := func() string {
		n++
		d := b.reserve(basket(n, fmt.Sprint(n), "MUG"))
		return outcomes(d)
	}
	for _, c := range []struct {
		opens, closes time.Duration
		state         engine.SaleState
		want          string
	}{
		{time.Minute, time.Hour, engine.SaleOpen, "E"},
		{time.Minute, time.Hour, engine.SaleScheduled, "E"},
		{-time.Hour, -time.Minute, engine.SaleOpen, "C"},
		{-time.Hour, time.Minute, engine.SaleOpen, "A"},
		{-time.Hour, time.Minute, engine.SalePaused, "P"},
		{time.Minute, time.Hour, engine.SalePaused, "P"},
		{-time.Hour, time.Minute, engine.SaleClosed, "C"},
		{-time.Hour, time.Minute, engine.SaleSettled, "C"},
	} {
		b.redefine(func(s *engine.Sale) { s.Opens, s.Closes = now.Add(c.opens), now.Add(c.closes) })
		b.setState(c.state)
		if got := ask(); got != c.want {
			t.Errorf("%s in [%s, %s): got %s, want %s", c.state, c.opens, c.closes, got, c.want)
		}
	}
	b.setState(engine.SaleOpen)
	edge := time.UnixMilli(b.watch().Now).Add(150 * time.Millisecond).UTC()
	for _, opens := range []bool{true, false} { // across the edge, every reply says on which side it was
		b.redefine(func(s *engine.Sale) { s.Opens, s.Closes = edge, edge.Add(200*time.Millisecond) })
		before, after := "E", "A"
		if !opens {
			edge, before, after = b.def.Closes, "A", "C"
		}
		for stop := false; !stop; {
			n++
			d := b.reserve(basket(n, fmt.Sprint(n), "MUG"))
			want := before
			if stop = d.At >= edge.UnixMilli(); stop {
				want = after
			}
			if got := outcomes(d); got != want && got != "O" {
				t.Fatalf("at %d ms from the edge: got %s, want %s", d.At-edge.UnixMilli(), got, want)
			}
		}
	}
}

// retake looks at stock, and at the limits of the order's own accept, only.
func retake(t *testing.T, w *world) {
	t.Helper()
	b := w.open(t, func(s *engine.Sale) { s.Items[0].Units = 2 })
	b.redefine(func(s *engine.Sale) { s.Items[0].Price = 7777; s.LimitPerBuyer, s.LimitPerIdentity = 1, 1 })
	b.setState(engine.SaleClosed)
	old := basket(1, "ann", "MUG")
	old.Max, old.MaxIdentity = 2, 3
	b.changes(func() { equal(t, "outcomes", outcomes(b.retake(old)), "A") },
		":1:b ann: - → 1001",
		":1:o "+string(old.Order)+": - → 1H|1|1.1|%d|2.3|"+fmt.Sprintf("%016x", old.Body)+"|ann||MUG*1*1500|1500",
		":1:ob 1-0: - → 1E|"+string(b.def.ID)+"\n"+string(old.Order)+"|1.1|%d|2.3|"+fmt.Sprintf("%016x", old.Body)+"|ann||MUG*1*1500|1500",
		":1:st a:MUG: 2 → 1", ":1:st h:MUG: 0 → 1", ":1:st seq: 0 → 1",
	)
	b.changes(func() { equal(t, "outcomes", outcomes(b.retake(old)), "H") })
	over := basket(2, "ann", "MUG*2")
	over.Max = 2
	equal(t, "outcomes", outcomes(b.retake(over, basket(3, "bob", "MUG*2"), basket(4, "eve", "HAT"), basket(5, "eve", "MUG"))), "LOUA")
	c := w.open(t, func(s *engine.Sale) { s.LimitPerBuyer, s.LimitPerIdentity = 1, 1 })
	two, shared := with(basket(1, "ann", "MUG*2"), 7), with(basket(2, "bob", "MUG"), 7)
	two.Max, two.MaxIdentity, shared.MaxIdentity = 5, 2, 2
	d := c.retake(two, shared)
	equal(t, "outcomes", outcomes(d), "AI")
	equal(t, "limits", [2]int64{d.Verdicts[0].LimitBuyer, d.Verdicts[0].LimitIdentity}, [2]int64{5, 2})
}

func settle(t *testing.T, w *world) {
	t.Helper()
	b := w.open(t, nil)
	x, unknown := with(basket(1, "ann", "MUG", "CAP.red"), 7), basket(9, "zoe", "MUG")
	hold := b.reserve(x).Verdicts[0].Hold
	body := fmt.Sprintf("%016x", x.Body)
	b.changes(func() { b.apply(move(1, engine.Settle, x, engine.Hold{Epoch: 1, Seq: 99})) }) // another hold
	b.changes(func() { b.apply(move(1, engine.Settle, x, hold)) },
		":1:o "+string(x.Order)+": 1H|1|1.1|%d|2.3|"+body+"|ann|007c0aff00000007|MUG*1*1500,CAP.red*1*900|2400 → 1S|1.1|"+body+"|T",
		":1:st h:CAP.red: 1 → 0", ":1:st h:MUG: 1 → 0", ":1:st s:CAP.red: 0 → 1", ":1:st s:MUG: 0 → 1",
	)
	b.changes(func() { b.apply(move(1, engine.Settle, x, hold), move(2, engine.Release, x, hold)) })
	b.changes(func() { b.apply(move(3, engine.Settle, unknown, engine.Hold{Epoch: 0, Seq: 5})) },
		":1:o "+string(unknown.Order)+": - → 1S|0.5|"+fmt.Sprintf("%016x", unknown.Body)+"|T")
	b.changes(func() { b.apply(move(3, engine.Settle, unknown, engine.Hold{Epoch: 0, Seq: 5})) })
}

func release(t *testing.T, w *world) {
	t.Helper()
	b := w.open(t, nil)
	x, y, unknown := with(basket(1, "ann", "MUG", "CAP.red"), 7), with(basket(2, "bob", "MUG*2"), 7, 8), basket(9, "zoe", "MUG")
	y.Identities = y.Identities[1:]
	d := b.reserve(x, y, with(basket(3, "bill", "MUG"), 7))
	hold := d.Verdicts[0].Hold
	body := fmt.Sprintf("%016x", x.Body)
	b.changes(func() { b.apply(move(1, engine.Release, x, engine.Hold{Epoch: 2, Seq: 1})) }) // another hold
	b.changes(func() { b.apply(move(1, engine.Release, x, hold)) },
		":1:b ann: 2001 → -",
		":1:i \x00|\n\xff\x00\x00\x00\a: 3 → 1",
		":1:o "+string(x.Order)+": 1H|1|1.1|%d|2.3|"+body+"|ann|007c0aff00000007|MUG*1*1500,CAP.red*1*900|2400 → 1R|1.1|"+body+"|T",
		":1:st a:CAP.red: 3 → 4", ":1:st a:MUG: 6 → 7", ":1:st h:CAP.red: 1 → 0", ":1:st h:MUG: 4 → 3",
	)
	b.changes(func() { b.apply(move(1, engine.Release, x, hold), move(2, engine.Settle, x, hold)) })
	b.changes(func() { b.apply(move(3, engine.Release, unknown, engine.Hold{Epoch: 1, Seq: 77})) },
		":1:o "+string(unknown.Order)+": - → 1R|1.77|"+fmt.Sprintf("%016x", unknown.Body)+"|T")
	equal(t, "a cancelled key stays cancelled", outcomes(b.reserve(x, unknown)), "RR")
}

func drop(t *testing.T, w *world) {
	t.Helper()
	b := w.open(t, nil)
	x := with(basket(1, "ann", "MUG*2"), 7)
	hold := b.reserve(x).Verdicts[0].Hold
	body := fmt.Sprintf("%016x", x.Body)
	b.changes(func() { b.apply(move(1, engine.Drop, x, engine.Hold{Epoch: 1, Seq: 3})) })
	b.changes(func() { b.apply(move(1, engine.Drop, x, hold)) },
		":1:b ann: 2001 → -", ":1:i \x00|\n\xff\x00\x00\x00\a: 2 → -",
		":1:o "+string(x.Order)+": 1H|1|1.1|%d|2.3|"+body+"|ann|007c0aff00000007|MUG*2*1500|3000 → -",
		":1:st a:MUG: 8 → 10", ":1:st h:MUG: 2 → 0",
	)
	b.changes(func() { b.apply(move(1, engine.Drop, x, hold)) }) // no tombstone
	hold = b.reserve(x).Verdicts[0].Hold
	b.apply(move(2, engine.Settle, x, hold))
	b.changes(func() { b.apply(move(3, engine.Drop, x, hold)) }) // what is finished stays
}

func returns(t *testing.T, w *world) {
	t.Helper()
	for _, settleFirst := range []bool{true, false} { // and the end is the same
		b := w.open(t, nil)
		x := with(basket(1, "ann", "MUG", "CAP.red"), 7)
		body := fmt.Sprintf("%016x", x.Body)
		hold := b.reserve(x).Verdicts[0].Hold
		before := b.dump()
		moves := []engine.Move{move(1, engine.Settle, x, hold), move(2, engine.Return, x, hold)}
		if !settleFirst {
			moves[0], moves[1] = moves[1], moves[0]
		}
		for _, m := range moves {
			b.apply(m)
		}
		equal(t, "changes", diff(before, b.dump()), []string{
			":1:b ann: 2001 → -", ":1:i \x00|\n\xff\x00\x00\x00\a: 2 → -",
			":1:o " + string(x.Order) + ": 1H|1|1.1|" + fmt.Sprint(b.now) + "|2.3|" + body + "|ann|007c0aff00000007|MUG*1*1500,CAP.red*1*900|2400 → 1S|1.1|" + body + "|T",
			":1:rows 2:" + string(x.Order) + ": - → 2",
			":1:st a:CAP.red: 3 → 4", ":1:st a:MUG: 9 → 10", ":1:st h:CAP.red: 1 → 0", ":1:st h:MUG: 1 → 0",
		})
		b.changes(func() { equal(t, "taken", b.apply(moves[1], moves[0], moves[1]), taken(moves[1], moves[0], moves[1])) })
	}
	b := w.open(t, nil) // two rows for one order, which nobody writes: as if one call came after the other
	x := basket(1, "ann", "MUG*2")
	hold := b.reserve(x, basket(2, "bob", "MUG*2")).Verdicts[0].Hold
	b.apply(move(1, engine.Return, x, hold), move(2, engine.Return, x, hold))
	b = w.open(t, nil) // a confirmed order whose tombstone was pruned
	hold = b.reserve(x).Verdicts[0].Hold
	b.apply(move(1, engine.Settle, x, hold))
	b.prune(x.Order)
	twice := move(2, engine.Return, x, hold)
	b.changes(func() { equal(t, "taken", b.apply(twice, twice), []int64{2, 2}) },
		":1:b ann: 2001 → -", ":1:rows 2:"+string(x.Order)+": - → 2", ":1:st a:MUG: 8 → 10", ":1:st s:MUG: 2 → 0")
}

func taken(moves ...engine.Move) (n []int64) {
	for _, m := range moves {
		n = append(n, map[engine.MoveOp]int64{engine.Return: 2}[m.Op])
	}
	return n
}

func stockist(t *testing.T, w *world) {
	t.Helper()
	b := w.open(t, nil)
	b.reserve(basket(1, "ann", "MUG*2"))
	more := stockMove(1, engine.Restock, "MUG", 5)
	b.changes(func() { equal(t, "taken", b.apply(more, more), []int64{5, 5}) },
		":1:rows 1:MUG: - → 5", ":1:st a:MUG: 8 → 13", ":1:st u:MUG: 10 → 15")
	b.changes(func() { equal(t, "taken", b.apply(more), []int64{5}) })
	less := []engine.Move{
		stockMove(2, engine.Withdraw, "MUG", 9), stockMove(3, engine.Withdraw, "MUG", 9),
		stockMove(4, engine.Withdraw, "MUG", 1), stockMove(2, engine.Withdraw, "MUG", 9), stockMove(2, engine.Withdraw, "CAP.red", 1),
	}
	b.changes(func() { equal(t, "taken", b.apply(less...), []int64{9, 4, 0, 9, 1}) },
		":1:rows 2:CAP.red: - → 1", ":1:rows 2:MUG: - → 9", ":1:rows 3:MUG: - → 4", ":1:rows 4:MUG: - → 0",
		":1:st a:CAP.red: 4 → 3", ":1:st a:MUG: 13 → 0", ":1:st u:CAP.red: 4 → 3", ":1:st u:MUG: 15 → 2")
	b.changes(func() { equal(t, "taken", b.apply(less...), []int64{9, 4, 0, 9, 1}) })
	b.changes(func() { equal(t, "taken", b.apply(stockMove(5, engine.Withdraw, "MUG", 1)), []int64{0}) }, // none left
		":1:rows 5:MUG: - → 0")
	for _, op := range []engine.MoveOp{engine.Restock, engine.Withdraw} {
		b.changes(func() {
			_, err := b.store.Apply(t.Context(), b.def.ID, b.grip, []engine.Move{stockMove(8, op, "MUG", 1), stockMove(9, op, "HAT", 1)})
			if !errors.Is(err, stock.ErrNoItem) {
				t.Errorf("%s of an unknown item: %v", op, err)
			}
		})
	}
	if _, err := b.store.Apply(t.Context(), b.def.ID, b.grip, []engine.Move{{ID: 1, Op: 99}}); err == nil {
		t.Error("an unknown operation was applied")
	}
}

func (b *bundle) prune(ids ...engine.OrderID) int64 {
	b.t.Helper()
	got, err := b.store.Prune(b.t.Context(), b.def.ID, b.grip, ids)
	must(b.t, err)
	want, err := b.model.Prune(b.t.Context(), b.def.ID, b.grip, ids)
	must(b.t, err)
	equal(b.t, "pruned", got, want)
	b.same()
	return got
}

func prune(t *testing.T, w *world) {
	t.Helper()
	b := w.open(t, nil)
	x, y, z := basket(1, "a", "MUG"), basket(2, "b", "MUG"), basket(3, "c", "MUG")
	d := b.reserve(x, y, z)
	b.apply(move(1, engine.Settle, x, d.Verdicts[0].Hold), move(2, engine.Release, y, d.Verdicts[1].Hold))
	before := b.dump()
	equal(t, "pruned", b.prune(x.Order, y.Order, z.Order, orderID(9)), 2)
	if after := b.dump(); len(diff(before, after)) != 2 || after[":1:o "+string(z.Order)] == "" {
		t.Errorf("pruned: %v", diff(before, after))
	}
	b.changes(func() { equal(t, "pruned", b.prune(x.Order, y.Order, z.Order), 0) })
}
