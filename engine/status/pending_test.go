package status_test

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/doorbuster/doorbuster/engine"
	"github.com/doorbuster/doorbuster/engine/backing/backingtest"
	"github.com/doorbuster/doorbuster/engine/orders"
	"github.com/doorbuster/doorbuster/engine/status"
	"github.com/doorbuster/doorbuster/stock"
)

// list asks for a buyer's list and writes it as "accepted reserved …", in order.
func (b *bundle) list(buyer engine.BuyerID) (states []string, r reply) {
	b.t.Helper()
	r = b.ask("GET", "/v1/sales/"+string(b.sale.ID)+"/mine", b.ticket(buyer))
	for i := range r.Orders {
		states = append(states, r.Orders[i].Status)
	}
	return states, r
}

func (b *bundle) lists(what string, buyer engine.BuyerID, want ...string) reply {
	b.t.Helper()
	states, r := b.list(buyer)
	if r.Code != 200 || !r.Complete || !slices.Equal(states, want) {
		b.t.Errorf("%s: %d, %v, complete %v; want %v", what, r.Code, states, r.Complete, want)
	}
	return r
}

func TestMineHasWhatIsNotIngested(t *testing.T) {
	t.Parallel()
	b := setup(t, nil)
	b.accept("bob")
	b.lists("nothing", "ann")
	first := b.accept("ann")
	r := b.lists("one accepted", "ann", "accepted")
	if o := r.Orders[0]; o.Order != first.Basket.Order || o.Sale != b.sale.ID || o.Hold != first.Hold.String() || o.AcceptedAt == "" ||
		o.Total != (engine.Money{Amount: 1500, Currency: "KRW"}) || len(o.Lines) != 1 || o.Lines[0] != (status.Line{SKU: "MUG", Quantity: 1, Price: 1500}) {
		t.Errorf("%+v", o)
	}
	b.ingest(first)
	b.lists("ingested", "ann", "reserved")
	gone := b.reserve("ann") // cancelled in PostgreSQL, not yet released in Redis
	b.pay(gone)
	b.settle(gone, orders.Declined)
	time.Sleep(time.Until(time.UnixMilli(gone.AcceptedAt + 2))) // so that newest first is one order only
	last := b.accept("ann")
	r = b.lists("one of each", "ann", "accepted", "cancelled", "reserved")
	if r.Orders[0].Order != last.Basket.Order {
		t.Errorf("newest: %+v", r.Orders[0])
	}
	b.lists("bob", "bob", "accepted")
}

// watchedSlot is a Redis that counts, and lets a test stand in its way.
type watchedSlot struct {
	status.Records
	searches atomic.Int64
	gate     func(ctx context.Context) error // before each slice
}

func (w *watchedSlot) HeldOf(ctx context.Context, sale engine.SaleID, at stock.Slice, wanted func(engine.BuyerID) bool) ([]engine.Record, uint64, error) {
	w.searches.Add(1)
	if w.gate != nil {
		if err := w.gate(ctx); err != nil {
			return nil, 0, err
		}
	}
	return w.Records.HeldOf(ctx, sale, at, wanted)
}

func TestMineSearchesOnlyWhatPostgreSQLLacks(t *testing.T) {
	t.Parallel()
	slot := &watchedSlot{}
	b := setup(t, func(c *status.Config) { slot.Records, c.Stock = c.Stock, slot })
	b.reserve("ann")
	b.lists("all ingested", "ann", "reserved")
	b.lists("nothing", "bob")
	if n := slot.searches.Load(); n != 0 {
		t.Errorf("%d searches, though PostgreSQL had everything", n)
	}
}

// An order that is ingested while it is searched for is shown as PostgreSQL has it.
func TestMineAsksPostgreSQLAgain(t *testing.T) {
	t.Parallel()
	slot := &watchedSlot{}
	b := setup(t, func(c *status.Config) { slot.Records, c.Stock = c.Stock, slot })
	o := b.accept("ann")
	slot.gate = func(context.Context) error { b.ingest(o); return nil }
	b.lists("ingested meanwhile", "ann", "reserved")
}

