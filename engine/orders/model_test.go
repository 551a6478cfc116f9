package orders_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"pgregory.net/rapid"

	"github.com/doorbuster/doorbuster/engine"
	"github.com/doorbuster/doorbuster/engine/orders"
)

// both is a Store and a Model that are told the same.
type both struct {
	*rapid.T
	b     *bundle
	model *orders.Model
	sales []engine.SaleID // the first is paid at-order, the second at checkout
	epoch map[engine.SaleID]int64
	seen  map[engine.SaleID]*orders.Survey
	seq   int64
	pool  map[engine.SaleID][]engine.Order // the orders that can come, with their last hold
	ctx   context.Context                  //nolint:containedctx // of the test, not of a call
}

var runs atomic.Int64

const expireAll = 1000 // more than there are

func newBoth(rt *rapid.T, b *bundle) *both {
	n := runs.Add(1)
	_, err := b.Expire(context.Background(), expireAll) // what the schedule before left
	b.ok(err)
	m := &both{
		T: rt, b: b, model: orders.NewModel(time.Now), epoch: map[engine.SaleID]int64{}, seen: map[engine.SaleID]*orders.Survey{}, pool: map[engine.SaleID][]engine.Order{},
		sales: []engine.SaleID{engine.SaleID(fmt.Sprint("a", n)), engine.SaleID(fmt.Sprint("c", n))}, ctx: context.Background(),
	}
	for i, id := range m.sales {
		s := engine.Sale{
			ID: id, Mode: engine.ModeStandard, Payment: engine.PayAtOrder, Provider: "instant", Currency: "KRW",
			Opens: time.Unix(1_700_000_000, 0).UTC(), Closes: time.Now().Add(time.Hour).UTC().Truncate(time.Millisecond),
			HoldFor: time.Hour, ReplayWindow: time.Hour,
			Items: []engine.Item{{SKU: "A", Price: 10, Units: rapid.Int64Range(1, 6).Draw(rt, "units")}, {SKU: "B", Price: 7, Units: 4}},
		}
		if i == 1 {
			s.Payment = engine.PayCheckout
		}
		m.same("create", m.model.CreateSale(m.ctx, s, note), b.CreateSale(m.ctx, s, note))
		m.pool[id] = m.orders(id)
		m.cut(id, 0)
		m.unfreeze(id)
	}
	return m
}

// orders makes the orders of a sale: what a key asks for never changes.
func (m *both) orders(sale engine.SaleID) []engine.Order {
	out := make([]engine.Order, 10)
	for i := range out {
		lines := []engine.Line{{SKU: "A", Quantity: 1 + int64(i%2), Price: 10}}
		if i%3 == 0 {
			lines = append(lines, engine.Line{SKU: "B", Quantity: 1, Price: 7})
		}
		total, _ := engine.Total(lines)
		o := engine.Order{AcceptedAt: 1_700_000_000_000 + int64(i), LimitBuyer: int64(i % 4), LimitIdentity: int64(i % 5)}
		o.Order, o.Buyer, o.Lines, o.Total = orderID(fmt.Sprint(sale, i)), engine.BuyerID(fmt.Sprint("buyer", i%4)), lines, total
		o.Body = engine.BodyHash(lines, total, "KRW")
		for j := range i % 3 {
			o.Identities = append(o.Identities, engine.Identity{byte(j), byte(i % 2)})
		}
		out[i] = o
	}
	return out
}

// same fails unless both answered alike: the same error of ours, or none.
func (m *both) same(what string, model, store error) {
	m.Helper()
	if model == nil && store == nil {
		return
	}
	for _, e := range []error{
		orders.ErrNoSale, orders.ErrNoSKU, orders.ErrNoOrder, orders.ErrSaleExists, orders.ErrState, orders.ErrEpochMoved, orders.ErrNotWritable,
	} {
		if errors.Is(model, e) && errors.Is(store, e) {
			return
		}
	}
	m.Fatalf("%s: model says %v, PostgreSQL %v", what, model, store)
}

