package stock

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/doorbuster/doorbuster/engine"
)

// Model does in Go what Store does in Redis: the same methods, the same results,
// the same state. It is written from the design and shares no line with the
// scripts; random schedules in the tests leave both with the same state. Safe for
// use by many goroutines. Contexts are not looked at.
type Model struct {
	// Now is Redis' TIME in Unix milliseconds. It must be set.
	Now func() int64

	mu     sync.Mutex
	starts int // of servers
	handed int // from one server to the other
	modelServer
	standby modelServer
	sales   map[engine.SaleID]*modelSale
}

type modelSale struct {
	inUse  int64
	epochs map[int64]*modelEpoch
}

// modelEpoch are the keys of one epoch.
type modelEpoch struct {
	watch      Watch // all of it but Items, Now and Epoch
	items      map[engine.SKU]*Item
	records    map[engine.OrderID]*engine.Record // nobody changes one: pictures share them
	buyers     map[engine.BuyerID]Counter
	identities map[engine.Identity]int64
	outbox     map[int64]engine.Envelope
	rows       map[string]int64
}

// NewModel returns a Redis without any sale.
func NewModel(now func() int64) *Model {
	return &Model{
		Now: now, starts: 1, modelServer: modelServer{loaded: map[string]int64{}}, standby: modelServer{run: 1, loaded: map[string]int64{}},
		sales: map[engine.SaleID]*modelSale{},
	}
}

// Restart is a restart of Redis that lost no data: the scripts are gone, and the
// run id is another.
func (m *Model) Restart() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.starts++
	m.run = m.starts
	clear(m.loaded)
}

// Lose is a restart of Redis that lost everything.
func (m *Model) Lose() {
	m.Restart()
	m.mu.Lock()
	defer m.mu.Unlock()
	clear(m.sales)
}

// Watch is Store.Watch.
func (m *Model) Watch(_ context.Context, sale engine.SaleID, _ int64) (Watch, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.sales[sale]
	if s == nil || s.inUse == 0 {
		return Watch{}, fmt.Errorf("watch sale %s: %w", sale, ErrNoSale)
	}
	e := s.epochs[s.inUse]
	if e == nil {
		return Watch{}, fmt.Errorf("watch sale %s: %w", sale, ErrFenced)
	}
	w := e.watch
	w.Epoch, w.Now = s.inUse, m.Now()
	w.Items = make([]Item, 0, len(e.items))
	for _, it := range e.items {
		w.Items = append(w.Items, *it)
	}
	slices.SortFunc(w.Items, func(a, b Item) int { return strings.Compare(string(a.SKU), string(b.SKU)) })
	return w, nil
}

// enter is what every script does first.
func (m *Model) enter(sale engine.SaleID, g Grip, op Op) (*modelEpoch, error) {
	incarnation, ok := m.loaded[g.SHA[op]]
	if !ok {
		return nil, fmt.Errorf("%w: no script", ErrFenced)
	}
	s := m.sales[sale]
	if s == nil || s.epochs[g.Epoch] == nil {
		return nil, fmt.Errorf("%w: no state", ErrFenced)
	}
	e := s.epochs[g.Epoch]
	if e.watch.Frozen || e.watch.Incarnation != incarnation {
		return nil, fmt.Errorf("%w: frozen, or built under another incarnation", ErrFenced)
	}
	return e, nil
}

// Reserve is Store.Reserve.
func (m *Model) Reserve(_ context.Context, sale engine.SaleID, g Grip, baskets []engine.Basket, d *Decision) error {
	return m.reserve(&question{sale: sale, grip: g, baskets: baskets}, d)
}

// Retake is Store.Retake.
func (m *Model) Retake(_ context.Context, sale engine.SaleID, g Grip, baskets []engine.Basket, d *Decision) error {
	return m.reserve(&question{sale: sale, grip: g, baskets: baskets, mode: modeRetake}, d)
}

