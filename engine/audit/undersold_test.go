package audit_test

import (
	"strings"
	"testing"
	"time"

	"github.com/doorbuster/doorbuster/engine"
	"github.com/doorbuster/doorbuster/engine/audit"
	"github.com/doorbuster/doorbuster/engine/orders"
)

// answer lets a buyer hear something, so long after the sale was loaded.
func (b *bundle) answer(buyer engine.BuyerID, after time.Duration, typ string, lines ...engine.Line) {
	b.t.Helper()
	status := 503
	if typ == soldOut {
		status = 409
	}
	total, err := engine.Total(lines)
	b.ok(err)
	b.say(audit.Answer{At: b.now.Add(after), Buyer: buyer, Key: "k-" + string(buyer), Lines: lines, Total: total, Status: status, Type: typ})
}

// almostSold sells four of five mugs; the fifth was taken by cy, whose card was
// declined, so it came back. Then nobody takes it. The cap that gus gets and loses
// comes back last of all.
func (b *bundle) almostSold() {
	b.buy("ann", orders.Confirmed, mugs(2)...)
	b.buy("bob", orders.Confirmed, mugs(2)...)
	b.buy("cy", orders.Declined, mugs(1)...)
	b.buy("gus", orders.Declined, engine.Line{SKU: "CAP", Quantity: 1, Price: capPrice})
}

const soldOut = "sold-out"

// pleas are ways in which a door and recovery were right or wrong after units came back,
// and the log of the crowd that met them.
var pleas = map[string]struct {
	do        func(b *bundle)
	want      string // "": the law holds
	undersold int64
}{
	"the flag is never cleared": {func(b *bundle) {
		b.almostSold() // something comes back to the very end
		b.sql(`UPDATE moves SET done_at = done_at + interval '1 minute' WHERE orders[1] IN (SELECT id FROM orders WHERE buyer = 'gus')`,
			`UPDATE orders SET finished_at = finished_at + interval '1 minute' WHERE buyer = 'gus'`)
		for s := range 10 {
			b.answer("eve", time.Duration(s)*time.Second, soldOut, mugs(1)...)
		}
	}, "eve asked for MUG*1*1500", 1},
	"the flag is cleared in time": {func(b *bundle) {
		b.almostSold()
		b.answer("eve", 0, soldOut, mugs(1)...)
		b.buy("eve", orders.Confirmed, mugs(1)...)
		b.answer("fay", time.Minute, soldOut, mugs(1)...)
	}, "", 0},
	"nobody asked once it was back": {func(b *bundle) {
		b.almostSold()
		b.answer("eve", 0, soldOut, mugs(1)...)
	}, "", 0},
	"sold out for two, one was there": {func(b *bundle) {
		b.almostSold()
		b.answer("eve", time.Minute, soldOut, mugs(2)...)
	}, "", 0},
	"sold out of a basket of which one item was gone": {func(b *bundle) {
		b.almostSold()
		b.buy("dan", orders.Confirmed, mugs(1)...)
		b.answer("eve", time.Minute, soldOut, engine.Line{SKU: "CAP", Quantity: 1, Price: capPrice}, mugs(1)[0])
	}, "", 0},
	"wrongly sold out, but taken later": {func(b *bundle) {
		b.almostSold()
		b.answer("eve", 20*time.Second, soldOut, mugs(1)...)
		b.buy("dan", orders.Confirmed, mugs(1)...)
		b.sql(`UPDATE orders SET accepted_at = accepted_at + interval '1 minute' WHERE buyer = 'dan'`)
	}, "", 0},
	"recovery was away: Redis had it back a minute later": {func(b *bundle) {
		b.almostSold()
		b.sql(`UPDATE moves SET done_at = done_at + interval '1 minute' WHERE op = 0`)
		b.answer("eve", 50*time.Second, soldOut, mugs(1)...)
	}, "", 0},
	"and she was told so after that, too": {func(b *bundle) {
		b.almostSold()
		b.sql(`UPDATE moves SET done_at = done_at + interval '1 minute' WHERE op = 0`)
		b.answer("eve", 70*time.Second, soldOut, mugs(1)...)
	}, "eve asked for", 1},
	"before a rebuild nobody knows what Redis held": {func(b *bundle) {
		b.almostSold()
		b.sql(`UPDATE sales SET cut_at = now() + interval '1 minute', epoch = 2 WHERE epoch = 1`)
		b.answer("eve", 50*time.Second, soldOut, mugs(1)...)
	}, "", 0},
	"a restock that the door never heard of": {func(b *bundle) {
		b.sell()
		_, err := b.Restock(b.t.Context(), b.sale.ID, "MUG", 3, note)
		b.ok(err)
		b.apply()
		b.answer("eve", time.Minute, soldOut, mugs(2)...)
	}, "eve asked for MUG*2*1500", 2},
	"sold out before the restock": {func(b *bundle) {
		b.sell()
		_, err := b.Restock(b.t.Context(), b.sale.ID, "MUG", 3, note)
		b.ok(err)
		b.apply()
		b.answer("eve", time.Second, soldOut, mugs(2)...)
	}, "", 0},
	"the door was full for good": {func(b *bundle) {
		b.almostSold()
		b.answer("eve", time.Minute, "overloaded", mugs(1)...)
		b.answer("fay", time.Minute, "overloaded", mugs(1)...)
	}, "MUG: 1 of 5 units unsold", 1},
	"the operator paused it": {func(b *bundle) {
		b.almostSold()
		b.answer("eve", time.Minute, "paused", mugs(1)...)
	}, "", 0},
	"the crowd's clock is an hour behind, the flag is never cleared": {func(b *bundle) {
		b.now = b.now.Add(-time.Hour)
		b.almostSold()
		b.answer("eve", 10*time.Second, soldOut, mugs(1)...)
	}, "eve asked for", 1},
	"the crowd's clock is an hour ahead": {func(b *bundle) {
		b.now = b.now.Add(time.Hour)
		b.almostSold()
		b.answer("eve", time.Second, soldOut, mugs(1)...)
	}, "", 0},
}

// Law 11 after units came back, in a sale on real servers.
func TestUndersoldAfterUnitsCameBack(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for name, c := range pleas {
		b.fresh()
		c.do(b)
		r := b.rest()
		l := r.Law(11)
		if got := l.Holds == audit.Broken; got != (c.want != "") || !strings.Contains(l.Detail, c.want) || *r.Undersold != c.undersold {
			t.Errorf("%s: %s: %s; undersold %d, want %d", name, l.Holds, l.Detail, *r.Undersold, c.undersold)
		}
	}
}
