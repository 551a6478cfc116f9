package orders_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/doorbuster/doorbuster/engine"
	"github.com/doorbuster/doorbuster/engine/orders"
)

func TestSettleIsACompareAndSet(t *testing.T) {
	t.Parallel()
	b := setup(t)
	reserved, paying, other := b.order("ann", 1), b.order("bob", 1), b.order("cid", 1)
	b.ingest(paying, other)
	b.claim()
	b.ingest(reserved)
	got, err := b.Settle(t.Context(), b.sale.ID, []orders.Payment{
		{Order: reserved.Order, Attempt: 1, Result: orders.Confirmed}, // not paying
		{Order: paying.Order, Attempt: 2, Result: orders.Confirmed},   // another attempt
		{Order: orderID("nobody"), Attempt: 1, Result: orders.Confirmed},
		{Order: other.Order, Attempt: 1, Result: orders.Declined},
		{Order: other.Order, Attempt: 1, Result: orders.Confirmed}, // the first counts
	}, nil)
	b.ok(err)
	want := []orders.Settled{
		{Order: reserved.Order, State: engine.Reserved},
		{Order: paying.Order, State: engine.Paying, Attempt: 1},
		{Order: orderID("nobody")},
		{Order: other.Order, State: engine.Cancelled, Attempt: 1, Won: true},
		{Order: other.Order, State: engine.Cancelled, Attempt: 1},
	}
	for i := range want {
		if want[i].State == 0 || want[i].State == engine.Reserved {
			got[i].Attempt = 0
		}
		if got[i] != want[i] {
			t.Errorf("payment %d: %+v, want %+v", i, got[i], want[i])
		}
	}
	b.want(other, engine.Cancelled, engine.ReasonDeclined)
	if b.claimed("MUG") != 2 || b.used("b:cid") != 0 {
		t.Errorf("claimed %d, used %d", b.claimed("MUG"), b.used("b:cid"))
	}
	b.laws()
}

func TestSettleOfAnotherSaleDoesNothing(t *testing.T) {
	t.Parallel()
	b := setup(t)
	o := b.reserved(b.order("ann", 1))
	b.claim()
	b.newSale("other", engine.PayAtOrder)
	for _, result := range []orders.PaymentResult{orders.Confirmed, orders.Declined} {
		got, err := b.Settle(t.Context(), "other", []orders.Payment{{Order: o.Order, Attempt: 1, Result: result}}, nil)
		b.ok(err)
		if got[0].Won {
			t.Errorf("%v: won under the lock of another sale", result)
		}
	}
	b.want(o, engine.Paying, engine.NoReason)
}

func TestSettleTakesTheLedgerAlong(t *testing.T) {
	t.Parallel()
	b := setup(t)
	o, p := b.order("ann", 2), b.order("bob", 1)
	b.ingest(o, p)
	b.claim()
	pay := []orders.Payment{{Order: o.Order, Attempt: 1, Result: orders.Confirmed}, {Order: p.Order, Attempt: 1, Result: orders.Declined}}
	sentinel := errors.New("ledger is closed")
	if _, err := b.Settle(t.Context(), b.sale.ID, pay, func(context.Context, pgx.Tx, []orders.Payable) error { return sentinel }); !errors.Is(err, sentinel) {
		t.Fatalf("got %v", err)
	}
	b.want(o, engine.Paying, engine.NoReason)
	b.want(p, engine.Paying, engine.NoReason)
	var seen []orders.Payable
	also := func(ctx context.Context, tx pgx.Tx, confirmed []orders.Payable) error {
		seen = confirmed
		_, err := tx.Exec(ctx, "SELECT 1")
		return err
	}
	_, err := b.Settle(t.Context(), b.sale.ID, pay, also)
	b.ok(err)
	want := orders.Payable{Order: o.Order, Sale: "drop", Buyer: "ann", Amount: engine.Money{Amount: 3000, Currency: "KRW"}, Provider: "instant", Attempt: 1}
	if len(seen) != 1 || seen[0] != want {
		t.Errorf("ledger saw %+v, want %+v", seen, want)
	}
	if seen = nil; b.settle(orders.Confirmed, o)[0].Won {
		t.Error("won twice")
	}
	if _, err := b.Settle(t.Context(), b.sale.ID, pay, also); err != nil || seen != nil {
		t.Errorf("the ledger saw losers: %+v (%v)", seen, err)
	}
}