func equal[T any](m *both, what string, model, store T) {
	m.Helper()
	if !reflect.DeepEqual(model, store) {
		m.Fatalf("%s: model says\n%+v\nPostgreSQL\n%+v", what, model, store)
	}
}

func (m *both) sale() engine.SaleID { return rapid.SampledFrom(m.sales).Draw(m.T, "sale") }

func (m *both) order(sale engine.SaleID) *engine.Order {
	return &m.pool[sale][rapid.IntRange(0, len(m.pool[sale])-1).Draw(m.T, "order")]
}

func (m *both) wait() time.Duration {
	return rapid.SampledFrom([]time.Duration{time.Nanosecond, time.Hour}).Draw(m.T, "wait")
}

// arrival is an order as a message may bring it: new, as it came before, under a
// hold of another epoch, under another hold, under another's number, retaken, or
// refused when it was retaken.
func (m *both) arrival(sale engine.SaleID) orders.Arrival {
	o, epoch := m.order(sale), m.epoch[sale]
	a := orders.Arrival{Epoch: epoch}
	if rapid.IntRange(0, 9).Draw(m.T, "epoch") == 0 {
		a.Epoch--
	}
	way := rapid.SampledFrom([]string{"new", "new", "same", "same", "old", "fork", "retaken", "refused"}).Draw(m.T, "way")
	switch way {
	case "new", "retaken":
		m.seq++
		o.Hold = engine.Hold{Epoch: epoch, Seq: m.seq}
		a.Retaken = way == "retaken"
	case "old":
		m.seq++
		o.Hold = engine.Hold{Epoch: epoch - 1, Seq: m.seq}
	case "fork":
		o.Hold = m.order(sale).Hold
		a.Retaken = rapid.Bool().Draw(m.T, "retaken")
	case "refused":
		a.Refused = true
	}
	if a.Order = *o; a.Hold.Seq == 0 { // never came before
		m.seq++
		o.Hold = engine.Hold{Epoch: epoch, Seq: m.seq}
		a.Order = *o
	}
	return a
}

func (m *both) ingest() {
	sale := m.sale()
	as := make([]orders.Arrival, rapid.IntRange(1, 6).Draw(m.T, "orders"))
	for i := range as {
		as[i] = m.arrival(sale)
	}
	fresh := m.b.Store
	if rapid.Bool().Draw(m.T, "hopeful") {
		fresh = orders.New(m.b.pool) // one that has not met a repeat yet
	}
	model, store := m.model.Ingest, fresh.Ingest
	if rapid.Bool().Draw(m.T, "claim") {
		lease := m.wait()
		model = func(ctx context.Context, sale engine.SaleID, as []orders.Arrival) (orders.IngestReport, error) {
			return m.model.IngestAndClaim(ctx, sale, as, lease)
		}
		store = func(ctx context.Context, sale engine.SaleID, as []orders.Arrival) (orders.IngestReport, error) {
			return fresh.IngestAndClaim(ctx, sale, as, lease)
		}
	}
	want, err1 := model(m.ctx, sale, as)
	got, err2 := store(m.ctx, sale, as)
	m.same("ingest", err1, err2)
	for _, r := range []*orders.IngestReport{&want, &got} {
		slices.Sort(r.Reserved)
		slices.SortFunc(r.Claimed, byOrder)
		slices.SortFunc(r.Stale, func(a, b engine.Order) int {
			return cmp.Or(cmp.Compare(a.Order, b.Order), cmp.Compare(a.Hold.Seq, b.Hold.Seq))
		})
	}
	equal(m, "ingest", fmt.Sprintf("%+v", want), fmt.Sprintf("%+v", got))
}

func byOrder(a, b orders.Payable) int { return cmp.Compare(a.Order, b.Order) }