// end lets an order end and tells Redis so.
func (b *bundle) end(o engine.Order, result orders.PaymentResult) {
	b.t.Helper()
	b.pay(o)
	b.settle(o, result)
	moves, err := b.PendingMoves(b.t.Context(), b.sale.ID, 10)
	b.ok(err)
	w, err := b.stock.Watch(b.t.Context(), b.sale.ID, 0)
	b.ok(err)
	_, err = b.stock.Apply(b.t.Context(), b.sale.ID, w.Grip, moves)
	b.ok(err)
}

// meanwhile are a PostgreSQL and a Redis that let something happen after they answered
// the first question of a kind.
type meanwhile struct {
	books
	status.Records
	when map[string]func()
}

func (m *meanwhile) happen(when string) {
	if do := m.when[when]; do != nil {
		delete(m.when, when)
		do()
	}
}

func (m *meanwhile) OrdersOf(ctx context.Context, sale engine.SaleID, buyer engine.BuyerID, limit int) ([]orders.View, error) {
	defer m.happen("books")
	return m.books.OrdersOf(ctx, sale, buyer, limit)
}

func (m *meanwhile) Standing(ctx context.Context, sale engine.SaleID, buyer engine.BuyerID) (stock.Standing, error) {
	defer m.happen("standing")
	return m.Records.Standing(ctx, sale, buyer)
}

func (m *meanwhile) HeldOf(ctx context.Context, sale engine.SaleID, at stock.Slice, wanted func(engine.BuyerID) bool) ([]engine.Record, uint64, error) {
	m.happen("search") // before it
	return m.Records.HeldOf(ctx, sale, at, wanted)
}

// Orders are accepted, ingested and end while a list is made: one that was answered 202
// before is in it, whatever the counter of the buyer says meanwhile.
func TestMineWhileOrdersMove(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		when string
		do   func(b *bundle, ingested, accepted engine.Order)
		want []string // sorted
	}{
		"another ends, PostgreSQL just read": {
			"books", func(b *bundle, ingested, _ engine.Order) { b.end(ingested, orders.Declined) },
			[]string{"accepted", "cancelled"},
		},
		"another ends, Redis just asked": {
			"standing", func(b *bundle, ingested, _ engine.Order) { b.end(ingested, orders.Declined) },
			[]string{"accepted", "cancelled"},
		},
		"a new one is quicker": {
			"standing", func(b *bundle, _, _ engine.Order) { b.reserve("ann") },
			[]string{"accepted", "reserved", "reserved"},
		},
		"it is ingested and ends, PostgreSQL just read": {
			"books", func(b *bundle, _, accepted engine.Order) { b.ingest(accepted); b.end(accepted, orders.Declined) },
			[]string{"cancelled", "reserved"},
		},
		"it is ingested and ends before the search": {
			"search", func(b *bundle, _, accepted engine.Order) { b.ingest(accepted); b.end(accepted, orders.Confirmed) },
			[]string{"confirmed", "reserved"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := &meanwhile{when: map[string]func(){}}
			b := setup(t, func(c *status.Config) { m.books, m.Records, c.Orders, c.Stock = c.Orders, c.Stock, m, m })
			ingested, accepted := b.reserve("ann"), b.accept("ann")
			m.when[c.when] = func() { c.do(b, ingested, accepted) }
			states, r := b.list("ann")
			slices.Sort(states)
			if r.Code != 200 || !r.Complete || !slices.Equal(states, c.want) {
				t.Errorf("%d, %v, complete %v; want %v", r.Code, states, r.Complete, c.want)
			}
			if len(m.when) != 0 && c.when != "search" {
				t.Error("it never happened")
			}
		})
	}
}