func TestSettleRefuses(t *testing.T) {
	t.Parallel()
	b := setup(t)
	if _, err := b.Settle(t.Context(), b.sale.ID, []orders.Payment{{Order: orderID("x")}}, nil); !errors.Is(err, orders.ErrState) {
		t.Errorf("no result: %v", err)
	}
	if _, err := b.Settle(t.Context(), "nowhere", nil, nil); !errors.Is(err, orders.ErrNoSale) {
		t.Errorf("no sale: %v", err)
	}
	if _, err := b.Settle(t.Context(), b.sale.ID, make([]orders.Payment, orders.MaxBatch+1), nil); err == nil {
		t.Error("too many: no error")
	}
}

func TestDeferAndClaimAgain(t *testing.T) {
	t.Parallel()
	b := setup(t)
	o, p, q := b.order("ann", 1), b.order("bob", 1), b.order("cid", 1)
	b.ingest(o, p)
	b.claim()
	b.ingest(q)
	// q is reserved, not paying: left alone.
	b.ok(b.Defer(t.Context(), b.sale.ID, []engine.OrderID{o.Order, o.Order, q.Order}, 0))
	b.laws()
	got := b.claim()
	if len(got) != 2 || b.claim() != nil {
		t.Fatalf("claimed %+v", got)
	}
	for _, c := range got {
		if c.Again != (c.Order == o.Order) || c.Attempt != 1 {
			t.Errorf("claimed %+v", c)
		}
	}
	for range 20 { // rows of work do not pile up
		b.ok(b.Defer(t.Context(), b.sale.ID, []engine.OrderID{o.Order}, 0))
		if got := b.claim(); len(got) != 1 {
			t.Fatalf("claimed %+v", got)
		}
	}
	var rows int
	b.ok(b.pool.QueryRow(t.Context(), `SELECT count(*) FROM work WHERE $1 = ANY(orders)`, o.Order).Scan(&rows))
	if rows > 22 {
		t.Errorf("%d rows of work for one order", rows)
	}
	b.laws()
}

func TestClaimTakesPartOfARow(t *testing.T) {
	t.Parallel()
	b := setup(t)
	var os []engine.Order
	for i := range 7 {
		os = append(os, b.order(engine.BuyerID(fmt.Sprint("buyer", i)), 1))
	}
	b.ingest(os...)
	for _, want := range []int{3, 3, 1, 0} {
		got, err := b.Claim(t.Context(), orders.ClaimOptions{Limit: 3})
		b.ok(err)
		if len(got) != want {
			t.Fatalf("claimed %d, want %d", len(got), want)
		}
		b.laws()
	}
}

func TestClaimSkipsWhatAnotherIsTaking(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.ingest(b.order("ann", 1))
	b.ingest(b.order("bob", 1))
	tx, err := b.pool.Begin(t.Context())
	b.ok(err)
	_, err = tx.Exec(t.Context(), `SELECT id FROM work ORDER BY due_at, id LIMIT 1 FOR UPDATE`)
	b.ok(err)
	if got := b.claim(); len(got) != 1 {
		t.Errorf("claimed %+v", got)
	}
	b.ok(tx.Rollback(t.Context()))
	if got := b.claim(); len(got) != 1 {
		t.Errorf("claimed %+v", got)
	}
}

func TestClaimPassesOverWhatIsDone(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for i := range 5 {
		o := b.order(engine.BuyerID(fmt.Sprint("buyer", i)), 1)
		_, err := b.IngestAndClaim(t.Context(), b.sale.ID, arrivals(o), time.Nanosecond)
		b.ok(err)
		b.settle(orders.Confirmed, o)
	}
	last := b.reserved(b.order("zoe", 1))
	got, err := b.Claim(t.Context(), orders.ClaimOptions{Sale: b.sale.ID, Limit: 1})
	b.ok(err)
	if len(got) != 1 || got[0].Order != last.Order {
		t.Errorf("claimed %+v", got)
	}
}

