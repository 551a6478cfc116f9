package recovery_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/doorbuster/doorbuster/engine"
	"github.com/doorbuster/doorbuster/engine/orders"
	"github.com/doorbuster/doorbuster/engine/recovery"
	"github.com/doorbuster/doorbuster/stock"
)

func (w *world) state() engine.SaleState {
	w.t.Helper()
	def, _, err := w.orders.Sale(context.Background(), w.sale)
	w.ok(err)
	return def.State
}

func (w *world) becomes(state engine.SaleState) {
	w.t.Helper()
	w.eventually("the sale is "+string(state), func() bool { return w.state() == state })
}

// A sale's state in PostgreSQL follows its window; one that is closed and at rest
// is settled, is led by nobody, and answers repeats; a unit that comes back wakes
// it; and settled again, what told its orders' ends is pruned.
func TestLifeOfASale(t *testing.T) {
	t.Parallel()
	w := setup(t, "")
	cfg := w.config()
	cfg.SettleAfter, cfg.PruneAfter = time.Millisecond, time.Millisecond
	r := recovery.New(cfg)
	w.run("recovery", r.Run)
	w.sells(1)
	w.becomes(engine.SaleOpen)
	b := w.buy(6)
	w.known(b)
	w.pay(b[:4], orders.Confirmed)
	w.counts(mugs-6, 2, 4)
	def, _, err := w.orders.Sale(t.Context(), w.sale)
	w.ok(err)
	def.Closes = time.Now().Add(time.Second)
	_, err = w.orders.Redefine(t.Context(), def, note)
	w.ok(err)
	w.becomes(engine.SaleClosed)
	w.eventually("probed again while an order is open", func() bool {
		watch, err := w.stock.Watch(t.Context(), w.sale, 0)
		return err == nil && watch.State == engine.SaleClosed && watch.Now > def.Closes.Add(3*time.Second).UnixMilli()
	})
	if got := w.state(); got != engine.SaleClosed {
		t.Fatalf("%s while two orders are paying", got)
	}
	w.pay(b[4:], orders.Declined)
	w.becomes(engine.SaleSettled)

	w.restsSettled(cfg.Lead, b)
	back, err := w.orders.Return(t.Context(), b[0].Order, note)
	w.ok(err)
	if !back {
		t.Fatal("not returned")
	}
	w.counts(mugs-3, 0, 3)
	w.swept(r, "the epoch before is dropped", func(c recovery.SweepCounts) bool {
		recovery.AgeEpoch(r, w.sale, time.Hour) // else its keys stay for a minute
		return c.Dropped == 1
	})
	w.becomes(engine.SaleSettled)
	w.eventually("pruned", func() bool {
		_, err := recovery.PruneBooks(t.Context(), r)
		w.ok(err)
		var left, sales int
		w.ok(w.db.QueryRow(t.Context(), `SELECT (SELECT count(*) FROM moves WHERE op = 0), (SELECT count(*) FROM sales WHERE pruned)`).Scan(&left, &sales))
		return left == 0 && sales == 1
	})
}

// restsSettled checks what a settled sale leaves: nobody leads it, its slot says
// so, and answers repeats, and its records go later than its state, which stays.
func (w *world) restsSettled(lead recovery.Lead, b []engine.Basket) {
	w.t.Helper()
	led, err := lead.Round(w.t.Context())
	w.ok(err)
	if len(led) != 0 {
		w.t.Errorf("still led: %+v", led)
	}
	watch, err := w.stock.Watch(w.t.Context(), w.sale, 0)
	w.ok(err)
	if !watch.Retired || watch.State != engine.SaleClosed {
		w.t.Errorf("the slot of a settled sale: %+v", watch)
	}
	for i, want := range map[int]engine.RecordState{0: engine.RecordSettled, 5: engine.RecordReleased} {
		if rec, found, err := w.stock.Record(w.t.Context(), w.sale, b[i].Order); err != nil || !found || rec.State != want {
			w.t.Errorf("record of a settled sale: %+v, %v, %v", rec, found, err)
		}
	}

	key := "s:{" + string(w.sale) + "}:1:"
	if left := w.rdb.PTTL(w.t.Context(), key+"o").Val(); left < 7*24*time.Hour {
		w.t.Errorf("records of a settled sale go in %v", left)
	}
	if left := w.rdb.PTTL(w.t.Context(), key+"st").Val(); left >= 0 {
		w.t.Errorf("the state of a settled sale goes in %v", left)
	}
}

