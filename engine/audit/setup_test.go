package audit_test

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/redis/go-redis/v9"

	"github.com/doorbuster/doorbuster/engine"
	"github.com/doorbuster/doorbuster/engine/audit"
	"github.com/doorbuster/doorbuster/engine/backing/backingtest"
	"github.com/doorbuster/doorbuster/engine/orders"
	"github.com/doorbuster/doorbuster/engine/postgres"
	"github.com/doorbuster/doorbuster/engine/queue"
	"github.com/doorbuster/doorbuster/payment/ledger"
	"github.com/doorbuster/doorbuster/payment/provider"
	"github.com/doorbuster/doorbuster/stock"
)

// bundle is a sale of 5 mugs and 3 caps on servers of its own names, with an
// auditor beside it. What a door, a worker and recovery do is done here by hand.
type bundle struct {
	*orders.Store
	t       testing.TB
	cfg     audit.Config
	auditor *audit.Auditor
	pool    *pgxpool.Pool
	rdb     redis.UniversalClient
	stock   *stock.Store
	bank    *provider.Instant
	books   *ledger.Store
	sale    engine.Sale
	key     *engine.OrderKey
	log     bytes.Buffer
	n       int64
	now     time.Time // of the crowd's clock
}

const price, capPrice = 1500, 900

var note = orders.Note{Who: "test", Why: "test"}

func setup(t testing.TB) *bundle {
	t.Helper()
	b := &bundle{t: t}
	url := backingtest.Database(t)
	b.ok(orders.Migrate(t.Context(), url))
	b.ok(ledger.Migrate(t.Context(), url))
	var err error
	b.pool, err = postgres.Open(t.Context(), url, postgres.Options{})
	b.ok(err)
	t.Cleanup(b.pool.Close)
	b.rdb, err = stock.Open(backingtest.RedisURL(t))
	b.ok(err)
	t.Cleanup(func() { _ = b.rdb.Close() })
	b.Store, b.stock, b.books = orders.New(b.pool), stock.New(b.rdb), ledger.New(b.pool)
	b.cfg = audit.Config{DatabaseURL: url, RedisURL: backingtest.RedisURL(t)}
	b.fresh()
	return b
}

// fresh begins again with another sale, crowd, bank and auditor on the same
// database: a database of its own costs a test most of its time.
func (b *bundle) fresh() {
	b.t.Helper()
	b.load(backingtest.Sale(b.t))
	var err error
	b.key, err = engine.NewOrderKey(bytes.Repeat([]byte("o"), 32), 1, b.sale.ID)
	b.ok(err)
	b.log.Reset()
	b.n, b.bank = 0, provider.NewInstant()
	b.cfg.Ledgers = map[string]audit.Ledger{"instant": b.bank}
	b.open()
}

// open opens an auditor of b.cfg.
func (b *bundle) open() {
	b.t.Helper()
	a, err := audit.Open(b.cfg)
	b.ok(err)
	b.t.Cleanup(a.Close)
	b.auditor = a
}

// withQueues declares queues of the test's own, for law 9.
func (b *bundle) withQueues() {
	b.t.Helper()
	b.cfg.Queue = queue.Config{URL: backingtest.AMQP(b.t), Prefix: backingtest.QueuePrefix(b.t)}
	b.ok(queue.Declare(b.t.Context(), b.cfg.Queue))
	b.t.Cleanup(func() {
		if err := queue.Delete(context.Background(), b.cfg.Queue); err != nil {
			b.t.Error(err)
		}
	})
	b.open()
}

func (b *bundle) load(id engine.SaleID) {
	b.t.Helper()
	ctx := b.t.Context()
	b.now = time.Now().UTC().Truncate(time.Millisecond)
	b.sale = engine.Sale{
		ID: id, Mode: engine.ModeStandard, Payment: engine.PayCheckout, Provider: "instant", Currency: "KRW", KeyNumber: 1,
		Opens: b.now.Add(-time.Hour), Closes: b.now.Add(time.Hour), LimitPerBuyer: 2, LimitPerIdentity: 2,
		HoldFor: time.Hour, ReplayWindow: time.Hour,
		Items: []engine.Item{{SKU: "MUG", Price: price, Units: 5}, {SKU: "CAP", Price: capPrice, Units: 3}},
	}
	b.ok(b.CreateSale(ctx, b.sale, note))
	img, err := b.Cut(ctx, id, 0)
	b.ok(err)
	server, err := b.stock.Server(ctx, id)
	b.ok(err)
	inc, err := b.Incarnation(ctx, server.RunID)
	b.ok(err)
	b.ok(b.stock.Build(ctx, stock.Image{Sale: img.Sale, Epoch: img.Sale.Epoch, Incarnation: inc}))
	_, err = b.Unfreeze(ctx, id, img.Sale.Epoch)
	b.ok(err)
	b.ok(b.stock.Load(ctx, id, inc))
}

