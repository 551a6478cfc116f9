package orders_test

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/doorbuster/doorbuster/engine"
	"github.com/doorbuster/doorbuster/engine/orders"
)

func TestASaleIsReadAsItWasCreated(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	want := b.newSale("drop", engine.PayCheckout)
	if want.State != engine.SaleScheduled || want.Epoch != 1 || want.Version != 1 || want.Items[0].SKU != "MUG" || want.HoldFor != time.Hour ||
		want.Items[1].Units != 5 || want.Closes.Sub(want.Opens) != time.Hour || want.Opens.Location() != time.UTC {
		t.Errorf("got %+v", want)
	}
	if err := b.CreateSale(t.Context(), want, note); !errors.Is(err, orders.ErrSaleExists) {
		t.Errorf("created twice: %v", err)
	}
	bad := want
	bad.ID, bad.Closes = "bad", bad.Opens
	if err := b.CreateSale(t.Context(), bad, note); err == nil {
		t.Error("closes at its opening: no error")
	}
	if _, _, err := b.Sale(t.Context(), "nowhere"); !errors.Is(err, orders.ErrNoSale) {
		t.Errorf("unknown sale: %v", err)
	}
	if ids, err := b.Sales(t.Context()); err != nil || !slices.Equal(ids, []engine.SaleID{"drop"}) {
		t.Errorf("sales %v (%v)", ids, err)
	}
	_, st, err := b.Sale(t.Context(), "drop")
	b.ok(err)
	if st.Frozen || len(st.Claimed) != 2 || time.Since(st.Now).Abs() > time.Minute {
		t.Errorf("status %+v", st)
	}
}

func TestSaleStatesFollowTheTable(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for _, c := range []struct {
		to   engine.SaleState
		fits bool
	}{
		{engine.SaleSettled, false},
		{engine.SaleScheduled, true},
		{engine.SaleOpen, true},
		{engine.SaleDraft, false},
		{engine.SalePaused, true},
		{engine.SaleOpen, true},
		{engine.SaleClosed, true},
		{engine.SaleOpen, false},
		{engine.SaleSettled, true},
	} {
		if err := b.SetSaleState(t.Context(), b.sale.ID, c.to, note); (err == nil) != c.fits || (err != nil && !errors.Is(err, orders.ErrState)) {
			t.Errorf("to %s: %v", c.to, err)
		}
	}
	tr, err := b.Trail(t.Context(), b.sale.ID, 10)
	b.ok(err)
	var what []string
	for _, e := range tr {
		what = append(what, e.What)
	}
	if want := []string{"state settled", "state closed", "state open", "state paused", "state open", "create"}; !slices.Equal(what, want) {
		t.Errorf("trail %v, want %v", what, want)
	}
	if ids, err := b.Sales(t.Context()); err != nil || len(ids) != 0 {
		t.Errorf("settled, still in use: %v (%v)", ids, err)
	}
	if err := b.SetSaleState(t.Context(), "nowhere", engine.SaleOpen, note); !errors.Is(err, orders.ErrNoSale) {
		t.Errorf("unknown sale: %v", err)
	}
}

func TestRedefine(t *testing.T) {
	t.Parallel()
	b := setup(t)
	def := b.sale
	def.LimitPerBuyer, def.HoldFor = 9, time.Minute
	def.Items = []engine.Item{{SKU: "HAT", Name: "Hat", Price: 7, Units: 100}, {SKU: "MUG", Name: "Mug", Price: 1400, Units: 1}}
	v, err := b.Redefine(t.Context(), def, note)
	b.ok(err)
	got, _, err := b.Sale(t.Context(), b.sale.ID)
	b.ok(err)
	if v != 2 || got.Version != 2 || got.LimitPerBuyer != 9 || got.HoldFor != time.Minute || len(got.Items) != 3 {
		t.Fatalf("version %d: %+v", v, got)
	}
	hat, _ := got.Item("HAT")
	mug, _ := got.Item("MUG")
	if hat.Units != 0 || mug.Units != 10 || mug.Price != 1400 {
		t.Errorf("hat %+v, mug %+v", hat, mug)
	}
}

