package orders_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/doorbuster/doorbuster/engine"
	"github.com/doorbuster/doorbuster/engine/orders"
	"github.com/doorbuster/doorbuster/engine/postgres"
)

// deadlocks counts statements that ended in one.
type deadlocks struct{ n atomic.Int64 }

func (d *deadlocks) TraceQueryStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceQueryStartData) context.Context {
	return ctx
}

func (d *deadlocks) TraceQueryEnd(_ context.Context, _ *pgx.Conn, e pgx.TraceQueryEndData) {
	if postgres.Retryable(e.Err) {
		d.n.Add(1)
	}
}

const (
	crowdWorkers = 8
	crowdRounds  = 60
	crowdOrders  = 400
	crowdSKUs    = 6
)

// crowd is a sale on which everything happens at once: the same envelopes come
// several times, cut differently, in other orders, with several SKUs and shared
// identities, while payers, buyers, operators, the applier and a rebuild work.
type crowd struct {
	*bundle
	orders []engine.Order
	epoch  atomic.Int64
	locks  *deadlocks
	// crowded is the pool whose deadlocks are counted.
	crowded *pgxpool.Pool
}

func newCrowd(t *testing.T) *crowd {
	t.Helper()
	c := &crowd{bundle: newBundle(t), locks: &deadlocks{}}
	cfg := c.pool.Config()
	cfg.ConnConfig.Tracer = c.locks
	pool, err := pgxpool.NewWithConfig(t.Context(), cfg)
	c.ok(err)
	t.Cleanup(pool.Close)
	c.Store, c.crowded = orders.New(pool), pool
	s := engine.Sale{
		ID: "drop", Mode: engine.ModeStandard, Payment: engine.PayAtOrder, Provider: "instant", Currency: "KRW",
		Opens: time.Now().UTC(), Closes: time.Now().Add(time.Hour).UTC(), ReplayWindow: time.Hour,
	}
	for i := range crowdSKUs {
		s.Items = append(s.Items, engine.Item{SKU: engine.SKU(fmt.Sprint("SKU", i)), Price: 100, Units: 100})
	}
	c.ok(c.CreateSale(t.Context(), s, note))
	c.load(s.ID, 0)
	c.epoch.Store(1)
	c.sale = s
	for i := range crowdOrders {
		lines := make([]engine.Line, 0, 3)
		for j := range 1 + i%3 {
			lines = append(lines, engine.Line{SKU: engine.SKU(fmt.Sprint("SKU", (i+5*j)%crowdSKUs)), Quantity: 1, Price: 100})
		}
		o := c.orderOf(engine.BuyerID(fmt.Sprint("buyer", i%150)), lines...)
		o.Identities = []engine.Identity{{byte(i % 40)}, {1, byte(i % 30)}}
		o.LimitBuyer, o.LimitIdentity = 6, 30
		c.orders = append(c.orders, o)
	}
	return c
}

func (c *crowd) some(n int) []engine.Order {
	out := make([]engine.Order, n)
	for i := range out {
		out[i] = c.orders[rand.IntN(len(c.orders))]
	}
	return out
}

func (c *crowd) bring(ctx context.Context) error {
	var as []orders.Arrival
	for _, o := range c.some(40) {
		a := orders.Arrival{Order: o}
		if epoch := c.epoch.Load(); epoch > 1 && rand.IntN(2) == 0 {
			a.Hold, a.Retaken, a.Epoch = engine.Hold{Epoch: epoch, Seq: o.Hold.Seq}, true, epoch
		}
		as = append(as, a)
	}
	store := c.Store
	if rand.IntN(2) == 0 {
		store = orders.New(c.crowded) // one that has not met a repeat yet
	}
	_, err := store.IngestAndClaim(ctx, c.sale.ID, as, []time.Duration{time.Nanosecond, time.Hour}[rand.IntN(2)])
	return err
}

