package stock_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/doorbuster/doorbuster/engine"
	"github.com/doorbuster/doorbuster/stock"
)

func define(t *testing.T, w *world) {
	t.Helper()
	b := w.open(t, nil)
	old := b.grip
	b.changes(func() {
		b.redefine(func(s *engine.Sale) {
			s.Opens, s.Closes, s.Currency = s.Opens.Add(1e9), s.Closes.Add(2e9), "USD"
			s.LimitPerBuyer, s.LimitPerIdentity = 5, 0
			s.Items[0].Price = 1
			s.Items = append(s.Items, engine.Item{SKU: "HAT", Price: 77, Units: 5})
		})
	},
		":1:st a:HAT: - → 0",
		fmt.Sprintf(":1:st closes: %d → %d", b.def.Closes.UnixMilli(), b.def.Closes.UnixMilli()+2000),
		":1:st cur: KRW → USD", ":1:st h:HAT: - → 0", ":1:st lb: 2 → 5", ":1:st li: 3 → 0",
		fmt.Sprintf(":1:st opens: %d → %d", b.def.Opens.UnixMilli(), b.def.Opens.UnixMilli()+1000),
		":1:st p:HAT: - → 77", ":1:st p:MUG: 1500 → 1", ":1:st s:HAT: - → 0", ":1:st u:HAT: - → 0", ":1:st ver: 1 → 2",
	)
	b.changes(func() { // what a version says is settled when it comes first
		again := b.def
		again.LimitPerBuyer = 77
		must(t, b.store.Redefine(t.Context(), b.def.ID, b.grip, again))
	})
	b.changes(func() {
		earlier := b.def
		earlier.Version = 1
		if err := b.store.Redefine(t.Context(), b.def.ID, b.grip, earlier); !errors.Is(err, stock.ErrStale) {
			t.Errorf("an earlier definition: %v", err)
		}
		var d stock.Decision
		if err := b.store.Reserve(t.Context(), b.def.ID, old, []engine.Basket{basket(1, "a", "MUG")}, &d); !errors.Is(err, stock.ErrStale) {
			t.Errorf("a grip of an earlier definition: %v", err)
		}
	})
	b.changes(func() {
		must(t, b.store.SetLag(t.Context(), b.def.ID, b.grip, 1234))
		must(t, b.model.SetLag(t.Context(), b.def.ID, b.grip, 1234))
	}, ":1:st lag: 0 → 1234")
	b.changes(func() { must(t, b.store.SetLag(t.Context(), b.def.ID, b.grip, 1234)) })
	b.changes(func() { b.setState(engine.SalePaused) }, ":1:st state: open → paused", ":1:st turn: - → 1")
	before := b.grip
	b.changes(func() { b.setState(engine.SalePaused) }, ":1:st turn: 1 → 2")
	b.changes(func() { // sent before he who paused it again was heard
		for name, err := range map[string]error{
			"script": b.store.SetState(t.Context(), b.def.ID, before, engine.SaleOpen),
			"model":  b.model.SetState(t.Context(), b.def.ID, before, engine.SaleOpen),
		} {
			if !errors.Is(err, stock.ErrStale) {
				t.Errorf("%s: opened by who has not seen that: %v", name, err)
			}
		}
	})
	b.changes(func() { b.setState(engine.SaleSettled) }, ":1:st state: paused → closed", ":1:st turn: 2 → 3")
	if err := b.store.SetState(t.Context(), b.def.ID, b.grip, engine.SaleDraft); err == nil {
		t.Error("a draft has no keys")
	}
}

