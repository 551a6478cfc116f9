package audit_test

import (
	"testing"

	"github.com/doorbuster/doorbuster/engine"
	"github.com/doorbuster/doorbuster/engine/orders"
	"github.com/doorbuster/doorbuster/stock"
)

// What a real rebuild loads is what Redis had before it, thing by thing: the hash goes
// through it unchanged, as it does through release rows that are applied again.
func TestStateOutlivesARebuildAndReplays(t *testing.T) {
	t.Parallel()
	b, ctx := setup(t), t.Context()
	b.sell()
	before, loads, err := b.auditor.States(ctx, b.sale.ID)
	b.ok(err)
	if key, is, would := before.Differs(loads); key != "" {
		t.Fatalf("%s: %q, a rebuild would load %q", key, is, would)
	}
	b.sql(`UPDATE moves SET done = false`)
	b.apply()
	again, _, err := b.auditor.States(ctx, b.sale.ID)
	b.ok(err)
	if key, is, was := again.Differs(before); key != "" || again.Hash != before.Hash {
		t.Errorf("replayed: %s is %q, was %q", key, is, was)
	}
	cut, err := b.Cut(ctx, b.sale.ID, 1)
	b.ok(err)
	b.ok(b.stock.Build(ctx, imageOf(&cut)))
	_, err = b.Unfreeze(ctx, b.sale.ID, 2)
	b.ok(err)
	after, loads, err := b.auditor.States(ctx, b.sale.ID)
	b.ok(err)
	if key, is, was := after.Differs(before); key != "" || after.Hash != loads.Hash {
		t.Errorf("rebuilt: %s is %q, was %q", key, is, was)
	}
}

func imageOf(cut *orders.Image) stock.Image {
	img := stock.Image{Sale: cut.Sale, Epoch: cut.Sale.Epoch, Incarnation: 1}
	for _, l := range cut.Live {
		img.Live = append(img.Live, stock.LiveOrder{Order: l.Order, Settled: l.Settled, Finished: l.Finished})
	}
	for _, t := range cut.Tombstones {
		img.Tombstones = append(img.Tombstones, stock.Tombstone{Order: t.Order, Hold: t.Hold, Body: t.Body, State: 'R', Finished: t.Finished})
	}
	return img
}

var stateBreaks = []breach{
	{"other stock than a rebuild loads", 13, "item MUG: Redis has 0 available, 1 held, 4 sold of 5 at 1500, a rebuild would load 0 available, 0 held, 5 sold", func(b *bundle, _ engine.Order) {
		b.slot("h:MUG", 1)
		b.slot("s:MUG", -1)
	}},
	{"another definition", 13, "sale: Redis has open KRW version, opens, closes, limits and key [2 ", func(b *bundle, _ engine.Order) { b.slot("ver", 1) }},
	{"another state", 13, "a rebuild would load paused KRW", func(b *bundle, _ engine.Order) {
		b.ok(b.SetSaleState(b.t.Context(), b.sale.ID, engine.SalePaused, note))
	}},
	{"an end that Redis was not told", 13, "b:ann: Redis has 2 units, 1 orders, a rebuild would load nothing", func(b *bundle, _ engine.Order) {
		b.sql(`UPDATE orders SET state = 4, reason = 6 WHERE buyer = 'ann'`)
	}},
	{"a record lost", 13, "Redis has nothing, a rebuild would load S 1.1", func(b *bundle, o engine.Order) {
		b.ok(b.rdb.HDel(b.t.Context(), b.redisKey("o"), string(o.Order)).Err())
	}},
	{"a cancelled order's record lost", 13, "Redis has nothing, a rebuild would load R 1.3", func(b *bundle, _ engine.Order) {
		b.ok(b.rdb.HDel(b.t.Context(), b.redisKey("o"), string(b.id("cy"))).Err())
	}},
	{"a record of another hold", 13, "a rebuild would load S 1.99", func(b *bundle, _ engine.Order) {
		b.sql(`UPDATE orders SET hold_seq = 99 WHERE buyer = 'ann'`)
	}},
	{"units held by nobody", 13, "b:fay: Redis has 1 units, 1 orders, a rebuild would load nothing", func(b *bundle, _ engine.Order) {
		b.ask("fay", engine.Line{SKU: "CAP", Quantity: 1, Price: capPrice})
	}},
	{"another order's record", 13, "Redis has S 1.1", func(b *bundle, o engine.Order) {
		text, err := b.rdb.HGet(b.t.Context(), b.redisKey("o"), string(o.Order)).Result()
		b.ok(err)
		b.ok(b.rdb.HSet(b.t.Context(), b.redisKey("o"), string(b.id("cy")), text).Err())
	}},
	{"a buyer's orders", 13, "b:ann: Redis has 2 units, 2 orders, a rebuild would load 2 units, 1 orders", func(b *bundle, _ engine.Order) {
		b.ok(b.rdb.HIncrBy(b.t.Context(), b.redisKey("b"), "ann", 1).Err())
	}},
	{"an identity's units", 13, "i:616e6e0000000000: Redis has 3 units", func(b *bundle, _ engine.Order) {
		b.ok(b.rdb.HIncrBy(b.t.Context(), b.redisKey("i"), "ann\x00\x00\x00\x00\x00", 1).Err())
	}},
}