func (m *both) claim() {
	opt := orders.ClaimOptions{Sale: m.sale(), Lease: time.Hour, Limit: orders.MaxBatch}
	want, err := m.model.Claim(m.ctx, opt)
	m.same("claim", err, nil)
	var got []orders.Payable
	for {
		some, err := m.b.Claim(m.ctx, opt)
		if m.same("claim", nil, err); len(some) == 0 {
			break
		}
		got = append(got, some...)
	}
	for i := range got {
		got[i].Age = 0 // the model has no clock
	}
	slices.SortFunc(got, byOrder)
	equal(m, "claim", fmt.Sprintf("%+v", want), fmt.Sprintf("%+v", got))
}

func (m *both) settle() {
	sale := m.sale()
	ps := make([]orders.Payment, rapid.IntRange(1, 5).Draw(m.T, "payments"))
	for i := range ps {
		ps[i] = orders.Payment{
			Order: m.order(sale).Order, Attempt: rapid.SampledFrom([]int{1, 1, 1, 2}).Draw(m.T, "attempt"),
			Result: rapid.SampledFrom([]orders.PaymentResult{orders.Confirmed, orders.Confirmed, orders.Declined, orders.Voided}).Draw(m.T, "result"),
		}
	}
	var seen [2][]orders.Payable
	also := func(i int) func(context.Context, pgx.Tx, []orders.Payable) error {
		return func(_ context.Context, _ pgx.Tx, c []orders.Payable) error {
			seen[i] = slices.SortedFunc(slices.Values(c), byOrder)
			return nil
		}
	}
	want, err1 := m.model.Settle(m.ctx, sale, ps, also(0))
	got, err2 := m.b.Settle(m.ctx, sale, ps, also(1))
	m.same("settle", err1, err2)
	equal(m, "settle", want, got)
	equal(m, "what the ledger saw", seen[0], seen[1])
}

func (m *both) deferSome() {
	sale, wait := m.sale(), m.wait()
	ids := []engine.OrderID{m.order(sale).Order, m.order(sale).Order}
	m.same("defer", m.model.Defer(m.ctx, sale, ids, wait), m.b.Defer(m.ctx, sale, ids, wait))
}

func (m *both) nextAttempt() {
	sale := m.sale()
	id, attempt := m.order(sale).Order, rapid.IntRange(0, 2).Draw(m.T, "attempt")
	want, err1 := m.model.NextAttempt(m.ctx, sale, id, attempt)
	got, err2 := m.b.NextAttempt(m.ctx, sale, id, attempt)
	m.same("next attempt", err1, err2)
	equal(m, "next attempt", want, got)
}

func (m *both) checkout() {
	sale, wait := m.sale(), m.wait()
	id := m.order(sale).Order
	want, ok1, err1 := m.model.BeginCheckout(m.ctx, sale, id, wait)
	got, ok2, err2 := m.b.BeginCheckout(m.ctx, sale, id, wait)
	m.same("checkout", err1, err2)
	equal(m, "checkout", fmt.Sprint(want, ok1), fmt.Sprint(got, ok2))
}

func (m *both) redefine() {
	def, _, err := m.b.Sale(m.ctx, m.sale())
	m.same("read", nil, err)
	def.HoldFor = rapid.SampledFrom([]time.Duration{0, time.Hour}).Draw(m.T, "hold")
	want, err1 := m.model.Redefine(m.ctx, def, note)
	got, err2 := m.b.Redefine(m.ctx, def, note)
	m.same("redefine", err1, err2)
	equal(m, "redefine", want, got)
}

func (m *both) expire() {
	want, err1 := m.model.Expire(m.ctx, expireAll)
	got, err2 := m.b.Expire(m.ctx, expireAll)
	m.same("expire", err1, err2)
	equal(m, "expire", want, got)
}

