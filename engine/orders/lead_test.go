package orders_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/doorbuster/doorbuster/engine"
	"github.com/doorbuster/doorbuster/engine/orders"
	"github.com/doorbuster/doorbuster/engine/postgres"
)

// led are the sales that a round returns, with their numbers.
func led(t *testing.T, l *orders.Leader) []string {
	t.Helper()
	all, err := l.Round(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, l := range all {
		out = append(out, fmt.Sprint(l.Sale, " ", l.Number))
	}
	slices.Sort(out)
	return out
}

func (b *bundle) stop(l *orders.Leader) {
	b.t.Helper()
	_, err := b.pool.Exec(context.Background(), `UPDATE leaders SET until = now() - interval '1 ms' WHERE name = $1`, orders.NameOf(l))
	b.ok(err)
}

func TestOneLeaderPerSale(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.newSale("other", engine.PayAtOrder)
	one, two := b.Leader(), b.Leader()
	expect := func(l *orders.Leader, want ...string) {
		t.Helper()
		if got := led(t, l); !slices.Equal(got, want) {
			t.Errorf("leads %q, want %q", got, want)
		}
	}
	expect(one, "drop 1", "other 1")
	expect(two)
	expect(one, "drop 1", "other 1") // renewed, not taken again
	b.stop(one)
	expect(two, "drop 2", "other 2")
	expect(one) // it woke: the lead is another's
	b.ok(two.Resign(t.Context()))
	expect(one, "drop 3", "other 3")
	b.ok(b.SetSaleState(t.Context(), "other", engine.SaleClosed, note))
	b.ok(b.SetSaleState(t.Context(), "other", engine.SaleSettled, note))
	expect(one, "drop 3")
	all, err := one.Round(t.Context())
	b.ok(err)
	want := orders.Fence{Sale: "drop", Epoch: 1, State: engine.SaleScheduled, Version: 1}
	if len(all) != 1 || all[0].Fence != want {
		t.Errorf("%+v, want the fence %+v", all, want)
	}
}

// PostgreSQL's clock was set back, or a standby whose clock is behind took over, and
// the leader died with the old one: its lead does not stand until the clock has
// caught up.
func TestLeadOfALaterClockIsFree(t *testing.T) {
	t.Parallel()
	b := setup(t)
	one, two := b.Leader(), b.Leader()
	led(t, one)
	b.exec(`UPDATE leaders SET until = clock_timestamp() + interval '1 hour'`)
	if got := led(t, two); !slices.Equal(got, []string{"drop 2"}) {
		t.Errorf("leads %q, want the sale of the dead leader", got)
	}
	if got := led(t, one); len(got) != 0 {
		t.Errorf("the first leads %q too", got)
	}
}

// Every transaction of a leader that was overtaken is refused, and changes nothing.
func TestDeposedLeaderIsRefused(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.ingest(b.order("ann", 1))
	l := b.Leader()
	all, err := l.Round(t.Context())
	b.ok(err)
	mine := b.Under(all[0].Lead)
	if ok, err := mine.Freeze(t.Context(), "drop", 1); err != nil || !ok {
		t.Fatalf("the leader itself: %v, %v", ok, err)
	}
	if ok, err := mine.Unfreeze(t.Context(), "drop", 1); err != nil || !ok {
		t.Fatalf("the leader itself: %v, %v", ok, err)
	}
	b.stop(l)
	led(t, b.Leader())
	for name, act := range map[string]func() error{
		"freeze":   func() error { _, err := mine.Freeze(t.Context(), "drop", 1); return err },
		"unfreeze": func() error { _, err := mine.Unfreeze(t.Context(), "drop", 1); return err },
		"cut":      func() error { _, err := mine.Cut(t.Context(), "drop", 1); return err },
		"mark":     func() error { _, _, err := mine.MarkMoved(t.Context(), "drop", 1, []orders.Moved{{ID: 1}}); return err },
		"state":    func() error { return mine.SetSaleState(t.Context(), "drop", engine.SalePaused, note) },
		"settle":   func() error { _, err := mine.SettleSale(t.Context(), "drop", 1, note, nil); return err },
	} {
		if err := act(); !errors.Is(err, orders.ErrDeposed) {
			t.Errorf("%s: %v, want ErrDeposed", name, err)
		}
	}
	if f, err := b.Fence(t.Context(), "drop"); err != nil || f.Epoch != 1 || f.Frozen || f.State != engine.SaleScheduled {
		t.Errorf("%+v, %v", f, err)
	}
}

// A transaction that has passed the fence is over before the lead changes hands.
func TestLeadIsNotTakenUnderATransaction(t *testing.T) {
	t.Parallel()
	b := setup(t)
	l, two := b.Leader(), b.Leader()
	all, err := l.Round(t.Context())
	b.ok(err)
	b.stop(l)
	b.ok(postgres.InTx(t.Context(), b.pool, func(tx pgx.Tx) error {
		if err := orders.MayLead(t.Context(), b.Under(all[0].Lead), tx, "drop"); err != nil {
			return err
		}
		if got := led(t, two); len(got) != 0 {
			t.Errorf("taken: %q", got)
		}
		return nil
	}))
	if got := led(t, two); !slices.Equal(got, []string{"drop 2"}) {
		t.Errorf("after it: %q", got)
	}
}

// What a round costs does not grow with the sales in statements, and little in time.
func BenchmarkRound(b *testing.B) {
	for _, sales := range []int{100, 10_000} {
		b.Run(fmt.Sprint(sales), func(b *testing.B) {
			bd := newBundle(b)
			_, err := bd.pool.Exec(context.Background(), `WITH s AS (INSERT INTO sales (id, name, state, version, key_number, mode, payment, provider,
				currency, opens, closes, limit_buyer, limit_identity, hold_ms, replay_ms)
				SELECT 'many-' || n, '', 'open', 1, 1, 'standard', 'at-order', 'instant', 'EUR', now(), now() + interval '1 day', 0, 0, 0, 0
				FROM generate_series(1, $1::int) n RETURNING no) INSERT INTO leads (sale_no) SELECT no FROM s`, sales)
			bd.ok(err)
			l := bd.Leader()
			for n := 0; n < sales; {
				all, err := l.Round(context.Background())
				bd.ok(err)
				n = len(all)
			}
			for b.Loop() {
				_, err := l.Round(context.Background())
				bd.ok(err)
			}
		})
	}
}