func (b *bundle) ok(err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
}

func mugs(n int64) []engine.Line { return []engine.Line{{SKU: "MUG", Quantity: n, Price: price}} }

// ask sends a basket to the stock and marks its envelope as published. It writes
// what the buyer heard into the client log.
func (b *bundle) ask(buyer engine.BuyerID, lines ...engine.Line) (engine.Order, engine.Outcome) {
	b.t.Helper()
	ctx := b.t.Context()
	b.n++
	key := fmt.Sprint("key-", b.n)
	total, err := engine.Total(lines)
	b.ok(err)
	basket := engine.Basket{
		Order: b.key.ID(buyer, []byte(key)), Buyer: buyer, Identities: []engine.Identity{identity(buyer)}, Lines: lines, Total: total,
		Body: engine.BodyHash(lines, total, "KRW"),
	}
	w, err := b.stock.Watch(ctx, b.sale.ID, 0)
	b.ok(err)
	var d stock.Decision
	b.ok(b.stock.Reserve(ctx, b.sale.ID, w.Grip, []engine.Basket{basket}, &d))
	v := d.Verdicts[0]
	o := engine.Order{Basket: basket, Hold: v.Hold, AcceptedAt: d.At, LimitBuyer: v.LimitBuyer, LimitIdentity: v.LimitIdentity}
	a := audit.Answer{At: b.now, Buyer: buyer, Key: key, Body: basket.Body, Lines: lines, Total: total}
	if v.Outcome == engine.Accepted {
		b.ok(b.stock.Mark(ctx, b.sale.ID, w.Epoch, []int64{d.First}))
		a.Status, a.Type, a.Order = 202, audit.TypeAccepted, basket.Order
	} else {
		a.Status, a.Type = 409, v.Outcome.String()
	}
	b.say(a)
	return o, v.Outcome
}

func identity(b engine.BuyerID) (id engine.Identity) { copy(id[:], b); return id }

// say writes a line of the client log.
func (b *bundle) say(a audit.Answer) { b.log.Write(audit.AppendAnswer(nil, &a)) }

// heard is the answer that a buyer got about his order, for lines that change it.
func heard(o engine.Order, key string) audit.Answer {
	return audit.Answer{
		At: time.Now(), Buyer: o.Buyer, Key: key, Body: o.Body, Lines: o.Lines, Total: o.Total,
		Status: 202, Type: audit.TypeAccepted, Order: o.Basket.Order, Replayed: true,
	}
}

// buy takes an order to its end.
func (b *bundle) buy(buyer engine.BuyerID, result orders.PaymentResult, lines ...engine.Line) engine.Order {
	b.t.Helper()
	o, outcome := b.ask(buyer, lines...)
	if outcome != engine.Accepted {
		b.t.Fatalf("buyer %s: %v", buyer, outcome)
	}
	b.ingest(o)
	b.finish(o, result)
	b.apply()
	return o
}

func (b *bundle) ingest(o engine.Order) {
	b.t.Helper()
	rep, err := b.Ingest(b.t.Context(), b.sale.ID, []orders.Arrival{{Order: o}})
	b.ok(err)
	if len(rep.Reserved) != 1 {
		b.t.Fatalf("not reserved: %+v", rep)
	}
}

