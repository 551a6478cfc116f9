package orders_test

import (
	"context"
	"fmt"
	"sync"
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

// runEnvelopes runs step on each envelope, on a few goroutines, beside one
// applier if moves are written.
func runEnvelopes(b *testing.B, moves bool, step func(ctx context.Context, bd *bundle, env []orders.Arrival) error) {
	b.Helper()
	bd := benchSale(b)
	envs := envelopes(b.N)
	var next atomic.Int64
	b.ReportAllocs()
	b.ResetTimer()
	start := time.Now()
	const workers = 4
	var wg, applier sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < len(envs); i = int(next.Add(1)) - 1 {
				if err := step(context.Background(), bd, envs[i]); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	ended := make(chan struct{})
	if moves {
		applier.Go(func() { apply(b, bd, ended) })
	}
	wg.Wait()
	close(ended)
	applier.Wait()
	b.StopTimer()
	b.ReportMetric(float64(b.N)/time.Since(start).Seconds(), "orders/s")
}

// apply marks moves as they come, until none is left after the end.
func apply(b *testing.B, bd *bundle, ended <-chan struct{}) {
	b.Helper()
	for last := false; ; {
		ms, err := bd.PendingMoves(context.Background(), bd.sale.ID, 4*engine.MaxGroup)
		if err != nil {
			b.Error(err)
			return
		}
		rows := make([]orders.Moved, len(ms))
		for i, m := range ms {
			rows[i].ID = m.ID
		}
		if _, _, err := bd.MarkMoved(context.Background(), bd.sale.ID, 1, rows); err != nil {
			b.Error(err)
			return
		}
		if len(ms) > 0 {
			continue
		}
		if last {
			return
		}
		select {
		case <-ended:
			last = true
		case <-time.After(time.Millisecond):
		}
	}
}

func BenchmarkIngest(b *testing.B) {
	runEnvelopes(b, false, func(ctx context.Context, bd *bundle, env []orders.Arrival) error {
		rep, err := bd.Ingest(ctx, bd.sale.ID, env)
		if err == nil && len(rep.Reserved) != len(env) {
			err = fmt.Errorf("report %+v", rep)
		}
		return err
	})
}

// BenchmarkLife takes orders from ingest to a marked move, claimed at ingest.
func BenchmarkLife(b *testing.B) {
	runEnvelopes(b, true, func(ctx context.Context, bd *bundle, env []orders.Arrival) error {
		rep, err := bd.IngestAndClaim(ctx, bd.sale.ID, env, time.Minute)
		if err != nil {
			return err
		}
		return settle(ctx, bd, rep.Claimed)
	})
}

// BenchmarkLifeClaimed is BenchmarkLife with a Claim between.
func BenchmarkLifeClaimed(b *testing.B) {
	runEnvelopes(b, true, func(ctx context.Context, bd *bundle, env []orders.Arrival) error {
		if _, err := bd.Ingest(ctx, bd.sale.ID, env); err != nil {
			return err
		}
		got, err := bd.Claim(ctx, orders.ClaimOptions{Sale: bd.sale.ID})
		if err != nil {
			return err
		}
		return settle(ctx, bd, got)
	})
}

func settle(ctx context.Context, bd *bundle, claimed []orders.Payable) error {
	ps := make([]orders.Payment, len(claimed))
	for i, p := range claimed {
		ps[i] = orders.Payment{Order: p.Order, Attempt: p.Attempt, Result: orders.Confirmed}
	}
	_, err := bd.Settle(ctx, bd.sale.ID, ps, nil)
	return err
}