// fences checks that every operation is refused, and writes nothing, where the
// grip is not the one in use.
func fences(t *testing.T, w *world) {
	t.Helper()
	b := w.open(t, nil)
	x := basket(1, "ann", "MUG")
	b.reserve(x)
	hold := engine.Hold{Epoch: 1, Seq: 1}
	refused := func(why string, g stock.Grip) {
		t.Helper()
		ctx, id, d := t.Context(), b.def.ID, stock.Decision{}
		_, prune := b.store.Prune(ctx, id, g, []engine.OrderID{x.Order})
		errs := map[string]error{
			"reserve": b.store.Reserve(ctx, id, g, []engine.Basket{basket(2, "b", "MUG")}, &d),
			"replay":  b.store.Reserve(ctx, id, g, []engine.Basket{x}, &d),
			"retake":  b.store.Retake(ctx, id, g, []engine.Basket{basket(2, "b", "MUG")}, &d),
			"prune":   prune,
			"state":   b.store.SetState(ctx, id, g, engine.SalePaused),
			"define":  b.store.Redefine(ctx, id, g, b.def),
			"lag":     b.store.SetLag(ctx, id, g, 1),
		}
		for _, op := range []engine.MoveOp{engine.Settle, engine.Release, engine.Drop, engine.Return, engine.Restock, engine.Withdraw} {
			_, errs[op.String()] = b.store.Apply(ctx, id, g, []engine.Move{move(1, op, x, hold)})
		}
		for op, err := range errs {
			if !errors.Is(err, stock.ErrFenced) {
				t.Errorf("%s: %s: %v", why, op, err)
			}
		}
	}
	const other = incarnation + 1
	must(t, w.store.Load(t.Context(), b.def.ID, other)) // as another sale's recovery does
	grip := func(edit func(*stock.Grip)) stock.Grip { g := b.grip; edit(&g); return g }
	b.changes(func() {
		refused("no script", grip(func(g *stock.Grip) { g.SHA = stock.ScriptSHAs(987654321) }))
		refused("no name of a script", grip(func(g *stock.Grip) { g.SHA = stock.SHAs{} }))
		refused("script of another incarnation", grip(func(g *stock.Grip) { g.SHA = stock.ScriptSHAs(other) }))
		refused("no such epoch", grip(func(g *stock.Grip) { g.Epoch = 7 }))
	})
	b.changes(func() {
		must(t, b.store.Freeze(t.Context(), b.def.ID, 1))
		must(t, b.model.Freeze(t.Context(), b.def.ID, 1))
	}, ":1:st state: open → frozen")
	b.changes(func() { refused("frozen", b.grip) })
	if got := b.watch(); !got.Frozen || got.State != "" {
		t.Errorf("watch of a frozen sale: %+v", got)
	}
	b.changes(func() { // what is not there is neither frozen nor beaten into being
		must(t, b.store.Freeze(t.Context(), b.def.ID, 5))
		for _, s := range []interface {
			Beat(context.Context, engine.SaleID, int64) error
		}{b.store, b.model} {
			if err := s.Beat(t.Context(), b.def.ID, 5); !errors.Is(err, stock.ErrNoSale) {
				t.Errorf("beat of no such epoch: %v", err)
			}
		}
		if n := w.rdb.Exists(t.Context(), "s:{"+string(b.def.ID)+"}:5:st").Val(); n != 0 {
			t.Error("an epoch without keys has a state now")
		}
	})
	ok, err := w.store.Loaded(t.Context(), b.def.ID, incarnation)
	if err != nil || !ok {
		t.Errorf("loaded: %t, %v", ok, err)
	}
	ok, err = w.store.Loaded(t.Context(), b.def.ID, 987654321)
	if err != nil || ok {
		t.Errorf("of an incarnation never loaded: %t, %v", ok, err)
	}
}

func outbox(t *testing.T, w *world) {
	t.Helper()
	b := w.open(t, nil)
	ctx, id := t.Context(), b.def.ID
	var firsts []int64
	for i := range 3 {
		firsts = append(firsts, b.reserve(basket(2*i, fmt.Sprint("a", i), "MUG"), basket(2*i+1, fmt.Sprint("b", i), "MUG")).First)
	}
	equal(t, "first", firsts, []int64{1, 3, 5})
	got, n, err := b.store.Outbox(ctx, id, 1, 2)
	must(t, err)
	want, _, _ := b.model.Outbox(ctx, id, 1, 2)
	equal(t, "length", n, 3)
	equal(t, "entries", got, want)
	env, bad, err := engine.ParseEnvelope(got[1].Body)
	if err != nil || len(bad) > 0 || env.Sale != id || len(env.Orders) != 2 || env.Orders[0].AcceptedAt != got[1].At {
		t.Errorf("envelope %+v: %v %v", env, bad, err)
	}
	must(t, b.store.Mark(ctx, id, 1, []int64{1, 3, 99}))
	must(t, b.store.Mark(ctx, id, 1, []int64{1, 3}))
	must(t, b.store.Mark(ctx, id, 1, nil))
	got, n, err = b.store.Outbox(ctx, id, 1, 10)
	must(t, err)
	if n != 1 || len(got) != 1 || got[0].ID != 5 {
		t.Errorf("left: %d, %v", n, got)
	}
	if got, n, err := b.store.Outbox(ctx, id, 8, 10); n != 0 || len(got) != 0 || err != nil {
		t.Errorf("of no epoch: %v %d %v", got, n, err)
	}
}

