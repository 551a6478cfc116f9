package orders_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/doorbuster/doorbuster/engine"
	"github.com/doorbuster/doorbuster/engine/orders"
)

// Benchmarks count orders: b.N is orders, so 1e9 / (ns/op) is orders a second.
// They run envelopes of MaxGroup orders, distinct buyers, one line, one identity,
// on GOMAXPROCS goroutines, on a sale with plenty of units.

const benchUnits = engine.MaxUnits

func benchSale(b *testing.B) *bundle {
	b.Helper()
	bd := newBundle(b)
	bd.sale = bd.newSale("drop", engine.PayAtOrder)
	if _, err := bd.Restock(b.Context(), bd.sale.ID, "MUG", benchUnits-10, note); err != nil {
		b.Fatal(err)
	}
	bd.markAll(1)
	return bd
}

// envelopes makes the orders of a benchmark beforehand.
func envelopes(n int) [][]orders.Arrival {
	lines := []engine.Line{{SKU: "MUG", Quantity: 1, Price: 1500}}
	body := engine.BodyHash(lines, 1500, "KRW")
	var out [][]orders.Arrival
	for seq := 1; seq <= n; {
		env := make([]orders.Arrival, 0, engine.MaxGroup)
		for ; len(env) < engine.MaxGroup && seq <= n; seq++ {
			buyer := engine.BuyerID(fmt.Sprintf("buyer-%08x", uint32(seq)*2654435761))
			env = append(env, orders.Arrival{Order: engine.Order{
				Basket: engine.Basket{
					Order: orderKey.ID(buyer, []byte("key")), Buyer: buyer, Lines: lines, Total: 1500, Body: body,
					Identities: []engine.Identity{{byte(seq), byte(seq >> 8), byte(seq >> 16), byte(seq >> 24), 7}},
				},
				Hold: engine.Hold{Epoch: 1, Seq: int64(seq)}, AcceptedAt: 1_700_000_000_000 + int64(seq), LimitBuyer: 3, LimitIdentity: 3,
			}})
		}
		out = append(out, env)
	}
	return out
}

func runEnvelopes(b *testing.B, step func(ctx context.Context, bd *bundle, env []orders.Arrival) error) {
	b.Helper()
	bd := benchSale(b)
	envs := envelopes(b.N)
	var next atomic.Int64
	b.ReportAllocs()
	b.ResetTimer()
	start := time.Now()
	done := make(chan error)
	const workers = 4
	for range workers {
		go func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= len(envs) {
					done <- nil
					return
				}
				if err := step(context.Background(), bd, envs[i]); err != nil {
					done <- err
					return
				}
			}
		}()
	}
	for range workers {
		if err := <-done; err != nil {
			b.Error(err)
		}
	}
	b.StopTimer()
	b.Logf("settle %v pend %v mark %v", time.Duration(settleNS.Swap(0)), time.Duration(pendNS.Swap(0)), time.Duration(markNS.Swap(0)))
	b.ReportMetric(float64(b.N)/time.Since(start).Seconds(), "orders/s")
}

func BenchmarkIngest(b *testing.B) {
	runEnvelopes(b, func(ctx context.Context, bd *bundle, env []orders.Arrival) error {
		rep, err := bd.Ingest(ctx, bd.sale.ID, env)
		if err == nil && len(rep.Reserved) != len(env) {
			err = fmt.Errorf("report %+v", rep)
		}
		return err
	})
}

// BenchmarkLife takes orders from ingest to a marked move, claimed at ingest.
func BenchmarkLife(b *testing.B) {
	runEnvelopes(b, func(ctx context.Context, bd *bundle, env []orders.Arrival) error {
		rep, err := bd.IngestAndClaim(ctx, bd.sale.ID, env, time.Minute)
		if err != nil {
			return err
		}
		return settleAndMark(ctx, bd, rep.Claimed)
	})
}

// BenchmarkLifeClaimed is BenchmarkLife with a Claim between.
func BenchmarkLifeClaimed(b *testing.B) {
	runEnvelopes(b, func(ctx context.Context, bd *bundle, env []orders.Arrival) error {
		if _, err := bd.Ingest(ctx, bd.sale.ID, env); err != nil {
			return err
		}
		got, err := bd.Claim(ctx, orders.ClaimOptions{Sale: bd.sale.ID})
		if err != nil {
			return err
		}
		return settleAndMark(ctx, bd, got)
	})
}

var settleNS, pendNS, markNS atomic.Int64

func settleAndMark(ctx context.Context, bd *bundle, claimed []orders.Payable) error {
	ps := make([]orders.Payment, len(claimed))
	for i, p := range claimed {
		ps[i] = orders.Payment{Order: p.Order, Attempt: p.Attempt, Result: orders.Confirmed}
	}
	t0 := time.Now()
	if _, err := bd.Settle(ctx, bd.sale.ID, ps, nil); err != nil {
		return err
	}
	settleNS.Add(int64(time.Since(t0)))
	t0 = time.Now()
	ms, err := bd.PendingMoves(ctx, bd.sale.ID, engine.MaxGroup)
	if err != nil {
		return err
	}
	pendNS.Add(int64(time.Since(t0)))
	t0 = time.Now()
	rows := make([]orders.Moved, len(ms))
	for i, m := range ms {
		rows[i].ID = m.ID
	}
	_, _, err = bd.MarkMoved(ctx, bd.sale.ID, 1, rows)
	markNS.Add(int64(time.Since(t0)))
	return err
}