// However many ask while ingest is behind, one pass at a time goes over the sale's
// records, for all of them.
func TestMineSharesItsSearches(t *testing.T) {
	t.Parallel()
	const buyers = 9
	began, goOn := make(chan struct{}, 100), make(chan struct{})
	slot := &watchedSlot{gate: func(ctx context.Context) error {
		began <- struct{}{}
		select {
		case <-goOn:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}}
	b := setup(t, func(c *status.Config) { slot.Records, c.Stock = c.Stock, slot })
	for i := range buyers {
		b.accept(engine.BuyerID("buyer" + strconv.Itoa(i)))
	}
	var wg sync.WaitGroup
	ask := func(i int) {
		buyer := engine.BuyerID("buyer" + strconv.Itoa(i))
		wg.Go(func() { b.lists(string(buyer), buyer, "accepted") })
	}
	ask(0)
	<-began // the first pass reads: whoever comes now belongs to the second
	for i := 1; i < buyers; i++ {
		ask(i)
	}
	backingtest.Eventually(t, "all wait", func() bool { return b.status.Searching() == buyers+1 }) // and the pass that is under way
	close(goOn)
	wg.Wait()
	if n := slot.searches.Load(); n != 2 {
		t.Errorf("%d searches for %d buyers, want 2", n, buyers)
	}
	backingtest.Eventually(t, "nothing is left behind", func() bool { return b.status.Searching() == 0 })
}

// An order of the epoch before stands in that epoch's keys until it is taken again.
func TestMineLooksAtTheEpochBefore(t *testing.T) {
	t.Parallel()
	b := setup(t, nil)
	o := b.accept("ann")
	img, err := b.Cut(t.Context(), b.sale.ID, 1)
	b.ok(err)
	server, err := b.stock.Server(t.Context(), b.sale.ID)
	b.ok(err)
	inc, err := b.Incarnation(t.Context(), server.RunID+string(b.sale.ID))
	b.ok(err)
	b.ok(b.stock.Build(t.Context(), stock.Image{Sale: img.Sale, Epoch: img.Sale.Epoch, Incarnation: inc}))
	if img.Sale.Epoch != o.Hold.Epoch+1 {
		t.Fatalf("epoch %d", img.Sale.Epoch)
	}
	states, r := b.list("ann")
	if !slices.Equal(states, []string{"accepted"}) || r.Orders[0].Hold != o.Hold.String() {
		t.Errorf("the rebuilt sale: %v, %+v", states, r.Orders)
	}
}

// Redis came back empty, and an order that was answered 202 waits in the queue, or
// parked: nobody can show it, and the list says that it may lack one.
func TestMineMayLackWhatRedisLost(t *testing.T) {
	t.Parallel()
	b := setup(t, nil)
	lacks := func(what string, want bool) {
		t.Helper()
		if states, r := b.list("ann"); r.Code != 200 || r.Complete == want || len(states) != 0 {
			t.Errorf("%s: %d, %v, complete %v", what, r.Code, states, r.Complete)
		}
	}
	lacks("nothing bought", false)
	img, err := b.Cut(t.Context(), b.sale.ID, 1)
	b.ok(err)
	b.ok(b.stock.Build(t.Context(), stock.Image{Sale: img.Sale, Epoch: img.Sale.Epoch, Incarnation: 1}))
	lacks("just rebuilt", true)
	_, err = b.pool.Exec(t.Context(), `UPDATE sales SET cut_at = now() - interval '1 hour'`)
	b.ok(err)
	lacks("long after it", false)
	o := engine.Order{Basket: engine.Basket{Order: engine.OrderID(strings.Repeat("a", engine.OrderIDLen)), Buyer: "ann"}, Hold: engine.Hold{Epoch: 1, Seq: 1}}
	b.ok(b.Park(t.Context(), b.sale.ID, []engine.Order{o}))
	lacks("parked", true)
}

// A list that may lack an order says so, at once.
func TestMineSaysWhenItMayLackOne(t *testing.T) {
	t.Parallel()
	var down atomic.Bool
	slot := &watchedSlot{gate: func(context.Context) error {
		if down.Load() {
			return errDown
		}
		return nil
	}}
	b := setup(t, func(c *status.Config) { slot.Records, c.Stock = c.Stock, slot })
	b.reserve("ann")
	b.accept("ann")
	down.Store(true)
	if states, r := b.list("ann"); r.Code != 200 || r.Complete || !slices.Equal(states, []string{"reserved"}) {
		t.Errorf("Redis down: %d %v, complete %v", r.Code, states, r.Complete)
	}
	down.Store(false)
	b.lists("Redis back", "ann", "accepted", "reserved")
}

// slowSlot is a Redis that takes every question and answers none.
type slowSlot struct {
	status.Records
	stuck atomic.Bool
	asked atomic.Int64
	most  atomic.Int64
}

func (s *slowSlot) wait(ctx context.Context) error {
	if !s.stuck.Load() {
		return nil
	}
	s.most.Store(max(s.most.Load(), s.asked.Add(1)))
	defer s.asked.Add(-1)
	<-ctx.Done()
	return fmt.Errorf("redis: %w", ctx.Err())
}

func (s *slowSlot) Record(ctx context.Context, sale engine.SaleID, id engine.OrderID) (engine.Record, bool, error) {
	if err := s.wait(ctx); err != nil {
		return engine.Record{}, false, err
	}
	return s.Records.Record(ctx, sale, id)
}

func (s *slowSlot) Standing(ctx context.Context, sale engine.SaleID, buyer engine.BuyerID) (stock.Standing, error) {
	if err := s.wait(ctx); err != nil {
		return stock.Standing{}, err
	}
	return s.Records.Standing(ctx, sale, buyer)
}

// A Redis that is slow, not dead, keeps no more questions than may be, and no buyer
// longer than an answer may take.
func TestRedisSlow(t *testing.T) {
	t.Parallel()
	const most = 2
	slot := &slowSlot{}
	b := setup(t, func(c *status.Config) { slot.Records, c.Stock, c.MaxQueries = c.Stock, slot, most })
	b.reserve("ann")
	held := b.accept("ann")
	slot.stuck.Store(true)
	began := time.Now()
	var wg sync.WaitGroup
	for range 10 {
		wg.Go(func() {
			if code, h := b.head("GET", "/v1/orders/"+string(held.Basket.Order), b.ticket("ann")); code != 503 || h.Get("Retry-After") == "" {
				t.Errorf("order: %d", code)
			}
		})
		wg.Go(func() {
			if states, r := b.list("ann"); r.Code != 200 || r.Complete || !slices.Equal(states, []string{"reserved"}) {
				t.Errorf("list: %d %v, complete %v", r.Code, states, r.Complete)
			}
		})
	}
	wg.Wait()
	if took := time.Since(began); took > status.AnswerIn+time.Second {
		t.Errorf("the last answer took %v", took)
	}
	if n := slot.most.Load(); n > most {
		t.Errorf("%d questions at once, want at most %d", n, most)
	}
	slot.stuck.Store(false)
	if r := b.ask("GET", "/v1/orders/"+string(held.Basket.Order), b.ticket("ann")); r.Code != 200 || r.Status != "accepted" {
		t.Errorf("afterwards: %+v", r)
	}
}

// slowBooks is a PostgreSQL that takes every question and answers none.
type slowBooks struct{ books }

func (slowBooks) Order(ctx context.Context, _ engine.OrderID) (orders.View, error) {
	<-ctx.Done()
	return orders.View{}, ctx.Err()
}

func (slowBooks) OrdersOf(ctx context.Context, _ engine.SaleID, _ engine.BuyerID, _ int) ([]orders.View, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

func TestPostgreSQLSlow(t *testing.T) {
	t.Parallel()
	b := setup(t, func(c *status.Config) { c.Orders, c.MaxQueries = slowBooks{c.Orders}, 2 })
	o := b.accept("ann")
	began := time.Now()
	var wg sync.WaitGroup
	for range 10 {
		for _, path := range []string{"/v1/orders/" + string(o.Basket.Order), "/v1/sales/" + string(b.sale.ID) + "/mine"} {
			wg.Go(func() {
				if code, h := b.head("GET", path, b.ticket("ann")); code != 503 || h.Get("Retry-After") == "" {
					t.Errorf("%s: %d", path, code)
				}
			})
		}
	}
	wg.Wait()
	if took := time.Since(began); took > status.AnswerIn+time.Second {
		t.Errorf("the last answer took %v", took)
	}
}

// Those who wait for a turn hold connections of the listener: beyond a bound they
// are sent away at once.
func TestWaitingIsBounded(t *testing.T) {
	t.Parallel()
	turn := status.NewTurns(1)
	back, ok := turn()
	if !ok {
		t.Fatal("the first got no turn")
	}
	var wg sync.WaitGroup
	var late, atOnce atomic.Int64
	began := time.Now()
	for range status.MaxWaiting + 100 {
		wg.Go(func() {
			if _, ok := turn(); ok {
				t.Error("two turns")
			}
			if time.Since(began) < status.QueryWait {
				atOnce.Add(1)
			} else {
				late.Add(1)
			}
		})
	}
	wg.Wait()
	if atOnce.Load() != 100 || late.Load() != status.MaxWaiting {
		t.Errorf("%d refused at once, %d waited", atOnce.Load(), late.Load())
	}
	back()
	if _, ok := turn(); !ok {
		t.Error("no turn though it was given back")
	}
}
