package recovery_test

import (
	"context"
	"flag"
	"testing"
	"time"

	"github.com/doorbuster/doorbuster/engine"
	"github.com/doorbuster/doorbuster/engine/orders"
	"github.com/doorbuster/doorbuster/engine/queue"
	"github.com/doorbuster/doorbuster/engine/recovery"
	"github.com/doorbuster/doorbuster/stock"
)

var manySales = flag.Int("many.sales", 1000, "sales of BenchmarkManySalesComeBack")

// many makes n open sales, all of them led and sound, with workers for all queues. A
// few, in no order, have sold something just now. cfg is that of recovery.
func (w *world) many(n, few int, cfg recovery.Config) (all, selling []engine.SaleID) {
	w.t.Helper()
	for q := range queue.Queues {
		if q != queue.IngestQueue(w.sale) {
			w.run("worker", func(ctx context.Context) error { return w.workOn(ctx, q) })
		}
	}
	all = []engine.SaleID{w.sale}
	for i := range n - 1 {
		all = append(all, w.more(i, engine.SaleOpen))
	}
	w.run("recovery", recovery.New(cfg).Run)
	w.beating(all, 1)
	for i := range few {
		sale := all[(2*i+1)*n/(2*few)]
		w.sell(sale)
		selling = append(selling, sale)
	}
	return all, selling
}

// sell takes a mug in that sale and lets PostgreSQL know.
func (w *world) sell(sale engine.SaleID) {
	w.t.Helper()
	ctx := context.Background()
	watch, err := w.stock.Watch(ctx, sale, 0)
	w.ok(err)
	b := w.baskets(1)
	var d stock.Decision
	w.ok(w.stock.Reserve(ctx, sale, watch.Grip, b, &d))
	o := engine.Order{Basket: b[0], Hold: d.Verdicts[0].Hold, AcceptedAt: d.At, LimitBuyer: 3}
	_, err = w.orders.Ingest(ctx, sale, []orders.Arrival{{Order: o}})
	w.ok(err)
	w.ok(w.stock.Mark(ctx, sale, watch.Epoch, []int64{d.First}))
}

// back is how many of all sales are in that epoch, not frozen, and how many of some.
func (w *world) back(epoch int64, some []engine.SaleID) (all, few int) {
	w.t.Helper()
	w.ok(w.db.QueryRow(context.Background(), `SELECT count(*), count(*) FILTER (WHERE id = ANY ($2))
		FROM sales WHERE epoch >= $1 AND NOT frozen`, epoch, some).Scan(&all, &few))
	return all, few
}

// BenchmarkManySalesComeBack kills a Redis with 1,000 small sales, of which five sell,
// starts it with nothing, and measures from its first answer until the selling ones,
// half of all and all are there again:
//
//	go test ./engine/recovery -run '^$' -bench ManySalesComeBack -benchtime 1x
func BenchmarkManySalesComeBack(b *testing.B) {
	s := startServer(b)
	w := setup(b, s.url())
	const few = 5
	all, selling := w.many(*manySales, few, w.config())
	b.ResetTimer()
	for epoch := int64(2); epoch < int64(b.N)+2; epoch++ {
		t1, _ := w.spent()
		s.kill()
		s.start()
		began := time.Now()
		seen := map[string]float64{}
		note := func(name string, ok bool) {
			if _, was := seen[name]; ok && !was {
				seen[name] = time.Since(began).Seconds()
			}
		}
		for n := 0; n < len(all); time.Sleep(10 * time.Millisecond) {
			var k int
			if n, k = w.back(epoch, selling); k == few && seen["s/selling"] == 0 {
				b.ReportMetric(float64(n-k), "others/before")
			}
			note("s/first", n > 0)
			note("s/selling", k == few)
			note("s/half", n >= len(all)/2)
			note("s/all", n == len(all))
			if time.Since(began) > 3*time.Minute {
				b.Fatalf("%d of %d came back", n, len(all))
			}
		}
		t2, after := w.spent()
		for name, took := range seen {
			b.ReportMetric(took, name)
		}
		b.ReportMetric(float64(t2-t1)/float64(len(all)), "transactions/sale")
		b.ReportMetric(float64(after)/float64(len(all)), "commands/sale")
		b.Log(seen)
		for _, sale := range selling {
			w.beating([]engine.SaleID{sale}, 2)
			w.sell(sale)
		}
	}
}
