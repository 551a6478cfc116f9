package orders_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"testing"
	"time"

	"github.com/doorbuster/doorbuster/engine"
	"github.com/doorbuster/doorbuster/engine/orders"
)

func TestIngestAgainChangesNothing(t *testing.T) {
	t.Parallel()
	b := setup(t)
	o, p := b.order("ann", 2), b.order("bob", 1)
	b.ingest(o, p)
	if rep := b.ingest(p, o, o); rep.Repeated != 3 || len(rep.Reserved)+rep.Cancelled+rep.Foreign+len(rep.Stale) != 0 {
		t.Errorf("again: %+v", rep)
	}
	if n := b.claimed("MUG"); n != 3 {
		t.Errorf("claimed %d, want 3", n)
	}
	if len(b.moves()) != 0 {
		t.Errorf("moves of open orders: %v", b.moves())
	}
	b.laws()
}

func TestIngestTheSameOrderTwiceInOneBatch(t *testing.T) {
	t.Parallel()
	b := setup(t)
	o, other := b.order("ann", 1), b.order("bob", 1)
	foreign := o
	foreign.Hold.Seq = 99
	if rep := b.ingest(o, other, o, foreign); len(rep.Reserved) != 2 || rep.Repeated != 1 || rep.Foreign != 1 {
		t.Errorf("got %+v", rep)
	}
	b.laws()
}

func TestRepeatOfAFinishedOrderReopensItsOutcome(t *testing.T) {
	t.Parallel()
	b := setup(t)
	o, p := b.order("ann", 1), b.order("bob", 1)
	b.ingest(o, p)
	b.claim()
	b.settle(orders.Confirmed, o)
	b.settle(orders.Declined, p)
	b.markAll(1)
	if rep := b.ingest(o, p); rep.Repeated != 2 {
		t.Fatalf("again: %+v", rep)
	}
	ops := map[engine.OrderID]engine.MoveOp{}
	for _, m := range b.moves() {
		ops[m.Order] = m.Op
	}
	if ops[o.Order] != engine.Settle || ops[p.Order] != engine.Release || len(ops) != 2 {
		t.Errorf("reopened %v", ops)
	}
	b.laws()
}

func TestForeignHoldIsDroppedOnce(t *testing.T) {
	t.Parallel()
	b := setup(t)
	o := b.reserved(b.order("ann", 2))
	foreign := o
	foreign.Hold = engine.Hold{Epoch: 1, Seq: 50}
	for range 2 {
		if rep := b.ingest(foreign); rep.Foreign != 1 || rep.Repeated != 0 {
			t.Fatalf("got %+v", rep)
		}
	}
	ms := b.moves()
	if len(ms) != 1 || ms[0].Op != engine.Drop || ms[0].Hold != foreign.Hold || ms[0].Order != o.Order || ms[0].Lines[0].Quantity != 2 || ms[0].Buyer != "ann" {
		t.Fatalf("moves %+v", ms)
	}
	b.markAll(1)
	b.ingest(foreign)
	if again := b.moves(); len(again) != 1 || again[0].ID != ms[0].ID {
		t.Errorf("met again: %+v, want row %d reopened", again, ms[0].ID)
	}
	if b.claimed("MUG") != 2 || b.view(o).Hold != o.Hold {
		t.Error("a foreign hold changed the order")
	}
	b.laws()
}

func TestStaleOrdersAreHandedBackAndTakenAgain(t *testing.T) {
	t.Parallel()
	b := setup(t)
	old := b.order("ann", 1)
	refused := b.order("bob", 2)
	img := b.load(b.sale.ID, 1)
	if img.Sale.Epoch != 2 {
		t.Fatalf("epoch %d", img.Sale.Epoch)
	}
	fresh := b.order("cid", 1)
	fresh.Hold.Epoch = 2
	rep := b.ingest(old, refused, fresh)
	if len(rep.Reserved) != 1 || rep.Reserved[0] != fresh.Order || len(rep.Stale) != 2 || rep.Forks != 0 {
		t.Fatalf("got %+v", rep)
	}
	again := old
	again.Hold = engine.Hold{Epoch: 2, Seq: 70}
	rep = b.arrive(orders.Arrival{Order: again, Retaken: true, Epoch: 2}, orders.Arrival{Order: refused, Refused: true, Epoch: 2})
	if len(rep.Reserved) != 1 || rep.Reserved[0] != old.Order || rep.Cancelled != 1 {
		t.Fatalf("taken again: %+v", rep)
	}
	b.want(again, engine.Reserved, engine.NoReason)
	b.want(refused, engine.Cancelled, engine.ReasonEpoch)
	if ms := b.moves(); len(ms) != 1 || ms[0].Op != engine.Release || ms[0].Hold != refused.Hold {
		t.Errorf("moves %+v", ms)
	}
	// Both messages come once more, as they were; and a retake under yet another hold.
	later := again
	later.Hold.Seq = 71
	rep = b.arrive(orders.Arrival{Order: old}, orders.Arrival{Order: refused},
		orders.Arrival{Order: later, Retaken: true, Epoch: 2}, orders.Arrival{Order: refused, Refused: true, Epoch: 2})
	if rep.Foreign != 2 || rep.Repeated != 2 || len(rep.Stale) != 0 {
		t.Errorf("once more: %+v", rep)
	}
	b.laws()
}