func TestRestockAndWithdraw(t *testing.T) {
	t.Parallel()
	b := setup(t)
	in, err := b.Restock(t.Context(), b.sale.ID, "MUG", 5, note)
	b.ok(err)
	out, err := b.RequestWithdraw(t.Context(), b.sale.ID, "MUG", 7, note)
	b.ok(err)
	units := func() int64 {
		s, _, err := b.Sale(t.Context(), b.sale.ID)
		b.ok(err)
		return s.Items[0].Units
	}
	if units() != 15 {
		t.Errorf("units %d, want 15: a withdraw waits for Redis", units())
	}
	ms := b.moves()
	if len(ms) != 2 || ms[0].ID != in || ms[0].Op != engine.Restock || ms[0].Lines[0] != (engine.Line{SKU: "MUG", Quantity: 5}) ||
		ms[1].ID != out || ms[1].Op != engine.Withdraw || ms[1].Lines[0].Quantity != 7 {
		t.Fatalf("moves %+v", ms)
	}
	for _, want := range []int{2, 0} {
		n, moved, err := b.MarkMoved(t.Context(), b.sale.ID, 1, []orders.Moved{{ID: out, Taken: 4}, {ID: in}, {ID: out, Taken: 4}})
		if b.ok(err); n != want || moved {
			t.Errorf("marked %d, want %d", n, want)
		}
		if units() != 11 {
			t.Errorf("units %d, want 11", units())
		}
	}
	tr, err := b.Trail(t.Context(), b.sale.ID, 2)
	b.ok(err)
	if tr[0].What != "withdraw" || tr[0].Units != 7 || tr[1].What != "restock" || tr[1].SKU != "MUG" || tr[1].MoveID != in {
		t.Errorf("trail %+v", tr)
	}
}

func TestSupplyRefuses(t *testing.T) {
	t.Parallel()
	b := setup(t)
	type supply = func(sale engine.SaleID, sku engine.SKU, n int64) error
	for name, f := range map[string]supply{
		"restock": func(sale engine.SaleID, sku engine.SKU, n int64) error {
			_, err := b.Restock(t.Context(), sale, sku, n, note)
			return err
		},
		"withdraw": func(sale engine.SaleID, sku engine.SKU, n int64) error {
			_, err := b.RequestWithdraw(t.Context(), sale, sku, n, note)
			return err
		},
	} {
		for _, c := range []struct {
			sale engine.SaleID
			sku  engine.SKU
			n    int64
			want error
		}{
			{"nowhere", "MUG", 1, orders.ErrNoSale},
			{"drop", "HAT", 1, orders.ErrNoSKU},
			{"drop", "MUG", 0, orders.ErrState},
			{"drop", "MUG", -1, orders.ErrState},
			{"drop", "MUG", engine.MaxUnits + 1, orders.ErrState},
		} {
			if err := f(c.sale, c.sku, c.n); !errors.Is(err, c.want) {
				t.Errorf("%s of %d %s in %s: %v, want %v", name, c.n, c.sku, c.sale, err, c.want)
			}
		}
	}
	if _, err := b.Restock(t.Context(), "drop", "MUG", engine.MaxUnits, note); !errors.Is(err, orders.ErrState) {
		t.Errorf("above MaxUnits in all: %v", err)
	}
	if len(b.moves()) != 0 {
		t.Errorf("refused, and written: %v", b.moves())
	}
}

func TestAWithdrawOfClaimedUnitsStaysPending(t *testing.T) {
	t.Parallel()
	b := setup(t)
	o := b.order("ann", 8)
	o.LimitBuyer = 0
	b.reserved(o)
	id, err := b.RequestWithdraw(t.Context(), b.sale.ID, "MUG", 5, note)
	b.ok(err)
	in, err := b.Restock(t.Context(), b.sale.ID, "CAP", 1, note)
	b.ok(err)
	n, _, err := b.MarkMoved(t.Context(), b.sale.ID, 1, []orders.Moved{{ID: id, Taken: 5}, {ID: in}})
	b.ok(err)
	if ms := b.moves(); n != 1 || len(ms) != 1 || ms[0].ID != id {
		t.Errorf("marked %d, pending %+v", n, ms)
	}
}

func TestMarkMovedNeedsItsEpochUnfrozen(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.confirmed(b.order("ann", 1))
	rows := []orders.Moved{{ID: b.moves()[0].ID}}
	mark := func(epoch int64) bool {
		n, moved, err := b.MarkMoved(t.Context(), b.sale.ID, epoch, rows)
		if b.ok(err); moved == (n == 1) {
			t.Errorf("epoch %d: marked %d, moved %v", epoch, n, moved)
		}
		return moved
	}
	if !mark(0) || !mark(2) {
		t.Error("marked under another epoch")
	}
	if ok, err := b.Freeze(t.Context(), b.sale.ID, 1); err != nil || !ok || !mark(1) {
		t.Errorf("marked while frozen (%v, %v)", ok, err)
	}
	if ok, err := b.Unfreeze(t.Context(), b.sale.ID, 1); err != nil || !ok || mark(1) {
		t.Errorf("not marked (%v, %v)", ok, err)
	}
}

