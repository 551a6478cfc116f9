package recovery_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/doorbuster/doorbuster/engine"
	"github.com/doorbuster/doorbuster/engine/recovery"
	"github.com/doorbuster/doorbuster/stock"
)

// more creates another sale in the world.
func (w *world) more(n int, state engine.SaleState) engine.SaleID {
	w.t.Helper()
	def := w.definition()
	def.ID = engine.SaleID(fmt.Sprint(w.sale, "-", n))
	w.ok(w.orders.CreateSale(w.t.Context(), def, note))
	if state != engine.SaleScheduled {
		w.ok(w.orders.SetSaleState(w.t.Context(), def.ID, state, note))
	}
	return def.ID
}

// builder notes which sales were built, and may hold up all but one.
type builder struct {
	recovery.Stock
	mu    sync.Mutex
	built []engine.SaleID
	now   int
	most  int
	hold  func(sale engine.SaleID) // nil: nobody
}

func (b *builder) Build(ctx context.Context, img stock.Image) error {
	b.mu.Lock()
	b.built = append(b.built, img.Sale.ID)
	b.now++
	b.most = max(b.most, b.now)
	hold := b.hold
	b.mu.Unlock()
	defer func() { b.mu.Lock(); b.now--; b.mu.Unlock() }()
	if hold != nil {
		hold(img.Sale.ID)
	}
	return b.Stock.Build(ctx, img)
}

func (b *builder) order() []engine.SaleID {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.built)
}

// Redis lost everything: of many finished sales and one open one, whoever comes
// first, the open one is built first, then the paused one, and few at a time.
// While the finished ones are being built the open one sells.
func TestOpenSalesAreRebuiltFirst(t *testing.T) {
	t.Parallel()
	w := setup(t, startServer(t).url())
	_, stop := w.recover()
	var all []engine.SaleID
	for n := range 12 {
		state := engine.SaleClosed
		if n == 7 {
			state = engine.SalePaused
		}
		all = append(all, w.more(n, state))
	}
	w.sells(1)
	for _, sale := range all {
		w.eventually("loaded", func() bool {
			f, err := w.orders.Fence(t.Context(), sale)
			return err == nil && f.Epoch == 1 && !f.Frozen
		})
	}
	stop()
	w.ok(w.rdb.FlushDB(t.Context()).Err()) // of the test's own server

	release := make(chan struct{})
	b := &builder{Stock: w.stock}
	b.hold = func(sale engine.SaleID) {
		if sale != w.sale && sale != all[7] {
			<-release
		}
	}
	cfg := w.config()
	cfg.Stock = b
	w.run("recovery", recovery.New(cfg).Run)
	w.sells(2)
	beat := w.sells(2).Heartbeat
	w.eventually("the heartbeat goes on beside the rebuilds", func() bool { return w.sells(2).Heartbeat > beat+3 })
	w.known(w.buy(2))
	close(release)
	w.eventually("all built", func() bool { return len(b.order()) >= 13 })
	if got := b.order(); got[0] != w.sale || got[1] != all[7] {
		t.Errorf("built %q, want the open sale first, then the paused one", got[:3])
	}
	if b.most > recovery.RebuildsAtOnce {
		t.Errorf("%d built at once", b.most)
	}
}

func TestUrgency(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_700_000_000, 0)
	sale := func(state engine.SaleState, opens, closes time.Duration) engine.Sale {
		return engine.Sale{State: state, Opens: now.Add(opens), Closes: now.Add(closes)}
	}
	order := []engine.Sale{
		sale(engine.SaleOpen, -time.Hour, time.Hour),
		sale(engine.SalePaused, -time.Hour, time.Hour),
		sale(engine.SaleScheduled, time.Hour, 2*time.Hour),
		sale(engine.SaleClosed, -time.Hour, time.Hour),
	}
	lately, longAgo := now.Add(-10*time.Second), now.Add(-10*time.Minute)
	for i := range order {
		if got := recovery.UrgencyOf(&order[i], now, longAgo); got != i+1 {
			t.Errorf("%s, opens %v: %d, want %d", order[i].State, order[i].Opens.Sub(now), got, i+1)
		}
		want := i + 1
		if i == 0 {
			want = 0
		}
		if got := recovery.UrgencyOf(&order[i], now, lately); got != want {
			t.Errorf("%s, sold lately: %d, want %d", order[i].State, got, want)
		}
	}
	always := sale(engine.SaleOpen, -time.Hour, 0)
	always.Closes = time.Time{}
	if got := recovery.UrgencyOf(&always, now, time.UnixMilli(0)); got != 1 {
		t.Errorf("a sale that never closes: %d, want 1", got)
	}
	near, over := sale(engine.SaleScheduled, time.Minute, time.Hour), sale(engine.SaleOpen, -time.Hour, -time.Second)
	if a, b := recovery.UrgencyOf(&near, now, longAgo), recovery.UrgencyOf(&over, now, lately); a != 1 || b != 4 {
		t.Errorf("opens in a minute: %d; over: %d", a, b)
	}
}