func (m *both) cancel() {
	o := m.order(m.sale())
	buyer := o.Buyer
	if rapid.IntRange(0, 9).Draw(m.T, "another buyer") == 0 {
		buyer = "somebody"
	}
	want, err1 := m.model.Cancel(m.ctx, buyer, o.Order)
	got, err2 := m.b.Cancel(m.ctx, buyer, o.Order)
	m.same("cancel", err1, err2)
	equal(m, "cancel", want, got)
}

func (m *both) giveBack() {
	id := m.order(m.sale()).Order
	want, err1 := m.model.Return(m.ctx, id, note)
	got, err2 := m.b.Return(m.ctx, id, note)
	m.same("return", err1, err2)
	equal(m, "return", want, got)
}

func (m *both) supply() {
	sale, sku, n := m.sale(), rapid.SampledFrom([]engine.SKU{"A", "B", "HAT"}).Draw(m.T, "sku"), rapid.Int64Range(0, 3).Draw(m.T, "n")
	var err1, err2 error
	if rapid.Bool().Draw(m.T, "restock") {
		_, err1 = m.model.Restock(m.ctx, sale, sku, n, note)
		_, err2 = m.b.Restock(m.ctx, sale, sku, n, note)
	} else {
		_, err1 = m.model.RequestWithdraw(m.ctx, sale, sku, n, note)
		_, err2 = m.b.RequestWithdraw(m.ctx, sale, sku, n, note)
	}
	m.same("supply", err1, err2)
}

func (m *both) reject() {
	sale, o := m.sale(), *m.order(m.sale())
	if o.Hold.Seq == 0 {
		return
	}
	r := orders.Rejected{Order: o.Order, Bytes: []byte(rapid.SampledFrom([]string{"x", "y"}).Draw(m.T, "bytes")), Cause: "a test"}
	if strings.HasPrefix(string(o.Order), string(orderID(fmt.Sprint(sale, 0))[:0])) && m.owns(sale, o.Order) {
		r.Known = &o
	}
	m.same("reject", m.model.Reject(m.ctx, sale, r), m.b.Reject(m.ctx, sale, r))
}

func (m *both) owns(sale engine.SaleID, id engine.OrderID) bool {
	return slices.ContainsFunc(m.pool[sale], func(o engine.Order) bool { return o.Order == id })
}

// mark marks some of the pending rows, under the present epoch or an old one.
func (m *both) mark() {
	sale := m.sale()
	m.withMoves()
	limit := rapid.IntRange(1, 30).Draw(m.T, "limit")
	want, err1 := m.model.PendingMoves(m.ctx, sale, limit)
	got, err2 := m.b.PendingMoves(m.ctx, sale, limit)
	m.same("pending", err1, err2)
	wantIDs, gotIDs := places(want), places(got)
	equal(m, "pending moves", fmt.Sprintf("%+v", want), fmt.Sprintf("%+v", got))
	epoch := m.epoch[sale] - int64(rapid.SampledFrom([]int{0, 0, 0, 1}).Draw(m.T, "late"))
	var model, store []orders.Moved
	for i := range wantIDs {
		if rapid.Bool().Draw(m.T, "mark") {
			taken := rapid.Int64Range(0, 3).Draw(m.T, "taken")
			model = append(model, orders.Moved{ID: wantIDs[i], Taken: taken})
			store = append(store, orders.Moved{ID: gotIDs[i], Taken: taken})
		}
	}
	n1, moved1, err1 := m.model.MarkMoved(m.ctx, sale, epoch, model)
	n2, moved2, err2 := m.b.MarkMoved(m.ctx, sale, epoch, store)
	m.same("mark", err1, err2)
	equal(m, "mark", fmt.Sprint(n1, moved1), fmt.Sprint(n2, moved2))
}