func TestPendingMovesNeverSplitsARow(t *testing.T) {
	t.Parallel()
	b := setup(t)
	var os []engine.Order
	for range 5 {
		o := b.order("ann", 1)
		o.LimitBuyer = 0
		os = append(os, o)
	}
	b.ingest(os...)
	b.claim()
	b.settle(orders.Confirmed, os[:3]...)
	b.settle(orders.Declined, os[3:]...)
	for limit, want := range map[int]int{0: 3, 1: 3, 3: 3, 4: 5, 100: 5} {
		ms, err := b.PendingMoves(t.Context(), b.sale.ID, limit)
		if b.ok(err); len(ms) != want {
			t.Errorf("limit %d: %d moves, want %d", limit, len(ms), want)
		}
	}
	if n, err := b.Backlog(t.Context(), b.sale.ID); err != nil || n != 2 {
		t.Errorf("backlog %d (%v)", n, err)
	}
	if n := b.markAll(1); n != 2 {
		t.Errorf("marked %d rows", n)
	}
}

func TestUnknownHolds(t *testing.T) {
	t.Parallel()
	b := setup(t)
	o, gone := b.reserved(b.order("ann", 1)), b.order("bob", 1)
	foreign := o
	foreign.Hold = engine.Hold{Epoch: 1, Seq: 77}
	ask := []orders.HoldOf{{o.Order, o.Hold}, {gone.Order, gone.Hold}, {o.Order, foreign.Hold}}
	got, err := b.Unknown(t.Context(), b.sale.ID, ask)
	if b.ok(err); !slices.Equal(got, ask[1:]) {
		t.Errorf("got %v, want %v", got, ask[1:])
	}
	b.ingest(foreign)
	if got, err := b.Unknown(t.Context(), b.sale.ID, ask); err != nil || !slices.Equal(got, ask[1:2]) {
		t.Errorf("after the drop: %v (%v), want %v", got, err, ask[1:2])
	}
}

func TestViews(t *testing.T) {
	t.Parallel()
	b := setup(t)
	var os []engine.Order
	for range 3 {
		os = append(os, b.reserved(b.order("ann", 1)))
	}
	b.reserved(b.order("bob", 1))
	got, err := b.OrdersOf(t.Context(), b.sale.ID, "ann", 2)
	if b.ok(err); len(got) != 2 || got[0].Order.Order != os[2].Order || got[1].Order.Order != os[1].Order {
		t.Errorf("mine: %+v", got)
	}
	got, err = b.Orders(t.Context(), []engine.OrderID{os[2].Order, orderID("nobody"), os[0].Order})
	if b.ok(err); len(got) != 2 || got[0].Order.Order != os[2].Order || got[1].Order.Order != os[0].Order {
		t.Errorf("by id: %+v", got)
	}
	if _, err := b.Orders(t.Context(), make([]engine.OrderID, orders.MaxViews+1)); err == nil {
		t.Error("too many: no error")
	}
	if _, err := b.OrdersOf(t.Context(), "nowhere", "ann", 2); !errors.Is(err, orders.ErrNoSale) {
		t.Errorf("unknown sale: %v", err)
	}
	if _, err := b.Order(t.Context(), orderID("nobody")); !errors.Is(err, orders.ErrNoOrder) {
		t.Errorf("unknown order: %v", err)
	}
}

// Who decided by a state or a window that somebody has changed since is refused.
func TestAdvanceSale(t *testing.T) {
	t.Parallel()
	b := setup(t)
	seen := func() engine.Sale {
		def, _, err := b.Sale(t.Context(), b.sale.ID)
		b.ok(err)
		return def
	}
	scheduled := seen()
	b.ok(b.SetSaleState(t.Context(), b.sale.ID, engine.SalePaused, note))
	if err := b.AdvanceSale(t.Context(), scheduled, engine.SaleOpen, note); !errors.Is(err, orders.ErrState) {
		t.Errorf("scheduled to open, and it is paused: %v, want ErrState", err)
	}
	paused := seen()
	if err := b.AdvanceSale(t.Context(), paused, engine.SaleScheduled, note); !errors.Is(err, orders.ErrState) {
		t.Errorf("paused to scheduled: %v, want ErrState", err)
	}
	longer := paused
	longer.Closes = longer.Closes.Add(time.Hour)
	_, err := b.Redefine(t.Context(), longer, note)
	b.ok(err)
	if err := b.AdvanceSale(t.Context(), paused, engine.SaleClosed, note); !errors.Is(err, orders.ErrState) {
		t.Errorf("closed by a window that is longer now: %v, want ErrState", err)
	}
	b.ok(b.AdvanceSale(t.Context(), seen(), engine.SaleClosed, note))
	if got := b.stateOf(b.sale.ID); got != engine.SaleClosed {
		t.Errorf("it is %s", got)
	}
}