// Large rebuilds go two at a time, small ones some more, and none overtakes a large one
// that waits.
func TestTurnsByWeight(t *testing.T) {
	t.Parallel()
	const large, small = 100_000, 10
	var turns recovery.Turns
	first, second, third := turns.Join(large), turns.Join(large), turns.Join(large)
	if !first.Granted() || !second.Granted() || third.Granted() {
		t.Errorf("large ones: %v %v %v, want two", first.Granted(), second.Granted(), third.Granted())
	}
	little := turns.Join(small)
	first.Leave()
	if !third.Granted() || little.Granted() {
		t.Error("the small one overtook the large one")
	}
	second.Leave()
	if !little.Granted() {
		t.Error("there is room for the small one")
	}
	third.Leave()
	granted := 0
	for range 2 * recovery.RebuildsAtOnce {
		if turns.Join(small).Granted() {
			granted++
		}
	}
	if want := recovery.RebuildsAtOnce - 1; granted != want {
		t.Errorf("%d small ones beside another, want %d", granted, want)
	}
}

// Turns: the most urgent first, of equals the first; who stands back too long
// goes all the same.
func TestNextTurn(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		ready     []int
		impatient int
		joined    []int
		want      int
	}{
		"nobody":                         {nil, -1, []int{1}, -1},
		"the most urgent":                {[]int{3, 1, 1}, -1, []int{3, 1, 1}, 1},
		"a more urgent one is not ready": {[]int{3}, -1, []int{3, 0}, -1},
		"it was patient enough":          {[]int{3}, 0, []int{3, 0}, 0},
	} {
		if got := recovery.NextTurn(c.ready, c.impatient, c.joined); got != c.want {
			t.Errorf("%s: %d, want %d", name, got, c.want)
		}
	}
}

// Sales whose Redis is silent, more of them than there ever were workers, delay
// nobody's heartbeat.
func TestSilentRedisDelaysNoOtherSale(t *testing.T) {
	t.Parallel()
	w := setup(t, "")
	dumb := map[engine.SaleID]bool{}
	for n := range 20 {
		dumb[w.more(n, engine.SaleScheduled)] = true
	}
	last := w.more(99, engine.SaleScheduled)
	cfg := w.config()
	cfg.Pulse = manySilent{w.stock, dumb}
	w.run("recovery", recovery.New(cfg).Run)
	w.sells(1)
	w.eventually("all led", func() bool {
		for sale := range dumb {
			if f, err := w.orders.Fence(t.Context(), sale); err != nil || f.Epoch == 0 || f.Frozen {
				return false
			}
		}
		return true
	})
	beats := func(sale engine.SaleID) int64 {
		watch, err := w.stock.Watch(t.Context(), sale, 1)
		if err != nil {
			return 0
		}
		return watch.Heartbeat
	}
	w.eventually("the last one sells", func() bool { return beats(last) > 0 })
	began, before, beforeLast := time.Now(), beats(w.sale), beats(last)
	w.eventually("ten heartbeats of those before and behind", func() bool {
		return beats(w.sale) >= before+10 && beats(last) >= beforeLast+10
	})
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("ten heartbeats took %v beside silent sales", took)
	}
}

type manySilent struct {
	recovery.Pulse
	sales map[engine.SaleID]bool
}

func (s manySilent) Beat(ctx context.Context, sale engine.SaleID, epoch int64) error {
	if s.sales[sale] {
		<-ctx.Done()
		return ctx.Err()
	}
	return s.Pulse.Beat(ctx, sale, epoch)
}
