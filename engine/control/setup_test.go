package control_test

import (
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/doorbuster/doorbuster/engine"
	"github.com/doorbuster/doorbuster/engine/backing/backingtest"
	"github.com/doorbuster/doorbuster/engine/control"
	"github.com/doorbuster/doorbuster/engine/orders"
	"github.com/doorbuster/doorbuster/engine/postgres"
	"github.com/doorbuster/doorbuster/stock"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// bundle is a sale of 10 mugs on real servers, and its operator.
type bundle struct {
	*orders.Store
	t     *testing.T
	stock *stock.Store
	ctl   *control.Control
	sale  engine.SaleID
	inc   int64
}

var note = control.Note{Who: "ann@example.com", Why: "a test"}

func setup(t *testing.T) *bundle {
	t.Helper()
	b := &bundle{t: t, sale: backingtest.Sale(t)}
	url := backingtest.Database(t)
	b.ok(orders.Migrate(t.Context(), url))
	pool, err := postgres.Open(t.Context(), url, postgres.Options{})
	b.ok(err)
	t.Cleanup(pool.Close)
	rdb, err := stock.Open(backingtest.RedisURL(t))
	b.ok(err)
	t.Cleanup(func() { _ = rdb.Close() })
	b.Store, b.stock = orders.New(pool), stock.New(rdb)
	b.use(b.Store, b.stock)
	b.ok(b.ctl.Create(t.Context(), definition(b.sale), note))
	return b
}

// use makes the Control of these; short patience keeps tests of trouble short.
func (b *bundle) use(o control.Orders, s control.Stock) {
	b.ctl = control.New(control.Config{Orders: o, Stock: s, KeyNumber: 3, SettleWithin: 300 * time.Millisecond})
}

func definition(id engine.SaleID) engine.Sale {
	now := time.Now().UTC().Truncate(time.Millisecond)
	return engine.Sale{
		ID: id, Name: "Mugs", Mode: engine.ModeStandard, Payment: engine.PayAtOrder, Provider: "instant", Currency: "KRW",
		Opens: now.Add(-time.Hour), Closes: now.Add(time.Hour), LimitPerBuyer: 2,
		HoldFor: time.Minute, ReplayWindow: time.Hour,
		Items: []engine.Item{{SKU: "MUG", Name: "Mug", Price: 1500, Units: 10}},
	}
}

// rebuild makes the next epoch from PostgreSQL, as recovery does; the first one
// loads the sale.
func (b *bundle) rebuild() {
	b.t.Helper()
	ctx := b.t.Context()
	f, err := b.Fence(ctx, b.sale)
	b.ok(err)
	img, err := b.Cut(ctx, b.sale, f.Epoch)
	b.ok(err)
	server, err := b.stock.Server(ctx, b.sale)
	b.ok(err)
	b.inc, err = b.Incarnation(ctx, server.RunID)
	b.ok(err)
	b.ok(b.stock.Build(ctx, stock.Image{Sale: img.Sale, Epoch: img.Sale.Epoch, Incarnation: b.inc}))
	_, err = b.Unfreeze(ctx, b.sale, img.Sale.Epoch)
	b.ok(err)
	b.ok(b.stock.Load(ctx, b.sale, b.inc))
}

func (b *bundle) ok(err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
}

// want checks what PostgreSQL and Redis say of the sale.
func (b *bundle) want(postgres, redis engine.SaleState) {
	b.t.Helper()
	s, _, err := b.Sale(b.t.Context(), b.sale)
	b.ok(err)
	w, err := b.stock.Watch(b.t.Context(), b.sale, 0)
	b.ok(err)
	if s.State != postgres || w.State != redis {
		b.t.Errorf("PostgreSQL says %s, Redis %s; want %s and %s", s.State, w.State, postgres, redis)
	}
}