// rebuild makes epoch 2 from an image with orders in every state.
func rebuild(t *testing.T, w *world) {
	t.Helper()
	b := w.open(t, nil)
	ctx := t.Context()
	live := func(n int, buyer string, settled bool, ids ...byte) stock.LiveOrder {
		o := engine.Order{Basket: with(basket(n, buyer, "MUG", "CAP.red"), ids...), Hold: engine.Hold{Epoch: 1, Seq: int64(n)}}
		o.AcceptedAt, o.LimitBuyer, o.LimitIdentity = 1_700_000_000_000, 2, 3
		return stock.LiveOrder{Order: o, Settled: settled, Finished: 1_700_000_001}
	}
	b.def.State = engine.SalePaused
	b.def.Items[0].Units = 1203
	b.def.Items[1].Units = 1203
	img := stock.Image{Sale: b.def, Epoch: 2, Incarnation: incarnation}
	img.Live = append(img.Live, live(1, "ann", false, 7), live(2, "ann", true, 7, 8))
	for i := range 1200 { // more than one slice
		img.Live = append(img.Live, live(100+i, fmt.Sprint("buyer-", i), i%2 == 0))
	}
	img.Tombstones = []stock.Tombstone{
		{Order: orderID(3), Hold: engine.Hold{Epoch: 1, Seq: 3}, Body: basket(3, "", "MUG").Body, State: engine.RecordReleased, Finished: 5},
		{Order: orderID(4), Hold: engine.Hold{Epoch: 0, Seq: 3}, Body: 1, State: engine.RecordSettled, Finished: 5},
	}
	must(t, b.store.Freeze(ctx, b.def.ID, 1))
	must(t, b.model.Freeze(ctx, b.def.ID, 1))
	must(t, w.rdb.HSet(ctx, "s:{"+string(b.def.ID)+"}:2:o", "left", "by a leader that died").Err())
	b.build(img)
	b.same()
	got := b.watch()
	equal(t, "items", got.Items, []stock.Item{
		{SKU: "CAP.red", Price: 900, Units: 1203, Available: 1, Held: 601, Sold: 601},
		{SKU: "MUG", Price: 1500, Units: 1203, Available: 1, Held: 601, Sold: 601},
	})
	equal(t, "state", got.State, engine.SalePaused)
	equal(t, "replays", outcomes(b.reserve(img.Live[0].Basket, img.Live[1].Basket, basket(3, "c", "MUG"), basket(8, "c", "MUG"))), "HSRP")
	if v := b.reserve(img.Live[0].Basket).Verdicts[0]; v.Unpublished || v.Hold != img.Live[0].Hold {
		t.Errorf("a hold of the epoch before: %+v", v)
	}
	b.setState(engine.SaleOpen)
	equal(t, "sells on", outcomes(b.reserve(basket(8, "c", "MUG"), basket(9, "c", "MUG"))), "AO")
	b.apply(move(1, engine.Settle, img.Live[0].Basket, img.Live[0].Hold)) // held in epoch 1, settled in epoch 2
	if err := b.store.Build(ctx, img); !errors.Is(err, stock.ErrFenced) {
		t.Errorf("the same epoch again: %v", err)
	}
	img.Epoch = 1
	if err := b.store.Build(ctx, img); !errors.Is(err, stock.ErrFenced) {
		t.Errorf("an epoch before: %v", err)
	}
	dropEpochs(t, b)
}

func dropEpochs(t *testing.T, b *bundle) {
	t.Helper()
	ctx, id := t.Context(), b.def.ID
	epochs, err := b.store.Epochs(ctx, id)
	must(t, err)
	equal(t, "epochs", epochs, []int64{1, 2})
	if err := b.store.DropEpoch(ctx, id, 2); err == nil {
		t.Error("dropped the epoch in use")
	}
	must(t, b.store.DropEpoch(ctx, id, 1))
	must(t, b.model.DropEpoch(ctx, id, 1))
	b.same()
	epochs, err = b.store.Epochs(ctx, id)
	must(t, err)
	equal(t, "epochs", epochs, []int64{2})
}