func TestNextAttempt(t *testing.T) {
	t.Parallel()
	b := setup(t)
	o := b.reserved(b.order("ann", 1))
	for _, c := range []struct {
		attempt int
		want    bool
	}{{0, false}, {1, true}, {1, false}, {2, true}} {
		if c.want && c.attempt == 1 {
			b.claim()
		}
		got, err := b.NextAttempt(t.Context(), b.sale.ID, o.Order, c.attempt)
		b.ok(err)
		if got != c.want {
			t.Errorf("after attempt %d: %v, want %v", c.attempt, got, c.want)
		}
	}
	if v := b.view(o); v.Attempt != 3 || v.State != engine.Paying {
		t.Errorf("attempt %d, %v", v.Attempt, v.State)
	}
	b.laws()
}

func TestCheckout(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	b.sale = b.newSale("drop", engine.PayCheckout)
	o, p := b.order("ann", 1), b.order("bob", 1)
	rep, err := b.IngestAndClaim(t.Context(), b.sale.ID, arrivals(o, p), time.Hour)
	b.ok(err)
	if len(rep.Reserved) != 2 || len(rep.Claimed) != 0 {
		t.Fatalf("got %+v", rep)
	}
	if got := b.claim(); got != nil {
		t.Fatalf("claimed what its buyer has to pay: %+v", got)
	}
	if d := time.Until(b.view(o).Due); d < 50*time.Minute || d > time.Hour {
		t.Errorf("deadline in %v, want an hour", d)
	}
	pay, ok, err := b.BeginCheckout(t.Context(), b.sale.ID, o.Order, time.Nanosecond)
	b.ok(err)
	if !ok || pay.Attempt != 1 || pay.Amount.Amount != 1500 {
		t.Fatalf("began %+v, %v", pay, ok)
	}
	if _, ok, err := b.BeginCheckout(t.Context(), b.sale.ID, o.Order, time.Hour); err != nil || ok {
		t.Errorf("began twice: %v, %v", ok, err)
	}
	b.passDeadlines()
	if n, err := b.Expire(t.Context(), 10); err != nil || n != 1 {
		t.Fatalf("expired %d (%v), want 1", n, err)
	}
	b.want(o, engine.Paying, engine.NoReason)
	b.want(p, engine.Cancelled, engine.ReasonExpired)
	if _, ok, err := b.BeginCheckout(t.Context(), b.sale.ID, p.Order, time.Hour); err != nil || ok {
		t.Errorf("began what has expired: %v, %v", ok, err)
	}
	if got := b.claim(); len(got) != 1 || !got[0].Again {
		t.Errorf("claimed %+v", got)
	}
	b.laws()
}

// passDeadlines moves every deadline into the past.
func (b *bundle) passDeadlines() {
	b.t.Helper()
	ctx := context.Background()
	_, err := b.pool.Exec(ctx, `UPDATE work SET due_at = due_at - interval '2 hours' WHERE kind = 2`)
	b.ok(err)
	_, err = b.pool.Exec(ctx, `UPDATE orders SET due_at = due_at - interval '2 hours' WHERE state = 1`)
	b.ok(err)
}

func TestBeginCheckoutRefusesASaleThatIsPaidAtOrder(t *testing.T) {
	t.Parallel()
	b := setup(t)
	o := b.reserved(b.order("ann", 1))
	if _, _, err := b.BeginCheckout(t.Context(), b.sale.ID, o.Order, time.Hour); !errors.Is(err, orders.ErrState) {
		t.Errorf("got %v", err)
	}
}

func TestExpireTakesAtMostItsLimitAndGoesOverSales(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	for _, id := range []engine.SaleID{"one", "two"} {
		b.sale = b.newSale(id, engine.PayCheckout)
		for i := range 3 {
			o := b.order(engine.BuyerID(fmt.Sprint("buyer", i)), 1)
			o.Order = orderID(fmt.Sprint(id, i))
			b.ingest(o)
		}
	}
	if n, err := b.Expire(t.Context(), 10); err != nil || n != 0 {
		t.Fatalf("expired %d (%v) before the deadline", n, err)
	}
	b.passDeadlines()
	for _, want := range []int{4, 2, 0} {
		if n, err := b.Expire(t.Context(), 4); err != nil || n != want {
			t.Errorf("expired %d (%v), want %d", n, err, want)
		}
		b.laws()
	}
}