// withMoves compares which of the schedule's sales have moves pending.
func (m *both) withMoves() {
	want, err1 := m.model.SalesWithMoves(m.ctx)
	got, err2 := m.b.SalesWithMoves(m.ctx)
	m.same("sales with moves", err1, err2)
	got = slices.DeleteFunc(got, func(id engine.SaleID) bool { return !slices.Contains(m.sales, id) }) // of schedules before
	slices.Sort(want)
	slices.Sort(got)
	equal(m, "sales with moves", fmt.Sprint(want), fmt.Sprint(got))
}

// places replaces row ids by the row's place among those pending, and returns
// the ids by place. Orders of a row come in any order.
func places(moves []engine.Move) (ids []int64) {
	for i := range moves {
		if len(ids) == 0 || ids[len(ids)-1] != moves[i].ID {
			ids = append(ids, moves[i].ID)
		}
		moves[i].ID = int64(len(ids))
	}
	slices.SortStableFunc(moves, func(a, b engine.Move) int { return cmp.Or(cmp.Compare(a.ID, b.ID), cmp.Compare(a.Order, b.Order)) })
	return ids
}

func (m *both) freeze() {
	sale := m.sale()
	want, err1 := m.model.Freeze(m.ctx, sale, m.epoch[sale])
	got, err2 := m.b.Freeze(m.ctx, sale, m.epoch[sale])
	m.same("freeze", err1, err2)
	equal(m, "freeze", want, got)
}

func (m *both) rebuild() {
	sale := m.sale()
	m.cut(sale, m.epoch[sale]-int64(rapid.SampledFrom([]int{0, 0, 0, 1}).Draw(m.T, "late")))
	if rapid.IntRange(0, 3).Draw(m.T, "leader lives") > 0 {
		m.unfreeze(sale)
	}
}

func (m *both) unfreeze(sale engine.SaleID) {
	want, err1 := m.model.Unfreeze(m.ctx, sale, m.epoch[sale])
	got, err2 := m.b.Unfreeze(m.ctx, sale, m.epoch[sale])
	m.same("unfreeze", err1, err2)
	equal(m, "unfreeze", want, got)
}

func (m *both) cut(sale engine.SaleID, epoch int64) {
	want, err1 := m.model.Cut(m.ctx, sale, epoch)
	got, err2 := m.b.CutAfter(m.ctx, sale, epoch, m.seen[sale])
	delete(m.seen, sale)
	m.same("cut", err1, err2)
	if err1 == nil {
		m.epoch[sale] = epoch + 1
	}
	for _, img := range []*orders.Image{&want, &got} {
		for i := range img.Live {
			img.Live[i].Finished = min(img.Live[i].Finished, 1)
		}
		for i := range img.Tombstones {
			img.Tombstones[i].Finished = min(img.Tombstones[i].Finished, 1)
		}
		slices.SortFunc(img.Live, func(a, b orders.LiveOrder) int { return cmp.Compare(a.Order.Order, b.Order.Order) })
		slices.SortFunc(img.Tombstones, func(a, b orders.Tombstone) int { return cmp.Compare(a.Order, b.Order) })
	}
	equal(m, "image", fmt.Sprintf("%+v", want), fmt.Sprintf("%+v", got))
}

func (m *both) sweep() {
	sale := m.sale()
	var ask []orders.HoldOf
	for _, o := range m.pool[sale] {
		ask = append(ask, orders.HoldOf{Order: o.Order, Hold: o.Hold})
	}
	want, err1 := m.model.Unknown(m.ctx, sale, ask)
	got, err2 := m.b.Unknown(m.ctx, sale, ask)
	m.same("unknown", err1, err2)
	equal(m, "unknown", fmt.Sprint(want), fmt.Sprint(got))
	f1, err1 := m.model.Fence(m.ctx, sale)
	f2, err2 := m.b.Fence(m.ctx, sale)
	m.same("fence", err1, err2)
	equal(m, "fence", f1, f2)
}

