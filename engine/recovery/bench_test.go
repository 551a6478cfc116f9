package recovery_test

import (
	"context"
	"flag"
	"slices"
	"testing"
	"time"

	"github.com/doorbuster/doorbuster/engine"
	"github.com/doorbuster/doorbuster/engine/orders"
	"github.com/doorbuster/doorbuster/stock"
)

// fill reserves, ingests and pays n orders, in envelopes of 256, and leaves their
// moves pending: recovery must not run.
func (w *world) fill(n int, pay bool) {
	w.t.Helper()
	ctx := context.Background()
	watch, err := w.stock.Watch(ctx, w.sale, 0)
	w.ok(err)
	var d stock.Decision
	for n > 0 {
		b := w.baskets(min(n, engine.MaxGroup))
		n -= len(b)
		w.ok(w.stock.Reserve(ctx, w.sale, watch.Grip, b, &d))
		arrivals := make([]orders.Arrival, len(b))
		for i := range b {
			arrivals[i].Order = engine.Order{Basket: b[i], Hold: d.Verdicts[i].Hold, AcceptedAt: d.At, LimitBuyer: 3}
		}
		w.ok(w.stock.Mark(ctx, w.sale, watch.Epoch, []int64{d.First}))
		rep, err := w.orders.IngestAndClaim(ctx, w.sale, arrivals, time.Minute)
		w.ok(err)
		if !pay {
			continue
		}
		ends := make([]orders.Payment, len(rep.Claimed))
		for i, p := range rep.Claimed {
			ends[i] = orders.Payment{Order: p.Order, Attempt: p.Attempt, Result: orders.Confirmed}
			if i%10 == 0 {
				ends[i].Result = orders.Declined
			}
		}
		_, err = w.orders.Settle(ctx, w.sale, ends, nil)
		w.ok(err)
	}
}

func (w *world) restockMany() {
	w.t.Helper()
	_, err := w.orders.Restock(context.Background(), w.sale, "MUG", 1_000_000, note)
	w.ok(err)
	w.eventually("restocked", func() bool {
		watch, err := w.stock.Watch(context.Background(), w.sale, 0)
		return err == nil && watch.Items[1].Available >= 1_000_000
	})
	w.settled()
}

// settled waits until no row is pending.
func (w *world) settled() {
	w.eventually("no rows", func() bool {
		n, err := w.orders.Backlog(context.Background(), w.sale)
		return err == nil && n == 0
	})
}

// BenchmarkApplier measures how fast pending moves are carried to Redis.
func BenchmarkApplier(b *testing.B) {
	w := setup(b, "")
	_, stop := w.recover()
	w.sells(1)
	w.restockMany()
	stop()
	w.fill(b.N, true)
	b.ResetTimer()
	w.recover()
	w.settled()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "moves/s")
}

// BenchmarkRebuild measures from an empty slot until the sale sells again, with
// b.N live orders.
func BenchmarkRebuild(b *testing.B) {
	w := setup(b, "")
	_, stop := w.recover()
	w.sells(1)
	w.restockMany()
	stop()
	w.fill(b.N, false)
	w.recover()
	w.eventually("sound", func() bool {
		watch, err := w.stock.Watch(context.Background(), w.sale, 1)
		return err == nil && watch.Heartbeat > 0
	})
	b.ResetTimer()
	w.wipe()
	w.sells(2)
	b.ReportMetric(b.Elapsed().Seconds(), "s/rebuild")
}

var emptyUnits = flag.Int("empty.units", 100_000, "units sold or held, of BenchmarkRedisComesBackEmpty")

// BenchmarkRedisComesBackEmpty kills a Redis with 100,000 units sold or held, half of
// each about, starts it with nothing, and measures from its first answer until a door
// sells again: it has seen the heartbeat rise, which gives it its lease, and a basket
// is taken. It prints each step and the median with its spread:
//
//	go test ./engine/recovery -run '^$' -bench ComesBackEmpty -benchtime 5x
func BenchmarkRedisComesBackEmpty(b *testing.B) {
	s := startServer(b)
	w := setup(b, s.url())
	_, stop := w.recover()
	w.sells(1)
	w.restockMany()
	stop()
	w.fill(*emptyUnits/2, false)
	w.fill(*emptyUnits*5/9, true) // of which a tenth is declined
	w.recover()
	w.settled()
	epoch := w.sells(1).Epoch
	var took []time.Duration
	b.ResetTimer()
	for range b.N {
		s.kill()
		s.start()
		back := time.Now()
		epoch++
		w.beats(epoch)
		w.reserve(1)
		took = append(took, time.Since(back))
		b.Logf("%v: %+v", took[len(took)-1].Round(time.Millisecond), w.report().Rebuild.Steps)
	}
	slices.Sort(took)
	b.ReportMetric(took[len(took)/2].Seconds(), "s/median")
	b.ReportMetric(took[0].Seconds(), "s/least")
	b.ReportMetric(took[len(took)-1].Seconds(), "s/most")
}

// beats waits until a door that began to look when Redis was back has its lease.
func (w *world) beats(epoch int64) {
	w.t.Helper()
	first := w.sells(epoch).Heartbeat
	w.eventually("the heartbeat rises", func() bool {
		watch, err := w.stock.Watch(context.Background(), w.sale, epoch)
		return err == nil && watch.Epoch == epoch && watch.Heartbeat > first
	})
}
