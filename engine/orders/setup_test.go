package orders_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/doorbuster/doorbuster/engine"
	"github.com/doorbuster/doorbuster/engine/backing/backingtest"
	"github.com/doorbuster/doorbuster/engine/orders"
	"github.com/doorbuster/doorbuster/engine/postgres"
)

// bundle is a database of the test's own with one sale in epoch 1.
type bundle struct {
	*orders.Store
	t    testing.TB
	url  string
	pool *pgxpool.Pool
	sale engine.Sale
	seqs map[engine.SaleID]int64
	mu   sync.Mutex
}

var note = orders.Note{Who: "tester", Why: "a test"}

func newBundle(t testing.TB) *bundle {
	t.Helper()
	b := &bundle{t: t, url: backingtest.Database(t), seqs: map[engine.SaleID]int64{}}
	ctx := t.Context()
	b.ok(orders.Migrate(ctx, b.url))
	pool, err := postgres.Open(ctx, b.url, postgres.Options{MaxConns: 12})
	b.ok(err)
	b.pool = pool
	t.Cleanup(pool.Close)
	b.Store = orders.New(pool)
	return b
}

// setup makes a bundle with a sale of 10 mugs and 5 caps, at most 3 units a
// buyer, cut to epoch 1.
func setup(t testing.TB) *bundle {
	t.Helper()
	b := newBundle(t)
	b.sale = b.newSale("drop", engine.PayAtOrder)
	return b
}

func (b *bundle) newSale(id engine.SaleID, kind engine.PaymentKind) engine.Sale {
	b.t.Helper()
	opens := time.Now().UTC().Truncate(time.Millisecond)
	s := engine.Sale{
		ID: id, Name: "A drop", Mode: engine.ModeStandard, Payment: kind, Provider: "instant", Currency: "KRW", KeyNumber: 1,
		Opens: opens, Closes: opens.Add(time.Hour), LimitPerBuyer: 3, LimitPerIdentity: 3,
		HoldFor: time.Hour, ReplayWindow: time.Hour,
		Items: []engine.Item{{SKU: "MUG", Name: "Mug", Price: 1500, Units: 10}, {SKU: "CAP", Name: "Cap", Price: 900, Units: 5}},
	}
	b.ok(b.CreateSale(context.Background(), s, note))
	b.load(id, 0)
	s, _, err := b.Sale(context.Background(), id)
	b.ok(err)
	return s
}

// load cuts and unfreezes: what a rebuild does here.
func (b *bundle) load(id engine.SaleID, epoch int64) orders.Image {
	b.t.Helper()
	img, err := b.Cut(context.Background(), id, epoch)
	b.ok(err)
	done, err := b.Unfreeze(context.Background(), id, epoch+1)
	b.ok(err)
	if !done {
		b.t.Fatal("unfreeze: epoch moved")
	}
	return img
}

func (b *bundle) ok(err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
}

var orderKey = func() *engine.OrderKey {
	k, err := engine.NewOrderKey([]byte(strings.Repeat("k", 32)), 1, "drop")
	if err != nil {
		panic(err)
	}
	return k
}()

func orderID(key string) engine.OrderID { return orderKey.ID("b", []byte(key)) }

// order makes an order of epoch 1, under the next number, of n mugs.
func (b *bundle) order(buyer engine.BuyerID, n int64) engine.Order {
	return b.orderOf(buyer, engine.Line{SKU: "MUG", Quantity: n, Price: 1500})
}

func (b *bundle) orderOf(buyer engine.BuyerID, lines ...engine.Line) engine.Order {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.seqs[b.sale.ID]++
	seq := b.seqs[b.sale.ID]
	total, err := engine.Total(lines)
	b.ok(err)
	return engine.Order{
		Basket: engine.Basket{
			Order: orderID(fmt.Sprint(buyer, seq)), Buyer: buyer, Lines: lines, Total: total, Body: engine.BodyHash(lines, total, "KRW"),
		},
		Hold: engine.Hold{Epoch: 1, Seq: seq}, AcceptedAt: b.sale.Opens.UnixMilli() + seq, LimitBuyer: 3, LimitIdentity: 3,
	}
}

func arrivals(os ...engine.Order) []orders.Arrival {
	out := make([]orders.Arrival, len(os))
	for i, o := range os {
		out[i].Order = o
	}
	return out
}

func (b *bundle) ingest(os ...engine.Order) orders.IngestReport {
	b.t.Helper()
	return b.arrive(arrivals(os...)...)
}

func (b *bundle) arrive(as ...orders.Arrival) orders.IngestReport {
	b.t.Helper()
	rep, err := b.Ingest(context.Background(), b.sale.ID, as)
	b.ok(err)
	return rep
}

// reserved ingests one order and insists that it was.
func (b *bundle) reserved(o engine.Order) engine.Order {
	b.t.Helper()
	if rep := b.ingest(o); len(rep.Reserved) != 1 {
		b.t.Fatalf("order of %s was not reserved: %+v", o.Buyer, rep)
	}
	return o
}

func (b *bundle) claim() []orders.Payable {
	b.t.Helper()
	p, err := b.Claim(context.Background(), orders.ClaimOptions{Sale: b.sale.ID})
	b.ok(err)
	return p
}

