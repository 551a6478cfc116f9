package recovery_test

import (
	"context"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/doorbuster/doorbuster/engine"
	"github.com/doorbuster/doorbuster/engine/orders"
	"github.com/doorbuster/doorbuster/engine/recovery"
)

// asked counts the statements that recovery makes for each sale by itself, and those
// that it makes for all of them.
type asked struct {
	recovery.Orders
	*counts
}

type counts struct{ rounds, scouts, perSale atomic.Int64 }

func (a asked) Under(l orders.Lead) recovery.Orders { return asked{a.Orders.Under(l), a.counts} }

func (a asked) SalesWithMoves(ctx context.Context) ([]engine.SaleID, error) {
	a.scouts.Add(1)
	return a.Orders.SalesWithMoves(ctx)
}

func (a asked) Fence(ctx context.Context, sale engine.SaleID) (orders.Fence, error) {
	a.perSale.Add(1)
	return a.Orders.Fence(ctx, sale)
}

func (a asked) Sale(ctx context.Context, sale engine.SaleID) (engine.Sale, orders.Status, error) {
	a.perSale.Add(2) // the sale and its items
	return a.Orders.Sale(ctx, sale)
}

func (a asked) PendingMoves(ctx context.Context, sale engine.SaleID, limit int) ([]engine.Move, error) {
	a.perSale.Add(1)
	return a.Orders.PendingMoves(ctx, sale, limit)
}

type countedLead struct {
	recovery.Lead
	*counts
}

func (l countedLead) Round(ctx context.Context) ([]orders.Led, error) {
	l.rounds.Add(1)
	return l.Lead.Round(ctx)
}

// Sales in which nothing happens cost PostgreSQL less than a statement every two
// seconds each, and what is asked for all of them together does not grow with their
// number. Rounds are the measure of time, two a second: on a machine that is busy they
// slow down as everything does.
func TestIdleSalesCostLittle(t *testing.T) {
	t.Parallel()
	w := setup(t, "")
	const idle, rounds = 20, 24
	sales := make([]engine.SaleID, idle)
	for n := range sales {
		sales[n] = w.more(n, []engine.SaleState{engine.SaleOpen, engine.SaleScheduled, engine.SalePaused, engine.SaleClosed}[n%4])
	}
	var c counts
	cfg := w.config()
	cfg.Orders, cfg.Lead = asked{cfg.Orders, &c}, countedLead{cfg.Lead, &c}
	r := recovery.New(cfg)
	w.run("recovery", r.Run)
	w.sells(1)
	w.beating(sales, 4)
	before, scouts, from := c.perSale.Load(), c.scouts.Load(), c.rounds.Load()
	w.eventually("rounds", func() bool { return c.rounds.Load() >= from+rounds })
	perSale, looks := c.perSale.Load()-before, c.scouts.Load()-scouts
	if most := int64(idle+1) * rounds / 4; perSale >= most {
		t.Errorf("%d statements for %d idle sales in %d rounds, want less than %d", perSale, idle+1, rounds, most)
	}
	if most := int64(rounds * 6); looks > most || looks == 0 {
		t.Errorf("%d looks for moves in %d rounds, want at most %d, whatever the number of sales", looks, rounds, most)
	}
}

// Moves of a sale that was idle are found at once, and by nobody's nudge.
func TestMovesOfAnIdleSaleAreFound(t *testing.T) {
	t.Parallel()
	w := setup(t, "")
	w.recover()
	w.sells(1)
	var took []time.Duration
	for range 5 {
		b := w.buy(1)
		w.known(b)
		began := time.Now()
		w.pay(b, orders.Confirmed)
		w.settled()
		took = append(took, time.Since(began))
	}
	slices.Sort(took)
	if took[2] > 5*time.Second { // more than 11 s if each sale looked by itself alone
		t.Errorf("a move was applied after %v", took[2])
	}
}
