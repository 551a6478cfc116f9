package control_test

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/doorbuster/doorbuster/engine"
	"github.com/doorbuster/doorbuster/engine/control"
	"github.com/doorbuster/doorbuster/engine/orders"
	"github.com/doorbuster/doorbuster/stock"
)

func TestPauseResumeClose(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.rebuild()
	ctx := t.Context()
	for range 2 { // again: the same
		b.ok(b.ctl.Pause(ctx, b.sale, note))
		b.want(engine.SalePaused, engine.SalePaused)
	}
	for range 2 {
		b.ok(b.ctl.Resume(ctx, b.sale, note))
		b.want(engine.SaleOpen, engine.SaleOpen)
	}
	for range 2 {
		b.ok(b.ctl.Close(ctx, b.sale, note))
		b.want(engine.SaleClosed, engine.SaleClosed)
	}
	for what, act := range map[string]func(context.Context, engine.SaleID, control.Note) error{"pause": b.ctl.Pause, "resume": b.ctl.Resume} {
		err := act(ctx, b.sale, note)
		if !errors.Is(err, control.ErrIllegal) || !strings.Contains(err.Error(), what+" sale "+string(b.sale)+": it is closed") {
			t.Errorf("%s a closed sale: %v", what, err)
		}
	}
	b.want(engine.SaleClosed, engine.SaleClosed)
	trail, err := b.Trail(ctx, b.sale, 10)
	b.ok(err)
	var what []string
	for _, e := range trail {
		if e.Who != note.Who || e.Why != note.Why {
			t.Errorf("trail: %+v", e)
		}
		what = append(what, e.What)
	}
	if got := strings.Join(what, ", "); got != "state closed, state open, state paused, create" {
		t.Errorf("trail: %s", got)
	}
}

// An order that is refused while the sale is paused, and taken when it goes on.
func TestPauseStopsTheStock(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.rebuild()
	b.ok(b.ctl.Pause(t.Context(), b.sale, note))
	if got := b.reserve("one"); got != engine.Paused {
		t.Errorf("paused: %v", got)
	}
	b.ok(b.ctl.Resume(t.Context(), b.sale, note))
	if got := b.reserve("two"); got != engine.Accepted {
		t.Errorf("resumed: %v", got)
	}
	b.ok(b.ctl.Close(t.Context(), b.sale, note))
	if got := b.reserve("three"); got != engine.Closed {
		t.Errorf("closed: %v", got)
	}
}

func (b *bundle) reserve(buyer engine.BuyerID) engine.Outcome {
	b.t.Helper()
	key, err := engine.NewOrderKey([]byte(strings.Repeat("o", 32)), 1, b.sale)
	b.ok(err)
	w, err := b.stock.Watch(b.t.Context(), b.sale, 0)
	b.ok(err)
	lines := []engine.Line{{SKU: "MUG", Quantity: 1, Price: w.Items[0].Price}}
	basket := engine.Basket{Order: key.ID(buyer, []byte("k")), Buyer: buyer, Lines: lines, Total: lines[0].Price}
	var d stock.Decision
	b.ok(b.stock.Reserve(b.t.Context(), b.sale, w.Grip, []engine.Basket{basket}, &d))
	return d.Verdicts[0].Outcome
}

func TestActsBeforeTheSaleIsLoaded(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.ok(b.ctl.Pause(t.Context(), b.sale, note))
	b.rebuild()
	b.want(engine.SalePaused, engine.SalePaused)
	if err := b.ctl.Create(t.Context(), definition(b.sale), note); !errors.Is(err, orders.ErrSaleExists) {
		t.Errorf("create again: %v", err)
	}
	s, _, err := b.Sale(t.Context(), b.sale)
	b.ok(err)
	if s.KeyNumber != 3 {
		t.Errorf("key number %d", s.KeyNumber)
	}
}

// journal writes down in which order the two are written.
type journal struct {
	control.Orders
	control.Stock
	mu   sync.Mutex
	said []string
	fail map[string]error
	also func(what string)
}

func (j *journal) do(what string) error {
	j.mu.Lock()
	j.said = append(j.said, what)
	err := j.fail[what]
	j.mu.Unlock()
	if j.also != nil {
		j.also(what)
	}
	return err
}

func (j *journal) SetSaleState(ctx context.Context, id engine.SaleID, to engine.SaleState, n orders.Note) error {
	if err := j.do("postgres " + string(to)); err != nil {
		return err
	}
	return j.Orders.SetSaleState(ctx, id, to, n)
}

func (j *journal) ResumeSale(ctx context.Context, id engine.SaleID, since time.Time, n orders.Note) error {
	if err := j.do("postgres open"); err != nil {
		return err
	}
	return j.Orders.ResumeSale(ctx, id, since, n)
}