// A server that restarts between the probe and the moment its slot is told has another
// state than the one that was at rest, or none: then the sale is not settled.
func TestRestartKeepsASaleFromBeingSettled(t *testing.T) {
	t.Parallel()
	for name, server := range map[string]stock.Server{
		"same": {RunID: "a", ReplID: "a"}, "restarted": {RunID: "b", ReplID: "b"}, "handed over": {RunID: "a", ReplID: "b"},
	} {
		p := &pauses{}
		c := recovery.NewErrands(restingStock{pausedStock{pauses: p}, server}, pausedOrders{pauses: p})
		now := time.Unix(1_700_000_000, 0)
		c.Run(t.Context(), recovery.Seen{
			Redis: engine.SaleClosed, Postgres: engine.SaleClosed, Closes: now, RedisTime: now, PostgresTime: now.Add(time.Hour),
			Server: stock.Server{RunID: "a", ReplID: "a"},
		})
		want := []string{"retired", "settled"}
		if name != "same" {
			want = want[:1]
		}
		if !slices.Equal(p.got, want) {
			t.Errorf("%s: %q, want %q", name, p.got, want)
		}
	}
}

// restingStock is a slot in which nothing is on its way.
type restingStock struct {
	pausedStock
	server stock.Server
}

func (restingStock) Epochs(context.Context, engine.SaleID) ([]int64, error) { return []int64{1}, nil }

func (restingStock) Outbox(context.Context, engine.SaleID, int64, int) ([]stock.Entry, int64, error) {
	return nil, 0, nil
}

func (r restingStock) Retire(context.Context, engine.SaleID, int64, time.Duration) error {
	r.got = append(r.got, "retired")
	return nil
}

func (r restingStock) Server(context.Context, engine.SaleID) (stock.Server, error) {
	return r.server, nil
}

func (p pausedOrders) SettleSale(ctx context.Context, _ engine.SaleID, _ int64, _ orders.Note, also func(context.Context) error) (bool, error) {
	if err := also(ctx); err != nil {
		return false, err
	}
	p.got = append(p.got, "settled")
	return true, nil
}

func TestStateByTime(t *testing.T) {
	t.Parallel()
	opens := time.Unix(1_700_000_000, 0)
	closes := opens.Add(time.Hour)
	for _, c := range []struct {
		state engine.SaleState
		at    time.Time
		want  engine.SaleState
	}{
		{engine.SaleScheduled, opens.Add(-time.Millisecond), engine.SaleScheduled},
		{engine.SaleScheduled, opens, engine.SaleOpen},
		{engine.SaleScheduled, closes, engine.SaleClosed},
		{engine.SaleOpen, closes.Add(-time.Millisecond), engine.SaleOpen},
		{engine.SaleOpen, closes, engine.SaleClosed},
		{engine.SalePaused, opens, engine.SalePaused},
		{engine.SalePaused, closes, engine.SalePaused},
		{engine.SaleClosed, opens, engine.SaleClosed},
		{engine.SaleSettled, closes, engine.SaleSettled},
	} {
		def := engine.Sale{State: c.state, Opens: opens, Closes: closes}
		if got := recovery.StateByTime(&def, c.at.UnixMilli()); got != c.want {
			t.Errorf("%s at %v: %s, want %s", c.state, c.at.Sub(opens), got, c.want)
		}
	}
}

// A clock that is far ahead closes no sale, for that would be for good: it is paused
// for the clocks, and closed when both have passed its time.
func TestClockAheadClosesNoSale(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_700_000_000, 0)
	closes, ahead := now.Add(time.Hour), now.Add(2*time.Hour)
	for name, seen := range map[string]recovery.Seen{
		"Redis":      {RedisTime: ahead, PostgresTime: now, Skew: 2 * time.Hour},
		"PostgreSQL": {RedisTime: now, PostgresTime: ahead, Skew: -2 * time.Hour},
	} {
		p := &pauses{}
		c := recovery.NewErrands(pausedStock{pauses: p}, pausedOrders{pauses: p})
		seen.Redis, seen.Postgres, seen.Closes = engine.SaleOpen, engine.SaleOpen, closes
		for range 3 {
			c.Run(t.Context(), seen)
		}
		if want := []string{"redis paused", "postgres paused"}; !slices.Equal(p.got, want) {
			t.Errorf("%s ahead: %q, want %q", name, p.got, want)
		}
	}
	p := &pauses{}
	recovery.NewErrands(pausedStock{pauses: p}, pausedOrders{pauses: p}).Run(t.Context(), recovery.Seen{
		Redis: engine.SaleOpen, Postgres: engine.SaleOpen, Closes: closes, RedisTime: ahead, PostgresTime: ahead,
	})
	if want := []string{"postgres closed", "redis closed"}; !slices.Equal(p.got, want) {
		t.Errorf("both clocks have passed it: %q, want %q", p.got, want)
	}
}