func (m *Model) reserve(q *question, d *Decision) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	d.At, d.First, d.Verdicts = 0, 0, d.Verdicts[:0]
	if err := checkGroup(q.baskets); err != nil {
		return err
	}
	e, err := m.enter(q.sale, q.grip, OpReserve)
	if err != nil {
		return err
	}
	if e.watch.Version != q.grip.Version {
		return ErrStale
	}
	d.At = m.Now()
	first := e.watch.Seq + 1
	var made []engine.Order
	for i := range q.baskets {
		b := &q.baskets[i]
		if r, ok := e.records[b.Order]; ok {
			d.Verdicts = append(d.Verdicts, e.replay(*r, b, first))
			continue
		}
		v := e.judge(b, d.At, q)
		if v.Outcome == engine.Accepted {
			v.Hold = engine.Hold{Epoch: q.grip.Epoch, Seq: e.watch.Seq + 1}
			made = append(made, e.take(b, v, first, d.At))
		}
		d.Verdicts = append(d.Verdicts, v)
	}
	if len(made) > 0 {
		d.First = first
		e.outbox[first] = engine.Envelope{Sale: q.sale, Orders: made}
	}
	return nil
}

// replay answers a basket whose order id has a record.
func (e *modelEpoch) replay(r engine.Record, b *engine.Basket, first int64) Verdict {
	v := Verdict{Outcome: engine.Outcome(r.State), Record: r, Hold: r.Order.Hold}
	v.LimitBuyer, v.LimitIdentity = r.Order.LimitBuyer, r.Order.LimitIdentity
	_, waiting := e.outbox[r.Entry]
	if r.Order.Body != b.Body {
		v.Outcome = engine.Mismatch
	} else if r.State == engine.RecordHeld {
		v.Unpublished = waiting || r.Entry == first
	}
	return v
}

// judge decides about a basket that is new. It changes nothing.
func (e *modelEpoch) judge(b *engine.Basket, now int64, q *question) Verdict {
	w, retake := &e.watch, q.mode == modeRetake
	if b.ReplayOnly {
		return Verdict{Outcome: engine.NoReplay}
	}
	if !retake {
		switch {
		case w.State == engine.SaleClosed:
			return Verdict{Outcome: engine.Closed}
		case w.State == engine.SalePaused:
			return Verdict{Outcome: engine.Paused}
		case now < w.Opens:
			return Verdict{Outcome: engine.NotOpen}
		case now >= w.Closes:
			return Verdict{Outcome: engine.Closed}
		}
	}
	var total int64
	for _, l := range b.Lines {
		if e.items[l.SKU] == nil {
			return Verdict{Outcome: engine.UnknownSKU}
		}
		total += l.Quantity * e.items[l.SKU].Price
	}
	if !retake && total != b.Total {
		return Verdict{Outcome: engine.PriceChanged}
	}
	limit, identity := q.limits(b, w.LimitBuyer, w.LimitIdentity)
	n := engine.Units(b.Lines)
	if c := e.buyers[b.Buyer]; c.Orders >= engine.MaxOrdersPerBuyer || (limit > 0 && c.Units+n > limit) {
		return Verdict{Outcome: engine.OverLimit, LimitBuyer: limit, LimitIdentity: identity}
	}
	for _, id := range b.Identities {
		if identity > 0 && e.identities[id]+n > identity {
			return Verdict{Outcome: engine.OverIdentity, LimitBuyer: limit, LimitIdentity: identity}
		}
	}
	short, held := 0, 0
	for _, l := range b.Lines {
		if it := e.items[l.SKU]; it.Available < l.Quantity {
			short++
			held += int(min(1, it.Held))
		}
	}
	if short > 0 {
		return Verdict{Outcome: engine.SoldOut, MayReturn: held == short}
	}
	return Verdict{Outcome: engine.Accepted, LimitBuyer: limit, LimitIdentity: identity}
}