func TestCancelByTheBuyer(t *testing.T) {
	t.Parallel()
	b := setup(t)
	paying, reserved, confirmed, declined := b.order("ann", 1), b.order("ann", 1), b.order("bob", 1), b.order("bob", 1)
	b.ingest(paying, confirmed, declined)
	b.claim()
	b.ingest(reserved)
	b.settle(orders.Confirmed, confirmed)
	b.settle(orders.Declined, declined)
	for i, c := range []struct {
		buyer engine.BuyerID
		order engine.OrderID
		want  orders.CancelOutcome
	}{
		{"ann", orderID("not ingested"), orders.CancelPending},
		{"bob", reserved.Order, orders.CancelPending},
		{"ann", reserved.Order, orders.CancelDone},
		{"ann", reserved.Order, orders.CancelDone},
		{"ann", paying.Order, orders.CancelWished},
		{"bob", confirmed.Order, orders.CancelForbidden},
		{"bob", declined.Order, orders.CancelForbidden},
	} {
		if got, err := b.Cancel(t.Context(), c.buyer, c.order); err != nil || got != c.want {
			t.Errorf("case %d: %v (%v), want %v", i, got, err, c.want)
		}
	}
	b.want(reserved, engine.Cancelled, engine.ReasonBuyer)
	b.ok(b.Defer(t.Context(), b.sale.ID, []engine.OrderID{paying.Order}, 0))
	if got := b.claim(); len(got) != 1 || !got[0].CancelWished {
		t.Errorf("the wish did not reach the payer: %+v", got)
	}
	b.settle(orders.Voided, paying)
	b.want(paying, engine.Cancelled, engine.ReasonBuyer)
	if b.claimed("MUG") != 1 || b.used("b:ann") != 0 {
		t.Errorf("claimed %d, used %d", b.claimed("MUG"), b.used("b:ann"))
	}
	b.laws()
}

func TestReturn(t *testing.T) {
	t.Parallel()
	b := setup(t)
	o, p := b.confirmed(b.order("ann", 2)), b.reserved(b.order("bob", 1))
	if _, err := b.Return(t.Context(), p.Order, note); !errors.Is(err, orders.ErrState) {
		t.Errorf("of a reserved order: %v", err)
	}
	if _, err := b.Return(t.Context(), orderID("nobody"), note); !errors.Is(err, orders.ErrNoOrder) {
		t.Errorf("of no order: %v", err)
	}
	b.markAll(1)
	for _, want := range []bool{true, false} {
		if got, err := b.Return(t.Context(), o.Order, note); err != nil || got != want {
			t.Errorf("returned %v (%v), want %v", got, err, want)
		}
	}
	if v := b.view(o); v.State != engine.Confirmed || !v.Returned {
		t.Errorf("state %v, returned %v", v.State, v.Returned)
	}
	ms := b.moves()
	if len(ms) != 1 || ms[0].Op != engine.Return || ms[0].Order != o.Order || ms[0].Hold != o.Hold || ms[0].Lines[0].Quantity != 2 || ms[0].Buyer != "ann" {
		t.Errorf("moves %+v", ms)
	}
	if b.claimed("MUG") != 1 || b.used("b:ann") != 0 {
		t.Errorf("claimed %d, used %d", b.claimed("MUG"), b.used("b:ann"))
	}
	tr, err := b.Trail(t.Context(), b.sale.ID, 1)
	b.ok(err)
	if len(tr) != 1 || tr[0].What != "return" || tr[0].MoveID != ms[0].ID || tr[0].Order != o.Order || tr[0].Who != note.Who {
		t.Errorf("trail %+v", tr)
	}
	b.laws()
}

// A payer is told how old an order is, so as to know for how long its end is unknown.
func TestClaimTellsTheAge(t *testing.T) {
	t.Parallel()
	b := setup(t)
	o := b.reserved(b.order("ann", 1))
	_, err := b.pool.Exec(t.Context(), `UPDATE orders SET ingested_at = now() - interval '26 hours 90 seconds' WHERE id = $1`, o.Order)
	b.ok(err)
	got := b.claim()
	if want := 26*time.Hour + 90*time.Second; len(got) != 1 || got[0].Age < want || got[0].Age > want+time.Minute {
		t.Errorf("claimed %+v, want the age %v", got, want)
	}
}