// PostgreSQL cannot be told of the pause for the clocks: Redis stays paused, the
// follower does not open it, and PostgreSQL is told as soon as it can be.
func TestPauseForTheClocksIsNotUndone(t *testing.T) {
	t.Parallel()
	p := &pauses{}
	deaf := &deafOrders{pausedOrders: pausedOrders{pauses: p}, err: errors.New("no PostgreSQL")}
	c := recovery.NewErrands(pausedStock{pauses: p}, deaf)
	view := recovery.Seen{Redis: engine.SaleOpen, Postgres: engine.SaleOpen, Skew: 2 * time.Second}
	for range 3 {
		c.Run(t.Context(), view)
	}
	if len(p.got) == 0 || p.got[0] != "redis paused" {
		t.Fatalf("%q, want Redis paused", p.got)
	}
	view.Redis = engine.SalePaused
	for range 5 {
		c.Pass(time.Minute)
		c.Run(t.Context(), view)
	}
	deaf.err = nil
	c.Run(t.Context(), view)
	for _, did := range p.got[1:] {
		if did == "redis open" {
			t.Errorf("%q: the pause was undone", p.got)
		}
	}
	if last := p.got[len(p.got)-1]; last != "postgres paused" {
		t.Errorf("%q: PostgreSQL was not told", p.got)
	}
}

// Somebody closes a sale in PostgreSQL, and dies, while the clocks are too far apart: Redis
// is closed all the same.
func TestClosedIsFollowedThoughTheClocksAreApart(t *testing.T) {
	t.Parallel()
	p := &pauses{}
	c := recovery.NewErrands(pausedStock{pauses: p}, closedOrders{pausedOrders{pauses: p}})
	for range 5 {
		c.Run(t.Context(), recovery.Seen{Redis: engine.SaleOpen, Postgres: engine.SaleClosed, Skew: 11 * time.Second})
		c.Pass(time.Second)
	}
	if !slices.Contains(p.got, "redis closed") {
		t.Errorf("%q: Redis stays open", p.got)
	}
}

type closedOrders struct{ pausedOrders }

func (closedOrders) Fence(context.Context, engine.SaleID) (orders.Fence, error) {
	return orders.Fence{State: engine.SaleClosed}, nil
}

type deafOrders struct {
	pausedOrders
	err error
}

func (d *deafOrders) SetSaleState(ctx context.Context, sale engine.SaleID, s engine.SaleState, n orders.Note) error {
	if d.err != nil {
		return d.err
	}
	return d.pausedOrders.SetSaleState(ctx, sale, s, n)
}

// Whoever calls a script in an epoch whose keys another process has dropped is
// refused, and nothing is left behind.
func TestDroppedEpochRefuses(t *testing.T) {
	t.Parallel()
	w := setup(t, "")
	w.recover()
	old := w.sells(1)
	b := w.buy(1)
	w.known(b)
	w.ok(w.orders.SetSaleState(t.Context(), w.sale, engine.SalePaused, note))
	froze, err := w.orders.Freeze(t.Context(), w.sale, 1)
	w.ok(err)
	if !froze {
		t.Fatal("not frozen")
	}
	w.eventually("next epoch", func() bool {
		watch, err := w.stock.Watch(t.Context(), w.sale, 2)
		return err == nil && watch.Epoch == 2
	})
	w.ok(w.stock.DropEpoch(t.Context(), w.sale, 1))
	var d stock.Decision
	if err := w.stock.Retake(t.Context(), w.sale, old.Grip, w.baskets(1), &d); !errors.Is(err, stock.ErrFenced) {
		t.Errorf("retake in a dropped epoch: %v, want ErrFenced", err)
	}
	moves := []engine.Move{
		{ID: 1, Sale: w.sale, Op: engine.Release, Order: b[0].Order, Hold: engine.Hold{Epoch: 1, Seq: 1}, Body: b[0].Body},
		{ID: 2, Sale: w.sale, Op: engine.Restock, Lines: []engine.Line{{SKU: "MUG", Quantity: 1}}},
	}
	for i := range moves {
		if _, err := w.stock.Apply(t.Context(), w.sale, old.Grip, moves[i:i+1]); !errors.Is(err, stock.ErrFenced) {
			t.Errorf("%s in a dropped epoch: %v, want ErrFenced", moves[i].Op, err)
		}
	}
	if err := w.stock.Beat(t.Context(), w.sale, 1); !errors.Is(err, stock.ErrNoSale) {
		t.Errorf("beat in a dropped epoch: %v, want ErrNoSale", err)
	}
	w.ok(w.stock.Freeze(t.Context(), w.sale, 1))
	w.ok(w.stock.Retire(t.Context(), w.sale, 1, time.Hour))
	keys, err := w.rdb.Keys(t.Context(), "s:{"+string(w.sale)+"}:1:*").Result()
	w.ok(err)
	if len(keys) > 0 {
		t.Errorf("left behind: %q", keys)
	}
}