func TestBuildRefusesWhatCannotBe(t *testing.T) {
	t.Parallel()
	w, order := shared(t), engine.Order{Basket: basket(1, "a", "MUG*2"), Hold: engine.Hold{Epoch: 1, Seq: 1}}
	for why, edit := range map[string]func(*stock.Image){
		"draft":        func(img *stock.Image) { img.Sale.State = engine.SaleDraft },
		"oversold":     func(img *stock.Image) { img.Sale.Items[0].Units = 1; img.Live = []stock.LiveOrder{{Order: order}} },
		"unknown held": func(img *stock.Image) { img.Sale.Items[0].SKU = "X"; img.Live = []stock.LiveOrder{{Order: order}} },
		"unknown sold": func(img *stock.Image) {
			img.Sale.Items[0].SKU = "X"
			img.Live = []stock.LiveOrder{{Order: order, Settled: true}}
		},
	} {
		img := stock.Image{Sale: definition(), Epoch: 1, Incarnation: incarnation}
		edit(&img)
		if err := w.store.Build(t.Context(), img); err == nil {
			t.Errorf("%s: built", why)
		}
		if _, err := w.store.Watch(t.Context(), img.Sale.ID, 0); !errors.Is(err, stock.ErrNoSale) {
			t.Errorf("%s: watch: %v", why, err)
		}
	}
}

func reads(t *testing.T, w *world) {
	t.Helper()
	b := w.open(t, nil)
	ctx, id := t.Context(), b.def.ID
	x := with(basket(1, "ann", "MUG*2"), 9)
	b.reserve(x, basket(2, "bob", "MUG"))
	r, ok, err := b.store.Record(ctx, id, x.Order)
	if err != nil || !ok || r.Order.Buyer != "ann" || r.State != engine.RecordHeld {
		t.Errorf("record: %+v %t %v", r, ok, err)
	}
	if _, ok, err = b.store.Record(ctx, id, orderID(77)); ok || err != nil {
		t.Errorf("no record: %t %v", ok, err)
	}
	if _, _, err = b.store.Record(ctx, "t-nowhere", x.Order); !errors.Is(err, stock.ErrNoSale) {
		t.Errorf("no sale: %v", err)
	}
	recs, next, err := b.store.Records(ctx, id, 1, 0)
	must(t, err)
	slices.SortFunc(recs, func(a, b engine.Record) int { return int(a.Order.Hold.Seq - b.Order.Hold.Seq) })
	want, _, _ := b.model.Records(ctx, id, 1, 0)
	equal(t, "records", recs, want)
	equal(t, "cursor", next, 0)
	buyers, _, err := b.store.BuyerCounters(ctx, id, 1, 0)
	must(t, err)
	slices.SortFunc(buyers, func(a, b stock.Counter) int { return int(b.Units - a.Units) })
	equal(t, "buyers", buyers, []stock.Counter{{Buyer: "ann", Units: 2, Orders: 1}, {Buyer: "bob", Units: 1, Orders: 1}})
	ids, _, err := b.store.IdentityCounters(ctx, id, 1, 0)
	must(t, err)
	equal(t, "identities", ids, []stock.Counter{{Identity: x.Identities[0], Units: 2}})
	srv, err := b.store.Server(ctx, id)
	if err != nil || len(srv.RunID) != 40 || len(srv.ReplID) != 40 {
		t.Errorf("server: %+v %v", srv, err)
	}
	must(t, b.store.Beat(ctx, id, 1))
	must(t, b.store.Beat(ctx, id, 1))
	must(t, b.model.Beat(ctx, id, 1))
	must(t, b.model.Beat(ctx, id, 1))
	if got := b.watch(); got.Heartbeat != 2 {
		t.Errorf("heartbeat %d", got.Heartbeat)
	}
	if _, err := b.store.Watch(ctx, "t-nowhere", 3); !errors.Is(err, stock.ErrNoSale) {
		t.Errorf("watch of no sale: %v", err)
	}
	old, err := b.store.Watch(ctx, id, 44) // an epoch seen last that is not in use
	if err != nil || old.Epoch != 1 {
		t.Errorf("watch: %+v %v", old, err)
	}
	key := "s:{" + string(id) + "}:1:st"
	for _, torn := range []string{"h:MUG", "seq", "state"} {
		must(t, w.rdb.HDel(ctx, key, torn).Err())
		if _, err := b.store.Watch(ctx, id, 1); !errors.Is(err, stock.ErrFenced) {
			t.Errorf("watch without %s: %v", torn, err)
		}
		must(t, w.rdb.HSet(ctx, key, torn, "open").Err())
	}
	must(t, w.rdb.Unlink(ctx, key).Err())
	if _, err := b.store.Watch(ctx, id, 1); !errors.Is(err, stock.ErrFenced) {
		t.Errorf("watch without state: %v", err)
	}
}