// finish pays for an order, or fails to.
func (b *bundle) finish(o engine.Order, result orders.PaymentResult) {
	b.t.Helper()
	ctx := b.t.Context()
	_, _, err := b.BeginCheckout(ctx, b.sale.ID, o.Order, time.Hour)
	b.ok(err)
	key, amount := provider.Key(o.Order, 1), engine.Money{Amount: o.Total, Currency: "KRW"}
	if result == orders.Declined {
		b.ok(b.bank.Void(ctx, key))
	} else {
		_, err = b.bank.Authorise(ctx, provider.Request{Key: key, Order: o.Order, Buyer: o.Buyer, Amount: amount})
		b.ok(err)
	}
	book, err := b.books.Book(ctx, b.sale.ID, "instant", "KRW")
	b.ok(err)
	var task ledger.Task
	_, err = b.Settle(ctx, b.sale.ID, []orders.Payment{{Order: o.Order, Attempt: 1, Result: result}},
		func(ctx context.Context, tx pgx.Tx, confirmed []orders.Payable) error {
			if len(confirmed) == 0 {
				return nil
			}
			task, err = b.books.Authorise(ctx, tx, book, []ledger.Charge{{Order: o.Order, Attempt: 1, Amount: o.Total}}, time.Minute)
			return err
		})
	b.ok(err)
	if result == orders.Confirmed {
		b.ok(b.bank.Capture(ctx, key, amount))
		_, err = b.books.Finish(ctx, []ledger.Result{{Task: task, Done: task.Charges}})
		b.ok(err)
	}
}

// apply takes release rows to Redis, as recovery does.
func (b *bundle) apply() {
	b.t.Helper()
	ctx := b.t.Context()
	moves, err := b.PendingMoves(ctx, b.sale.ID, 1000)
	b.ok(err)
	if len(moves) == 0 {
		return
	}
	w, err := b.stock.Watch(ctx, b.sale.ID, 0)
	b.ok(err)
	taken, err := b.stock.Apply(ctx, b.sale.ID, w.Grip, moves)
	b.ok(err)
	rows := make([]orders.Moved, len(moves))
	for i := range moves {
		rows[i] = orders.Moved{ID: moves[i].ID, Taken: taken[i]}
	}
	_, moved, err := b.MarkMoved(ctx, b.sale.ID, w.Epoch, rows)
	b.ok(err)
	if moved {
		b.t.Fatal("the epoch moved")
	}
}

// sell sells the sale out: five mugs and a cap to ann, bob and dan, while cy's
// card is declined and eve comes too late. It returns ann's order.
func (b *bundle) sell() engine.Order {
	b.t.Helper()
	o := b.buy("ann", orders.Confirmed, engine.Line{SKU: "MUG", Quantity: 1, Price: price}, engine.Line{SKU: "CAP", Quantity: 1, Price: capPrice})
	b.buy("bob", orders.Confirmed, mugs(2)...)
	b.buy("cy", orders.Declined, mugs(1)...)
	b.buy("dan", orders.Confirmed, mugs(2)...)
	if _, outcome := b.ask("eve", mugs(1)...); outcome != engine.SoldOut {
		b.t.Fatalf("eve: %v", outcome)
	}
	again := heard(o, "key-1")
	again.Status, again.Type = 200, audit.TypeConfirmed
	b.say(again)
	changed := heard(o, "key-1")
	changed.Body, changed.Lines, changed.Total, changed.Status, changed.Type, changed.Order = 7, mugs(2), 2*price, 422, engine.Mismatch.String(), ""
	b.say(changed)
	return o
}

// rest audits at rest, with the client log.
func (b *bundle) rest() *audit.Report {
	b.t.Helper()
	r, err := b.auditor.AtRest(b.t.Context(), b.sale.ID, strings.NewReader(b.log.String()))
	b.ok(err)
	return &r
}

func (b *bundle) live() *audit.Report {
	b.t.Helper()
	r, err := b.auditor.Live(b.t.Context(), b.sale.ID)
	b.ok(err)
	return &r
}

// sql changes PostgreSQL behind everybody's back.
func (b *bundle) sql(statements ...string) {
	b.t.Helper()
	for _, s := range statements {
		_, err := b.pool.Exec(b.t.Context(), s)
		b.ok(err)
	}
}

// slot changes a field of the state hash in Redis behind everybody's back.
func (b *bundle) slot(field string, by int64) {
	b.t.Helper()
	b.ok(b.rdb.HIncrBy(b.t.Context(), b.redisKey("st"), field, by).Err())
}

func (b *bundle) redisKey(part string) string { return "s:{" + string(b.sale.ID) + "}:1:" + part }

// damage makes the order's record in Redis one that no version can read.
func (b *bundle) damage(o engine.Order) {
	b.t.Helper()
	b.ok(b.rdb.HSet(b.t.Context(), b.redisKey("o"), string(o.Order), "9X|").Err())
}
