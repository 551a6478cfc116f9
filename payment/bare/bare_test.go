package bare_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/doorbuster/doorbuster/engine"
	"github.com/doorbuster/doorbuster/engine/backing/backingtest"
	"github.com/doorbuster/doorbuster/engine/orders"
	"github.com/doorbuster/doorbuster/engine/postgres"
	"github.com/doorbuster/doorbuster/engine/queue"
	"github.com/doorbuster/doorbuster/payment/bare"
	"github.com/doorbuster/doorbuster/payment/ledger"
)

const sale = engine.SaleID("bare")

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func setup(t testing.TB, n int) (*pgxpool.Pool, queue.Config) {
	t.Helper()
	url := backingtest.Database(t)
	must(t, orders.Migrate(t.Context(), url))
	must(t, ledger.Migrate(t.Context(), url))
	pool, err := postgres.Open(t.Context(), url, postgres.Options{})
	must(t, err)
	t.Cleanup(pool.Close)
	must(t, bare.Prepare(t.Context(), pool))
	q := queue.Config{URL: backingtest.AMQP(t), Prefix: backingtest.QueuePrefix(t)}
	must(t, queue.Declare(t.Context(), q))
	pub := queue.NewPublisher(q)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- pub.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		must(t, <-ended)
		must(t, queue.Delete(context.Background(), q))
	})
	key, err := engine.NewOrderKey(make([]byte, 32), 1, sale)
	must(t, err)
	for at := 0; at < n; at += engine.MaxGroup {
		e := engine.Envelope{Sale: sale}
		for i := at; i < min(at+engine.MaxGroup, n); i++ {
			buyer := engine.BuyerID(fmt.Sprintf("buyer-%d", i))
			lines := []engine.Line{{SKU: "MUG", Quantity: 1, Price: 700}}
			e.Orders = append(e.Orders, engine.Order{
				Basket: engine.Basket{Order: key.ID(buyer, []byte("k")), Buyer: buyer, Identities: []engine.Identity{{byte(i >> 16), byte(i >> 8), byte(i)}}, Lines: lines, Total: 700},
				Hold:   engine.Hold{Epoch: 1, Seq: int64(i + 1)}, AcceptedAt: time.Now().UnixMilli(), LimitBuyer: 2,
			})
		}
		body := engine.AppendEnvelope(nil, &e)
		for tries := 0; ; tries++ {
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			err := pub.Publish(ctx, sale, body)
			cancel()
			if err == nil {
				break
			}
			if tries == 1000 {
				t.Fatal(err)
			}
			time.Sleep(5 * time.Millisecond) // the publisher connects
		}
	}
	return pool, q
}

// drain runs until n orders are written and returns how long that took.
func drain(t testing.TB, pool *pgxpool.Pool, q queue.Config, n int) time.Duration {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	began := time.Now()
	ended := make(chan error, 1)
	go func() { ended <- bare.Run(ctx, bare.Config{Pool: pool, Queue: q, Sale: sale, SKU: "MUG"}) }()
	for {
		got, err := bare.Confirmed(ctx, pool)
		must(t, err)
		if got >= int64(n) {
			break
		}
		time.Sleep(5 * time.Millisecond)
	}
	took := time.Since(began)
	cancel()
	must(t, <-ended)
	return took
}

func TestWritesWhatTheEngineWrites(t *testing.T) {
	t.Parallel()
	const n = 600
	pool, q := setup(t, n)
	drain(t, pool, q, n)
	for sql, want := range map[string]int64{
		`SELECT count(*) FROM bare_orders WHERE state = 3`:                                                        n,
		`SELECT count(*) FROM bare_counters WHERE used = 1`:                                                       2 * n,
		`SELECT count(*) FROM bare_charges WHERE state = 2`:                                                       n,
		`SELECT count(*) FROM bare_postings`:                                                                      2 * n,
		`SELECT sum(amount)::bigint FROM bare_postings`:                                                           0,
		`SELECT claimed FROM bare_items`:                                                                          n,
		`SELECT count(*) FROM pg_indexes WHERE tablename = 'bare_orders'`:                                         3,
		`SELECT count(*) FROM pg_class WHERE relname = 'bare_orders' AND reloptions::text LIKE '%fillfactor=50%'`: 1,
	} {
		var got int64
		must(t, pool.QueryRow(t.Context(), sql).Scan(&got))
		if got != want {
			t.Errorf("%s: %d, want %d", sql, got, want)
		}
	}
}

func BenchmarkDrain(b *testing.B) {
	pool, q := setup(b, b.N)
	b.ResetTimer()
	b.ReportMetric(float64(b.N)/drain(b, pool, q, b.N).Seconds(), "confirmed/s")
}
