package recovery_test

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/doorbuster/doorbuster/engine"
	"github.com/doorbuster/doorbuster/engine/orders"
)

// beating waits until each of these sales had so many heartbeats.
func (w *world) beating(sales []engine.SaleID, beats int64) {
	w.t.Helper()
	for _, sale := range sales {
		w.eventually("heartbeats", func() bool {
			watch, err := w.stock.Watch(context.Background(), sale, 0)
			return err == nil && watch.Heartbeat >= beats
		})
	}
}

// transactions is how many PostgreSQL has ended in the test's own database, and
// commands how many Redis has been given.
func (w *world) spent() (transactions, commands int64) {
	w.t.Helper()
	ctx := context.Background()
	w.ok(w.db.QueryRow(ctx, `SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = current_database()`).Scan(&transactions))
	info, err := w.rdb.Info(ctx, "stats").Result()
	w.ok(err)
	_, rest, _ := strings.Cut(info, "total_commands_processed:")
	n, _, _ := strings.Cut(rest, "\r")
	commands, err = strconv.ParseInt(n, 10, 64)
	w.ok(err)
	return transactions, commands
}

// BenchmarkIdleSales measures what 50 sales in which nothing happens cost for 20 s:
//
//	go test ./engine/recovery -run '^$' -bench IdleSales -benchtime 1x
func BenchmarkIdleSales(b *testing.B) {
	const idle, seconds = 50, 20
	w := setup(b, startServer(b).url())
	sales := []engine.SaleID{w.sale}
	for n := range idle - 1 {
		sales = append(sales, w.more(n, engine.SaleOpen))
	}
	w.recover()
	w.run("relay", w.relay().Run)
	w.beating(sales, 30) // applied nothing for longer than it takes to be idle
	b.ResetTimer()
	for range b.N {
		t1, c1 := w.spent()
		time.Sleep(seconds * time.Second)
		t2, c2 := w.spent()
		b.ReportMetric(float64(t2-t1)/idle/seconds, "transactions/s/sale")
		b.ReportMetric(float64(c2-c1)/idle/seconds, "commands/s/sale")
	}
}

// BenchmarkMoveApplied measures from the commit of a payment's outcome until Redis has
// followed it, in a sale in which each comes right after the one before:
//
//	go test ./engine/recovery -run '^$' -bench MoveApplied -benchtime 100x
func BenchmarkMoveApplied(b *testing.B) {
	w := setup(b, "")
	w.recover()
	w.sells(1)
	w.restockMany()
	var took []time.Duration
	b.ResetTimer()
	for n := range b.N {
		basket := w.buy(1)
		w.known(basket)
		w.pay(basket, orders.Confirmed)
		began := time.Now()
		w.eventually("applied", func() bool {
			watch, err := w.stock.Watch(context.Background(), w.sale, 1)
			return err == nil && watch.Items[1].Sold == int64(n+1)
		})
		took = append(took, time.Since(began))
	}
	slices.Sort(took)
	for name, at := range map[string]int{"ms/median": len(took) / 2, "ms/p95": len(took) * 95 / 100, "ms/most": len(took) - 1} {
		b.ReportMetric(float64(took[at].Microseconds())/1000, name)
	}
}