func TestRetakeOfAnEpochThatMovedDoesNothing(t *testing.T) {
	t.Parallel()
	b := setup(t)
	old := b.order("ann", 1)
	b.load(b.sale.ID, 1)
	fresh := b.order("bob", 1)
	fresh.Hold.Epoch = 2
	for _, a := range []orders.Arrival{{Order: old, Retaken: true, Epoch: 1}, {Order: old, Refused: true, Epoch: 3}} {
		if rep := b.arrive(orders.Arrival{Order: fresh}, a); !rep.Moved || len(rep.Reserved)+rep.Cancelled+len(rep.Stale) != 0 {
			t.Errorf("got %+v", rep)
		}
	}
	if _, err := b.Order(t.Context(), fresh.Order); !errors.Is(err, orders.ErrNoOrder) {
		t.Errorf("something was written: %v", err)
	}
}

func TestAForkIsStaleAndMayComeInBeside(t *testing.T) {
	t.Parallel()
	b := setup(t)
	o, fork := b.order("ann", 1), b.order("bob", 1)
	fork.Hold = o.Hold
	b.ingest(o)
	if rep := b.ingest(fork); rep.Forks != 1 || len(rep.Stale) != 1 || len(rep.Reserved) != 0 {
		t.Fatalf("got %+v", rep)
	}
	// Within the same epoch the retake finds the record under the very hold.
	if rep := b.arrive(orders.Arrival{Order: fork, Retaken: true, Epoch: 1}); len(rep.Reserved) != 1 || rep.Forks != 1 {
		t.Fatalf("taken again: %+v", rep)
	}
	if rep := b.ingest(fork); rep.Repeated != 1 {
		t.Fatalf("once more: %+v", rep)
	}
	b.want(fork, engine.Reserved, engine.NoReason)
	b.laws()
}

func TestGuardOfUnitsJudgesBasketByBasket(t *testing.T) {
	t.Parallel()
	b := setup(t)
	cap1 := engine.Line{SKU: "CAP", Quantity: 3, Price: 900}
	mug := func(n int64) engine.Line { return engine.Line{SKU: "MUG", Quantity: n, Price: 1500} }
	nolimit := func(o engine.Order) engine.Order { o.LimitBuyer = 0; return o }
	// 10 mugs, 5 caps. In the order of holds: 3 caps, then 3 caps and 1 mug (no
	// caps left: no mug either), then 8 mugs, 3 mugs (sold out), 2 mugs.
	first := nolimit(b.orderOf("ann", cap1))
	both := nolimit(b.orderOf("bob", cap1, mug(1)))
	many := nolimit(b.orderOf("cid", mug(8)))
	over := nolimit(b.orderOf("dan", mug(3)))
	last := nolimit(b.orderOf("eve", mug(2)))
	rep := b.ingest(last, over, many, both, first)
	if len(rep.Reserved) != 3 || rep.Cancelled != 2 {
		t.Fatalf("got %+v", rep)
	}
	for _, o := range []engine.Order{first, many, last} {
		b.want(o, engine.Reserved, engine.NoReason)
	}
	b.want(both, engine.Cancelled, engine.ReasonSoldOut)
	b.want(over, engine.Cancelled, engine.ReasonSoldOut)
	if b.claimed("MUG") != 10 || b.claimed("CAP") != 3 {
		t.Errorf("claimed %d mugs, %d caps", b.claimed("MUG"), b.claimed("CAP"))
	}
	ms := b.moves()
	if len(ms) != 2 || ms[0].Op != engine.Release || ms[1].Op != engine.Release {
		t.Errorf("moves %+v", ms)
	}
	b.laws()
}