func (m *both) settleSale() {
	sale := m.sale()
	want, err1 := m.model.SettleSale(m.ctx, sale, m.epoch[sale], note, nil)
	got, err2 := m.b.SettleSale(m.ctx, sale, m.epoch[sale], note, nil)
	m.same("settle sale", err1, err2)
	equal(m, "settle sale", want, got)
	n1, err1 := m.model.Backlog(m.ctx, sale)
	n2, err2 := m.b.Backlog(m.ctx, sale)
	m.same("backlog", err1, err2)
	equal(m, "backlog", n1, n2)
}

// dump is Model.Dump of PostgreSQL, for some sales.
const dump = `
WITH s AS (SELECT * FROM sales WHERE id = ANY($1))
SELECT format('sale %s %s epoch %s frozen %s version %s', id, state, epoch, frozen::text, version) FROM s
UNION ALL SELECT format('item %s %s units %s claimed %s', s.id, sku, units, claimed) FROM items JOIN s ON s.no = sale_no
UNION ALL SELECT format('order %s %s %s %s %s attempt %s stray %s returned %s wished %s hold %s.%s limits %s %s body %s total %s %s %s due %s finished %s',
	s.id, o.id, o.buyer, o.state, reason, attempt, stray::text, returned::text, wished::text, hold_epoch, hold_seq,
	o.limit_buyer, o.limit_identity, body, total, lines, identities, (due_at IS NOT NULL)::text, (finished_at IS NOT NULL)::text) FROM orders o JOIN s ON s.no = sale_no
UNION ALL SELECT format('used %s %s %s', s.id, key, used) FROM counters JOIN s ON s.no = sale_no WHERE used <> 0
UNION ALL SELECT format('move %s op %s done %s taken %s hold %s.%s %s %s', s.id, op, done::text, taken, hold_epoch, hold_seq,
	(SELECT coalesce(string_agg(x, ',' ORDER BY x), '') FROM unnest(orders) AS x), lines) FROM moves JOIN s ON s.no = sale_no
UNION ALL SELECT format('rejected %s %s %s', sale, order_id, convert_from(bytes, 'UTF8')) FROM rejected WHERE sale = ANY($1)`

func (m *both) compare() {
	rows, err := m.b.pool.Query(m.ctx, dump, m.sales)
	m.same("dump", nil, err)
	got, err := pgx.CollectRows(rows, pgx.RowTo[string])
	m.same("dump", nil, err)
	slices.Sort(got)
	want := m.model.Dump()
	for _, l := range want {
		if !slices.Contains(got, l) {
			m.Errorf("only the model knows   %s", l)
		}
	}
	for _, l := range got {
		if !slices.Contains(want, l) {
			m.Errorf("only PostgreSQL knows  %s", l)
		}
	}
	if len(got) != len(want) {
		m.Errorf("%d lines in the model, %d in PostgreSQL", len(want), len(got))
	}
}

// Random schedules of everything that can happen to two sales leave PostgreSQL
// and its model equal, and the laws hold.
func TestStoreAndModelAgree(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	rapid.Check(t, func(rt *rapid.T) {
		m := newBoth(rt, b)
		step := func(f func()) func(*rapid.T) { return func(rt *rapid.T) { m.T = rt; f() } }
		rt.Repeat(map[string]func(*rapid.T){
			"ingest1": step(m.ingest), "ingest2": step(m.ingest), "ingest3": step(m.ingest), "claim": step(m.claim), "settle1": step(m.settle),
			"settle2": step(m.settle), "defer": step(m.deferSome), "next attempt": step(m.nextAttempt), "checkout": step(m.checkout),
			"redefine": step(m.redefine), "expire": step(m.expire), "cancel": step(m.cancel), "return": step(m.giveBack), "supply": step(m.supply),
			"reject": step(m.reject), "mark": step(m.mark), "freeze": step(m.freeze), "rebuild": step(m.rebuild), "sweep": step(m.sweep), "state": step(m.state),
			"settle sale": step(m.settleSale), "survey": step(m.survey),
			"": step(m.compare),
		})
	})
	b.laws()
}