func (c *crowd) pay(ctx context.Context) error {
	got, err := c.Claim(ctx, orders.ClaimOptions{Sale: c.sale.ID, Limit: 50, Lease: time.Nanosecond})
	if err != nil {
		return err
	}
	var ps []orders.Payment
	var later []engine.OrderID
	for _, p := range got {
		switch rand.IntN(5) {
		case 0:
			later = append(later, p.Order)
		case 1, 2:
			ps = append(ps, orders.Payment{Order: p.Order, Attempt: p.Attempt, Result: orders.Declined})
		default:
			ps = append(ps, orders.Payment{Order: p.Order, Attempt: p.Attempt, Result: orders.Confirmed})
		}
	}
	if err := c.Defer(ctx, c.sale.ID, later, 0); err != nil {
		return err
	}
	rand.Shuffle(len(ps), func(i, j int) { ps[i], ps[j] = ps[j], ps[i] })
	_, err = c.Settle(ctx, c.sale.ID, ps, nil)
	return err
}

func (c *crowd) change(ctx context.Context) error {
	for _, o := range c.some(5) {
		if _, err := c.Cancel(ctx, o.Buyer, o.Order); err != nil {
			return err
		}
		if _, err := c.Return(ctx, o.Order, note); err != nil && !errors.Is(err, orders.ErrState) && !errors.Is(err, orders.ErrNoOrder) {
			return err
		}
	}
	sku := c.sale.Items[rand.IntN(crowdSKUs)].SKU
	if _, err := c.Restock(ctx, c.sale.ID, sku, 1, note); err != nil {
		return err
	}
	_, err := c.RequestWithdraw(ctx, c.sale.ID, sku, 2, note)
	return err
}

func (c *crowd) apply(ctx context.Context) error {
	epoch := c.epoch.Load()
	ms, err := c.PendingMoves(ctx, c.sale.ID, 200)
	if err != nil {
		return err
	}
	rows := make([]orders.Moved, 0, len(ms))
	for _, m := range ms {
		rows = append(rows, orders.Moved{ID: m.ID, Taken: int64(rand.IntN(2))})
	}
	rand.Shuffle(len(rows), func(i, j int) { rows[i], rows[j] = rows[j], rows[i] })
	_, _, err = c.MarkMoved(ctx, c.sale.ID, epoch, rows)
	return err
}

// rebuild cuts, and checks the image against itself: what is live is claimed.
func (c *crowd) rebuild(ctx context.Context) error {
	epoch := c.epoch.Load()
	img, err := c.Cut(ctx, c.sale.ID, epoch)
	if err != nil {
		if errors.Is(err, orders.ErrEpochMoved) {
			err = nil
		}
		return err
	}
	live := map[engine.SKU]int64{}
	for _, l := range img.Live {
		for _, line := range l.Lines {
			live[line.SKU] += line.Quantity
		}
	}
	for _, it := range img.Sale.Items {
		if live[it.SKU] > it.Units {
			return fmt.Errorf("image of epoch %d: %d live of %d units of %s", epoch+1, live[it.SKU], it.Units, it.SKU)
		}
	}
	c.epoch.Store(epoch + 1)
	_, err = c.Unfreeze(ctx, c.sale.ID, epoch+1)
	return err
}

func TestEverythingAtOnceKeepsTheLawsAndMeetsNoDeadlock(t *testing.T) {
	t.Parallel()
	c := newCrowd(t)
	steps := []func(context.Context) error{c.bring, c.bring, c.bring, c.pay, c.pay, c.change, c.apply}
	var wg sync.WaitGroup
	for w := range crowdWorkers {
		wg.Go(func() {
			for i := range crowdRounds {
				step := steps[rand.IntN(len(steps))]
				if w == 0 && i%10 == 9 {
					step = c.rebuild
				}
				if err := step(context.Background()); err != nil {
					t.Errorf("worker %d, round %d: %v", w, i, err)
				}
			}
		})
	}
	wg.Wait()
	c.laws()
	if n := c.locks.n.Load(); n > 0 {
		t.Errorf("%d deadlocks, retried: some transaction does not keep the lock order", n)
	}
	var known, ended int
	c.ok(c.pool.QueryRow(t.Context(), `SELECT count(*), count(*) FILTER (WHERE state IN (3, 4)) FROM orders`).Scan(&known, &ended))
	if known < crowdOrders/2 || ended < 10 {
		t.Errorf("%d orders, %d ended: too little happened to say anything", known, ended)
	}
}