func TestGuardOfLimitsTakesTheLimitOfEachOrder(t *testing.T) {
	t.Parallel()
	b := setup(t)
	with := func(o engine.Order, limit int64, ids ...engine.Identity) engine.Order {
		o.LimitBuyer, o.LimitIdentity, o.Identities = limit, limit, ids
		return o
	}
	tight := with(b.order("ann", 1), 1)
	loose := with(b.order("ann", 2), 3)                      // fits its own limit beside the first
	over := with(b.order("ann", 1), 3)                       // 3 used
	free := with(b.order("ann", 1), 0)                       // no limit, still counted
	shared := with(b.order("bob", 2), 2, engine.Identity{1}) // 2 by identity
	same := with(b.order("cid", 1), 2, engine.Identity{1})   // another buyer, same identity
	next := with(b.order("dan", 1), 2, engine.Identity{2}, engine.Identity{3})
	rep := b.ingest(tight, loose, over, free, shared, same, next)
	if len(rep.Reserved) != 5 || rep.Cancelled != 2 {
		t.Fatalf("got %+v", rep)
	}
	b.want(over, engine.Cancelled, engine.ReasonLimit)
	b.want(same, engine.Cancelled, engine.ReasonLimit)
	if b.used("b:ann") != 4 || b.used("i:0100000000000000") != 2 || b.used("b:cid") != 0 {
		t.Errorf("used: ann %d, identity 1 %d, cid %d", b.used("b:ann"), b.used("i:0100000000000000"), b.used("b:cid"))
	}
	// What is given back can be used again.
	b.claim()
	b.settle(orders.Declined, shared)
	same2 := with(b.order("cid", 2), 2, engine.Identity{1})
	b.reserved(same2)
	b.laws()
}

func TestAnOrderThatCannotBeWrittenTakesNoneWithIt(t *testing.T) {
	t.Parallel()
	b := setup(t)
	good := b.order("ann", 1)
	poison := map[string]engine.Order{
		"unknown sku": b.orderOf("bob", engine.Line{SKU: "HAT", Quantity: 1, Price: 1}),
		"below zero":  b.order("cid", 1),
		"no text":     b.order("dan\x00", 1),
	}
	o := poison["below zero"]
	o.Total = math.MinInt64
	poison["below zero"] = o
	for name, bad := range poison {
		if _, err := b.Ingest(t.Context(), b.sale.ID, arrivals(good, bad)); !errors.Is(err, orders.ErrNotWritable) {
			t.Errorf("%s: %v, want ErrNotWritable", name, err)
		}
	}
	if _, err := b.Order(t.Context(), good.Order); !errors.Is(err, orders.ErrNoOrder) {
		t.Errorf("the good one was written beside a poisoned one: %v", err)
	}
	b.reserved(good)
	b.laws()
}