func (b *bundle) settle(result orders.PaymentResult, os ...engine.Order) []orders.Settled {
	b.t.Helper()
	ps := make([]orders.Payment, len(os))
	for i, o := range os {
		ps[i] = orders.Payment{Order: o.Order, Attempt: 1, Result: result}
	}
	out, err := b.Settle(context.Background(), b.sale.ID, ps, nil)
	b.ok(err)
	return out
}

// confirmed takes an order all the way.
func (b *bundle) confirmed(o engine.Order) engine.Order {
	b.t.Helper()
	b.reserved(o)
	b.claim()
	if got := b.settle(orders.Confirmed, o); !got[0].Won {
		b.t.Fatalf("order of %s was not confirmed: %+v", o.Buyer, got)
	}
	return o
}

func (b *bundle) moves() []engine.Move {
	b.t.Helper()
	m, err := b.PendingMoves(context.Background(), b.sale.ID, 1000)
	b.ok(err)
	return m
}

// markAll marks every pending move as applied in this epoch.
func (b *bundle) markAll(epoch int64) int {
	b.t.Helper()
	var rows []orders.Moved
	for _, m := range b.moves() {
		rows = append(rows, orders.Moved{ID: m.ID})
	}
	n, moved, err := b.MarkMoved(context.Background(), b.sale.ID, epoch, rows)
	b.ok(err)
	if moved {
		b.t.Fatal("the epoch moved")
	}
	return n
}

func (b *bundle) view(o engine.Order) orders.View {
	b.t.Helper()
	v, err := b.Order(context.Background(), o.Order)
	b.ok(err)
	return v
}

// want compares state and reason of an order.
func (b *bundle) want(o engine.Order, state engine.OrderState, why engine.Reason) {
	b.t.Helper()
	if v := b.view(o); v.State != state || v.Reason != why {
		b.t.Errorf("order of %s is %v (%v), want %v (%v)", o.Buyer, v.State, v.Reason, state, why)
	}
}

func (b *bundle) claimed(sku engine.SKU) int64 {
	b.t.Helper()
	var n int64
	b.ok(b.pool.QueryRow(context.Background(), `SELECT claimed FROM items i JOIN sales s ON s.no = i.sale_no WHERE s.id = $1 AND sku = $2`,
		b.sale.ID, sku).Scan(&n))
	return n
}

func (b *bundle) used(key string) int64 {
	b.t.Helper()
	var n int64
	b.ok(b.pool.QueryRow(context.Background(), `SELECT coalesce(sum(used), 0) FROM counters WHERE key = $1`, key).Scan(&n))
	return n
}

// broken are the laws of this package, each with a query that finds what breaks
// it.
var broken = map[string]string{
	"claimed is the sum over live orders": `
		SELECT i.sale_no, i.sku, i.claimed, coalesce(x.n, 0) FROM items i LEFT JOIN (
			SELECT o.sale_no, split_part(l, '*', 1) AS sku, sum(split_part(l, '*', 2)::bigint) AS n
			FROM orders o, unnest(string_to_array(o.lines, ',')) AS l WHERE o.state <> 4 AND NOT o.returned GROUP BY 1, 2) x
		USING (sale_no, sku) WHERE i.claimed <> coalesce(x.n, 0)`,
	"used is the sum over live orders": `
		SELECT sale_no, key, c.used, x.n FROM (SELECT * FROM counters WHERE used <> 0) c FULL JOIN (
			SELECT o.sale_no, k AS key, sum((SELECT sum(split_part(l, '*', 2)::bigint) FROM unnest(string_to_array(o.lines, ',')) AS l)) AS n
			FROM orders o, unnest(ARRAY['b:' || o.buyer] || CASE WHEN o.identities = '' THEN '{}'::text[] ELSE
				(SELECT array_agg('i:' || i) FROM unnest(string_to_array(o.identities, ',')) AS i) END) AS k
			WHERE o.state <> 4 AND NOT o.returned GROUP BY 1, 2) x
		USING (sale_no, key) WHERE c.used IS DISTINCT FROM x.n`,
	"every open order stands in a row of work that is due no later": `
		SELECT o.id, o.due_at FROM orders o WHERE o.state IN (1, 2) AND NOT EXISTS (
			SELECT FROM work w WHERE o.id = ANY(w.orders) AND w.sale_no = o.sale_no AND w.due_at <= o.due_at)`,
	"finished orders are not due, open ones are": `
		SELECT id FROM orders WHERE (state IN (3, 4)) <> (due_at IS NULL) OR (state IN (3, 4)) <> (finished_at IS NOT NULL)`,
	"every finished order has its release row": `
		SELECT o.id FROM orders o WHERE o.state IN (3, 4) AND NOT EXISTS (SELECT FROM moves m WHERE m.op = 0 AND o.id = ANY(m.orders))`,
}

// laws fails the test if a law is broken.
func (b *bundle) laws() {
	b.t.Helper()
	for law, query := range broken {
		rows, err := b.pool.Query(context.Background(), query)
		b.ok(err)
		for rows.Next() {
			v, err := rows.Values()
			b.ok(err)
			b.t.Errorf("%s: broken by %v", law, v)
		}
		b.ok(rows.Err())
	}
}

// waitFor polls until what holds, for as long as a test may take.
func (b *bundle) waitFor(what string, holds func() bool) {
	b.t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !holds(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			b.t.Fatalf("waited in vain for %s", what)
		}
	}
}