func (j *journal) SetState(ctx context.Context, id engine.SaleID, g stock.Grip, to engine.SaleState) error {
	if err := j.do("redis " + string(to)); err != nil {
		return err
	}
	return j.Stock.SetState(ctx, id, g, to)
}

func (j *journal) Watch(ctx context.Context, id engine.SaleID, epoch int64) (stock.Watch, error) {
	j.mu.Lock()
	err := j.fail["watch"]
	j.mu.Unlock()
	if err != nil {
		return stock.Watch{}, err
	}
	return j.Stock.Watch(ctx, id, epoch)
}

// Redefine is of both; only PostgreSQL's and Redis' own are meant to be called.
type both struct{ *journal }

func (b both) Redefine(ctx context.Context, def engine.Sale, n orders.Note) (int64, error) {
	return b.Orders.Redefine(ctx, def, n)
}

type slotOf struct{ *journal }

func (s slotOf) Redefine(ctx context.Context, id engine.SaleID, g stock.Grip, def engine.Sale) error {
	return s.Stock.Redefine(ctx, id, g, def)
}

func (b *bundle) journal() *journal {
	j := &journal{Orders: b.Store, Stock: b.stock, fail: map[string]error{}}
	b.use(both{j}, slotOf{j})
	return j
}

func TestTighteningGoesToRedisFirst(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.rebuild()
	j := b.journal()
	b.ok(b.ctl.Pause(t.Context(), b.sale, note))
	b.ok(b.ctl.Resume(t.Context(), b.sale, note))
	b.ok(b.ctl.Close(t.Context(), b.sale, note))
	want := "redis paused, postgres paused, redis paused, postgres open, redis open, redis closed, postgres closed, redis closed"
	if got := strings.Join(j.said, ", "); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestPostgreSQLDownLeavesTheSaleStricter(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.rebuild()
	j := b.journal()
	down := errors.New("connection refused")
	j.fail["postgres paused"] = down
	if err := b.ctl.Pause(t.Context(), b.sale, note); !errors.Is(err, down) {
		t.Errorf("pause: %v", err)
	}
	b.want(engine.SaleScheduled, engine.SalePaused)
	clear(j.fail)
	b.ok(b.ctl.Pause(t.Context(), b.sale, note)) // repeated, it is whole
	b.want(engine.SalePaused, engine.SalePaused)
	j.fail["postgres open"] = down
	if err := b.ctl.Resume(t.Context(), b.sale, note); !errors.Is(err, down) {
		t.Errorf("resume: %v", err)
	}
	b.want(engine.SalePaused, engine.SalePaused)
}

func TestRedisDownIsRecordedAndTold(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.rebuild()
	j := b.journal()
	j.fail["watch"] = errors.New("connection refused")
	err := b.ctl.Pause(t.Context(), b.sale, note)
	if !errors.Is(err, control.ErrUnsettled) || !strings.Contains(err.Error(), "connection refused") {
		t.Errorf("pause: %v", err)
	}
	clear(j.fail)
	b.want(engine.SalePaused, engine.SaleOpen)
	b.rebuild() // takes what PostgreSQL says
	b.want(engine.SalePaused, engine.SalePaused)
}

// A rebuild between the two writes: its cut saw the old state, and Redis must
// follow all the same.
func TestRebuildInBetween(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.rebuild()
	j := b.journal()
	rebuilt := false
	j.also = func(what string) {
		if what == "postgres paused" && !rebuilt {
			rebuilt = true
			b.rebuild()
		}
	}
	b.ok(b.ctl.Pause(t.Context(), b.sale, note))
	b.want(engine.SalePaused, engine.SalePaused)
}

// Somebody closes the sale while another pauses it: closed wins in both places.
func TestCloseWhileAnotherPauses(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.rebuild()
	j := b.journal()
	other := control.New(control.Config{Orders: b.Store, Stock: b.stock})
	closed := false
	j.also = func(what string) {
		if what == "redis paused" && !closed {
			closed = true
			b.ok(other.Close(t.Context(), b.sale, note))
		}
	}
	if err := b.ctl.Pause(t.Context(), b.sale, note); !errors.Is(err, control.ErrIllegal) {
		t.Errorf("pause: %v", err)
	}
	b.want(engine.SaleClosed, engine.SaleClosed)
}

func TestManyOperatorsAtOnceAgreeInTheEnd(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.rebuild()
	b.ctl = control.New(control.Config{Orders: b.Store, Stock: b.stock})
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			act := b.ctl.Pause
			if i%2 == 0 {
				act = b.ctl.Resume
			}
			if err := act(t.Context(), b.sale, note); err != nil && !errors.Is(err, control.ErrIllegal) {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	s, _, err := b.Sale(t.Context(), b.sale)
	b.ok(err)
	want := s.State
	if want == engine.SaleScheduled {
		want = engine.SaleOpen
	}
	b.want(s.State, want)
}

// A sale that was paused until its window was over sells again only with a later end;
// without, it can only be closed.
func TestResumeAfterTheWindow(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.rebuild()
	ctx := t.Context()
	b.ok(b.ctl.Pause(ctx, b.sale, note))
	over, later := time.Now().Add(-time.Second), time.Now().Add(time.Hour)
	b.ok(b.ctl.Redefine(ctx, b.sale, control.Change{Closes: &over}, note))
	if err := b.ctl.Resume(ctx, b.sale, note); !errors.Is(err, control.ErrIllegal) || !strings.Contains(err.Error(), "give it a later end") {
		t.Errorf("resume past the window: %v", err)
	}
	b.want(engine.SalePaused, engine.SalePaused)
	b.ok(b.ctl.Redefine(ctx, b.sale, control.Change{Closes: &later}, note))
	b.ok(b.ctl.Resume(ctx, b.sale, note))
	b.want(engine.SaleOpen, engine.SaleOpen)
	b.ok(b.ctl.Pause(ctx, b.sale, note))
	b.ok(b.ctl.Redefine(ctx, b.sale, control.Change{Closes: &over}, note))
	b.ok(b.ctl.Close(ctx, b.sale, note))
	b.want(engine.SaleClosed, engine.SaleClosed)
}

func TestRestockAndWithdraw(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.rebuild()
	ctx := t.Context()
	b.ok(b.ctl.Restock(ctx, b.sale, "MUG", 5, note))
	b.ok(b.ctl.Withdraw(ctx, b.sale, "MUG", 100, note))
	v, err := b.ctl.Show(ctx, b.sale)
	b.ok(err)
	if v.PendingMoves != 2 || v.Items[0].Units != 15 || *v.Items[0].Available != 10 {
		t.Errorf("before the moves: %+v", v)
	}
	b.apply()
	v, err = b.ctl.Show(ctx, b.sale)
	b.ok(err)
	if v.PendingMoves != 0 || v.Items[0].Units != 0 || *v.Items[0].Available != 0 {
		t.Errorf("after the moves: units %d, available %d", v.Items[0].Units, *v.Items[0].Available)
	}
	if v.Trail[0].What != "withdraw" || v.Trail[0].Units != 100 || v.Trail[1].What != "restock" || v.Trail[1].Who != note.Who {
		t.Errorf("trail %+v", v.Trail)
	}
}

func (b *bundle) apply() {
	b.t.Helper()
	ctx := b.t.Context()
	moves, err := b.PendingMoves(ctx, b.sale, 100)
	b.ok(err)
	w, err := b.stock.Watch(ctx, b.sale, 0)
	b.ok(err)
	taken, err := b.stock.Apply(ctx, b.sale, w.Grip, moves)
	b.ok(err)
	for i, m := range moves {
		_, moved, err := b.MarkMoved(ctx, b.sale, w.Epoch, []orders.Moved{{ID: m.ID, Taken: taken[i]}})
		b.ok(err)
		if moved {
			b.t.Fatal("the epoch moved")
		}
	}
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.rebuild()
	ctx := t.Context()
	long := control.Note{Who: "x", Why: strings.Repeat("y", control.MaxNoteLen+1)}
	bad := definition("x")
	bad.Closes = bad.Opens
	for what, c := range map[string]struct{ err, want error }{
		"pause, nobody":      {b.ctl.Pause(ctx, b.sale, control.Note{Why: "x"}), control.ErrNote},
		"close, no reason":   {b.ctl.Close(ctx, b.sale, control.Note{Who: "x"}), control.ErrNote},
		"resume, long":       {b.ctl.Resume(ctx, b.sale, long), control.ErrNote},
		"restock, nobody":    {b.ctl.Restock(ctx, b.sale, "MUG", 1, control.Note{}), control.ErrNote},
		"create, nobody":     {b.ctl.Create(ctx, definition("x"), control.Note{}), control.ErrNote},
		"create, bad":        {b.ctl.Create(ctx, bad, note), control.ErrInvalid},
		"resume, scheduled":  {b.ctl.Resume(ctx, b.sale, note), control.ErrIllegal},
		"pause, no sale":     {b.ctl.Pause(ctx, "no-such-sale", note), orders.ErrNoSale},
		"restock, no sale":   {b.ctl.Restock(ctx, "no-such-sale", "MUG", 1, note), orders.ErrNoSale},
		"restock, no sku":    {b.ctl.Restock(ctx, b.sale, "HAT", 1, note), orders.ErrNoSKU},
		"withdraw, no sku":   {b.ctl.Withdraw(ctx, b.sale, "HAT", 1, note), orders.ErrNoSKU},
		"restock 0":          {b.ctl.Restock(ctx, b.sale, "MUG", 0, note), control.ErrInvalid},
		"withdraw -1":        {b.ctl.Withdraw(ctx, b.sale, "MUG", -1, note), control.ErrInvalid},
		"restock a billion+": {b.ctl.Restock(ctx, b.sale, "MUG", engine.MaxUnits+1, note), control.ErrInvalid},
		"redefine, nobody":   {b.ctl.Redefine(ctx, b.sale, control.Change{}, control.Note{}), control.ErrNote},
		"redefine, no sku":   {b.ctl.Redefine(ctx, b.sale, control.Change{Prices: map[engine.SKU]int64{"HAT": 1}}, note), control.ErrInvalid},
		"redefine, price 0":  {b.ctl.Redefine(ctx, b.sale, control.Change{Prices: map[engine.SKU]int64{"MUG": 0}}, note), control.ErrInvalid},
	} {
		if !errors.Is(c.err, c.want) {
			t.Errorf("%s: %v, want %v", what, c.err, c.want)
		}
	}
	if _, err := b.ctl.Show(ctx, "no-such-sale"); !errors.Is(err, orders.ErrNoSale) {
		t.Errorf("show: %v", err)
	}
	b.ok(b.ctl.Close(ctx, b.sale, note))
	if err := b.ctl.Restock(ctx, b.sale, "MUG", 1, note); !errors.Is(err, control.ErrIllegal) {
		t.Errorf("restock a closed sale: %v", err)
	}
	if err := b.ctl.Redefine(ctx, b.sale, control.Change{}, note); !errors.Is(err, control.ErrIllegal) {
		t.Errorf("redefine a closed sale: %v", err)
	}
}

func TestRedefine(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.rebuild()
	limit, closes := int64(1), time.Now().Add(2*time.Hour).UTC().Truncate(time.Millisecond)
	b.ok(b.ctl.Redefine(t.Context(), b.sale, control.Change{
		LimitPerBuyer: &limit, Closes: &closes, Prices: map[engine.SKU]int64{"MUG": 1700},
	}, note))
	w, err := b.stock.Watch(t.Context(), b.sale, 0)
	b.ok(err)
	s, _, err := b.Sale(t.Context(), b.sale)
	b.ok(err)
	if w.Version != 2 || w.LimitBuyer != 1 || w.Closes != closes.UnixMilli() || w.Items[0].Price != 1700 || w.Items[0].Available != 10 {
		t.Errorf("Redis: %+v", w)
	}
	if s.Version != 2 || s.LimitPerBuyer != 1 || !s.Closes.Equal(closes) || s.Items[0].Price != 1700 {
		t.Errorf("PostgreSQL: %+v", s)
	}
}

func TestShow(t *testing.T) {
	t.Parallel()
	b := setup(t)
	v, err := b.ctl.Show(t.Context(), b.sale)
	b.ok(err)
	if v.Epoch != 0 || v.Redis != nil || v.RedisProblem != "" || v.State != engine.SaleScheduled {
		t.Errorf("not loaded: %+v", v)
	}
	b.rebuild()
	b.reserve("one")
	v, err = b.ctl.Show(t.Context(), b.sale)
	b.ok(err)
	if v.Redis == nil || v.Redis.Seq != 1 || *v.Items[0].Held != 1 || *v.Items[0].Available != 9 || v.Redis.State != engine.SaleOpen {
		t.Errorf("loaded: %+v", v)
	}
	if _, err := json.Marshal(v); err != nil {
		t.Error(err)
	}
	j := b.journal()
	j.fail["watch"] = errors.New("connection refused")
	if v, err = b.ctl.Show(t.Context(), b.sale); err != nil || v.Redis != nil || v.RedisProblem != "connection refused" {
		t.Errorf("Redis down: %+v, %v", v, err)
	}
}

// A durable sale is made only where Redis can keep its promise.
func TestDurableSaleIsChecked(t *testing.T) {
	t.Parallel()
	b := setup(t)
	unfit := errors.New("appendfsync is everysec")
	var asked []engine.SaleID
	check := func(_ context.Context, sale engine.SaleID) error { asked = append(asked, sale); return unfit }
	ctl := control.New(control.Config{Orders: b.Store, Stock: b.stock, CheckDurable: check})
	def := definition(b.sale + "-2")
	b.ok(ctl.Create(t.Context(), def, note)) // standard mode: nobody asks
	def.ID, def.Mode = b.sale+"-3", engine.ModeDurable
	if err := ctl.Create(t.Context(), def, note); !errors.Is(err, unfit) || len(asked) != 1 || asked[0] != def.ID {
		t.Errorf("asked about %q: %v", asked, err)
	}
	if _, _, err := b.Sale(t.Context(), def.ID); !errors.Is(err, orders.ErrNoSale) {
		t.Errorf("it was created all the same: %v", err)
	}
	unfit = nil
	b.ok(ctl.Create(t.Context(), def, note))
}