func TestIngestRefuses(t *testing.T) {
	t.Parallel()
	b := setup(t)
	if _, err := b.Ingest(t.Context(), "nowhere", arrivals(b.order("ann", 1))); !errors.Is(err, orders.ErrNoSale) {
		t.Errorf("unknown sale: %v", err)
	}
	if _, err := b.Ingest(t.Context(), b.sale.ID, make([]orders.Arrival, orders.MaxBatch+1)); err == nil {
		t.Error("too many: no error")
	}
	if rep := b.ingest(); len(rep.Reserved) != 0 {
		t.Errorf("nothing: %+v", rep)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := b.Ingest(ctx, b.sale.ID, arrivals(b.order("ann", 1))); !errors.Is(err, context.Canceled) {
		t.Errorf("ctx ended: %v", err)
	}
}

func TestIngestAndClaimLeasesWhatIsPaidAtOrder(t *testing.T) {
	t.Parallel()
	b := setup(t)
	o, p := b.order("ann", 1), b.order("bob", 20)
	p.LimitBuyer = 0
	rep, err := b.IngestAndClaim(t.Context(), b.sale.ID, arrivals(o, p), time.Hour)
	b.ok(err)
	if len(rep.Claimed) != 1 || len(rep.Reserved) != 0 || rep.Cancelled != 1 || rep.Claimed[0].Attempt != 1 || rep.Claimed[0].Order != o.Order {
		t.Fatalf("got %+v", rep)
	}
	b.want(o, engine.Paying, engine.NoReason)
	b.want(p, engine.Cancelled, engine.ReasonSoldOut)
	if c := b.claim(); len(c) != 0 {
		t.Fatalf("claimed within the lease: %+v", c)
	}
	b.laws()
	if got := b.settle(orders.Confirmed, o); !got[0].Won {
		t.Errorf("settled %+v", got)
	}
	// A lease that ends hands the order out again, with the attempt it has.
	q := b.order("cid", 1)
	_, err = b.IngestAndClaim(t.Context(), b.sale.ID, arrivals(q), time.Nanosecond)
	b.ok(err)
	b.waitFor("the lease to end", func() bool {
		c := b.claim()
		return len(c) == 1 && c[0].Order == q.Order && c[0].Attempt == 1 && c[0].Again
	})
	b.laws()
}

func TestIngestOfAFrozenSaleGoesOn(t *testing.T) {
	t.Parallel()
	b := setup(t)
	frozen, err := b.Freeze(t.Context(), b.sale.ID, 1)
	b.ok(err)
	if !frozen {
		t.Fatal("not frozen")
	}
	b.confirmed(b.order("ann", 1))
	img, err := b.Cut(t.Context(), b.sale.ID, 1)
	b.ok(err)
	if len(img.Live) != 1 || !img.Live[0].Settled {
		t.Errorf("drained, but not in the image: %+v", img)
	}
}

// A quantity that no door lets through would overflow the sums of its whole batch, and
// nobody could read the order back.
func TestQuantitiesAreBounded(t *testing.T) {
	t.Parallel()
	b := setup(t)
	good := b.order("ann", 1)
	for i, n := range []int64{0, -1, engine.MaxQuantity + 1, math.MaxInt64} {
		bad := b.order(engine.BuyerID(fmt.Sprint("bob", i)), 1)
		bad.Lines = []engine.Line{{SKU: "MUG", Quantity: n, Price: 1}}
		if _, err := b.Ingest(t.Context(), b.sale.ID, arrivals(good, bad)); !errors.Is(err, orders.ErrNotWritable) {
			t.Errorf("quantity %d: %v", n, err)
		}
		b.ok(b.Reject(t.Context(), b.sale.ID, orders.Rejected{Order: bad.Order, Bytes: []byte(bad.Buyer), Cause: "x", Known: &bad}))
		if ms := b.moves(); ms[len(ms)-1].Op != engine.Release || ms[len(ms)-1].Order != bad.Order || ms[len(ms)-1].Hold != bad.Hold {
			t.Errorf("quantity %d: its hold is not released: %+v", n, ms)
		}
		if _, err := b.Order(t.Context(), bad.Order); err == nil {
			t.Errorf("quantity %d: it stands as an order", n)
		}
	}
	b.laws()
}

func TestRejectKeepsTheBytesAndReleasesTheHold(t *testing.T) {
	t.Parallel()
	b := setup(t)
	bad := b.orderOf("ann", engine.Line{SKU: "HAT", Quantity: 1, Price: 1})
	nul := b.order("bob\x00", 1)
	known := b.reserved(b.order("cid", 1))
	for range 2 {
		for i, r := range []orders.Rejected{
			{Bytes: []byte("junk\x00\xff"), Cause: "no order at all \x00\xff"},
			{Order: bad.Order, Bytes: []byte("a"), Cause: "unknown sku", Known: &bad},
			{Order: nul.Order, Bytes: []byte("b"), Cause: "no text", Known: &nul},
			{Order: known.Order, Bytes: []byte("c"), Cause: "known already", Known: &known},
		} {
			if err := b.Reject(t.Context(), b.sale.ID, r); err != nil {
				t.Errorf("%d: %v", i, err)
			}
		}
	}
	b.ok(b.Reject(t.Context(), "nowhere", orders.Rejected{Order: bad.Order, Bytes: []byte("d"), Known: &bad}))
	b.ok(b.Reject(t.Context(), b.sale.ID, orders.Rejected{Bytes: make([]byte, orders.MaxRejectedBytes+1)}))
	got, err := b.RejectedOf(t.Context(), b.sale.ID, 10)
	b.ok(err)
	if len(got) != 5 || string(got[4].Bytes) != "junk\x00\xff" || len(got[0].Bytes) != orders.MaxRejectedBytes {
		t.Errorf("kept %d", len(got))
	}
	b.want(bad, engine.Cancelled, engine.ReasonRejected)
	b.want(known, engine.Reserved, engine.NoReason)
	ms := b.moves()
	for _, o := range []engine.Order{bad, nul} {
		if !slices.ContainsFunc(ms, func(m engine.Move) bool { return m.Op == engine.Release && m.Order == o.Order && m.Hold == o.Hold }) {
			t.Errorf("hold of %q is not released: %+v", o.Buyer, ms)
		}
	}
	if len(ms) != 2 {
		t.Errorf("moves %+v", ms)
	}
	b.laws()
}

func TestIngestOfManyEnvelopesAtOnce(t *testing.T) {
	t.Parallel()
	b := setup(t)
	_, err := b.Restock(t.Context(), b.sale.ID, "MUG", 10_000, note)
	b.ok(err)
	var os []engine.Order
	for i := range orders.MaxBatch {
		os = append(os, b.order(engine.BuyerID(fmt.Sprint("buyer", i)), 1))
	}
	if rep := b.ingest(os...); len(rep.Reserved) != orders.MaxBatch {
		t.Fatalf("reserved %d", len(rep.Reserved))
	}
	n := 0
	for {
		p := b.claim()
		if len(p) == 0 {
			break
		}
		n += len(p)
	}
	if n != orders.MaxBatch {
		t.Errorf("claimed %d", n)
	}
	b.laws()
}