// take takes the units of an accepted basket.
func (e *modelEpoch) take(b *engine.Basket, v Verdict, first, now int64) engine.Order {
	e.watch.Seq++
	o := engine.Order{Basket: *b, Hold: v.Hold, AcceptedAt: now, LimitBuyer: v.LimitBuyer, LimitIdentity: v.LimitIdentity}
	o.Max, o.MaxIdentity = 0, 0 // are not written down: the limits carry them
	if len(o.Identities) == 0 {
		o.Identities = nil
	}
	for _, l := range b.Lines {
		it := e.items[l.SKU]
		it.Available -= l.Quantity
		it.Held += l.Quantity
	}
	e.count(b.Buyer, b.Identities, engine.Units(b.Lines), 1)
	e.records[b.Order] = &engine.Record{State: engine.RecordHeld, Entry: first, Order: o}
	return o
}

// count changes the counters; one that reaches zero goes.
func (e *modelEpoch) count(buyer engine.BuyerID, ids []engine.Identity, n, orders int64) {
	c := e.buyers[buyer]
	c.Units, c.Orders = c.Units+n, c.Orders+orders
	if e.buyers[buyer] = c; c == (Counter{}) {
		delete(e.buyers, buyer)
	}
	for _, id := range ids {
		if e.identities[id] += n; e.identities[id] == 0 {
			delete(e.identities, id)
		}
	}
}

// State renders a sale's keys as Redis holds them: key → field → value. An entry
// of the outbox is a field of its key.
func (m *Model) State(sale engine.SaleID) map[string]map[string]string {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := map[string]map[string]string{}
	set := func(key, field, value string) {
		if out[key] == nil {
			out[key] = map[string]string{}
		}
		out[key][field] = value
	}
	s := m.sales[sale]
	if s == nil {
		return out
	}
	if s.inUse != 0 {
		set(pointerKey(sale), fieldEpoch, decimal(s.inUse))
	}
	for epoch, e := range s.epochs {
		set(pointerKey(sale), fieldHas+decimal(epoch), "1")
		k := keysOf(sale, epoch)
		for field, value := range e.fields() {
			set(k.state, field, value)
		}
		for id, r := range e.records {
			set(k.records, string(id), string(engine.AppendRecord(nil, r)))
		}
		for buyer, c := range e.buyers {
			set(k.buyers, string(buyer), decimal(perUnit*c.Units+perOrder*c.Orders))
		}
		for id, n := range e.identities {
			set(k.identities, string(id[:]), decimal(n))
		}
		for first, env := range e.outbox {
			set(k.outbox, entryID(first), string(engine.AppendEnvelope(nil, &env)))
		}
		for row, n := range e.rows {
			set(k.rows, row, decimal(n))
		}
	}
	return out
}

// fields renders the state hash.
func (e *modelEpoch) fields() map[string]string {
	w := &e.watch
	f := map[string]string{
		fieldState: slotState(w.State), fieldCurrency: w.Currency, fieldSHA: w.SHA.String(),
		fieldInc: decimal(w.Incarnation), fieldVersion: decimal(w.Version), fieldOpens: decimal(w.Opens),
		fieldCloses: decimal(w.Closes), fieldLimit: decimal(w.LimitBuyer), fieldIdentity: decimal(w.LimitIdentity),
		fieldKey: decimal(w.KeyNumber), fieldSeq: decimal(w.Seq), fieldHeartbeat: decimal(w.Heartbeat), fieldLag: decimal(w.Lag),
	}
	if w.Retired {
		f[fieldRetired] = "1"
	}
	if w.Turn > 0 {
		f[fieldTurn] = decimal(w.Turn)
	}
	if w.Frozen {
		f[fieldState] = stateFrozen
	}
	for sku, it := range e.items {
		f[available+string(sku)], f[held+string(sku)] = decimal(it.Available), decimal(it.Held)
		f[sold+string(sku)], f[units+string(sku)] = decimal(it.Sold), decimal(it.Units)
		f[price+string(sku)] = decimal(it.Price)
	}
	return f
}

func decimal(n int64) string { return strconv.FormatInt(n, 10) }
