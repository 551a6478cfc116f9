package orders

import (
	"cmp"
	"context"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/doorbuster/doorbuster/engine"
)

// Model is this package without PostgreSQL: the same methods, each one a
// transaction that nothing interrupts, on maps. A test drives it and a Store
// with the same random schedules and compares all they know (Dump); that is what
// lets a simulator use it in a Store's place. It shares no code with the Store
// that decides anything. For one goroutine; ctx is not looked at.
type Model struct {
	Now func() time.Time // PostgreSQL's clock

	sales    map[engine.SaleID]*modelSale
	orders   map[engine.OrderID]*View
	strays   map[engine.OrderID]bool
	owners   map[modelSeq]engine.OrderID
	used     map[modelKey]int64
	moves    []*modelMove
	rejected map[string]Rejected
	servers  map[string]int64
	firsts   map[string]int64 // of servers
	numbers  int64
	markers  map[string]bool
}

type modelSale struct {
	engine.Sale
	frozen  bool
	since   time.Time // when it was opened or paused last; of other states it is not known here
	claimed map[engine.SKU]int64
}

type modelSeq struct {
	sale engine.SaleID
	hold engine.Hold
}

type modelKey struct {
	sale engine.SaleID
	key  string
}

type modelMove struct {
	sale   engine.SaleID
	op     int16
	done   bool
	taken  int64
	orders []engine.OrderID
	hold   engine.Hold
	lines  []engine.Line
}

// NewModel returns a model that knows nothing yet.
func NewModel(now func() time.Time) *Model {
	return &Model{
		Now: now, sales: map[engine.SaleID]*modelSale{}, orders: map[engine.OrderID]*View{}, strays: map[engine.OrderID]bool{},
		owners: map[modelSeq]engine.OrderID{}, used: map[modelKey]int64{}, rejected: map[string]Rejected{}, servers: map[string]int64{}, firsts: map[string]int64{},
		markers: map[string]bool{},
	}
}

func (m *Model) sale(id engine.SaleID) (*modelSale, error) {
	if s := m.sales[id]; s != nil {
		return s, nil
	}
	return nil, fmt.Errorf("sale %s: %w", id, ErrNoSale)
}

// CreateSale is Store.CreateSale.
func (m *Model) CreateSale(_ context.Context, sale engine.Sale, _ Note) error {
	if m.sales[sale.ID] != nil {
		return ErrSaleExists
	}
	sale.State, sale.Epoch, sale.Version = engine.SaleScheduled, 0, max(sale.Version, 1)
	sale.Items = slices.Clone(sale.Items)
	m.sales[sale.ID] = &modelSale{Sale: sale, claimed: map[engine.SKU]int64{}}
	return nil
}

// SetSaleState is Store.SetSaleState.
func (m *Model) SetSaleState(_ context.Context, id engine.SaleID, to engine.SaleState, _ Note) error {
	s, err := m.sale(id)
	switch {
	case err != nil:
		return err
	case s.State == to && to != engine.SalePaused:
		return nil
	case s.State != to && !s.State.CanBecome(to):
		return ErrState
	}
	s.State, s.since = to, m.Now()
	return nil
}

// ResumeSale is Store.ResumeSale.
func (m *Model) ResumeSale(ctx context.Context, id engine.SaleID, since time.Time, note Note) error {
	s, err := m.sale(id)
	if err != nil || s.State == engine.SaleOpen {
		return err
	}
	if s.State != engine.SalePaused || !s.since.Equal(since) {
		return ErrState
	}
	return m.SetSaleState(ctx, id, engine.SaleOpen, note)
}

// Redefine is Store.Redefine.
func (m *Model) Redefine(_ context.Context, def engine.Sale, _ Note) (int64, error) {
	s, err := m.sale(def.ID)
	if err != nil {
		return 0, err
	}
	if s.State == engine.SaleClosed || s.State == engine.SaleSettled || s.Version != def.Version {
		return 0, ErrState
	}
	s.Name, s.Opens, s.Closes, s.LimitPerBuyer, s.LimitPerIdentity = def.Name, def.Opens, def.Closes, def.LimitPerBuyer, def.LimitPerIdentity
	s.HoldFor, s.ReplayWindow, s.Version = def.HoldFor, def.ReplayWindow, s.Version+1
	for _, it := range def.Items {
		if have, ok := s.Item(it.SKU); ok {
			have.Name, have.Price = it.Name, it.Price
			continue
		}
		it.Units = 0
		s.Items = append(s.Items, it)
	}
	return s.Version, nil
}

func (m *Model) supply(id engine.SaleID, what supply) (*engine.Item, error) {
	if what.n < 1 || what.n > engine.MaxUnits {
		return nil, ErrState
	}
	s, err := m.sale(id)
	if err != nil {
		return nil, err
	}
	it, ok := s.Item(what.sku)
	if !ok {
		return nil, ErrNoSKU
	}
	if what.op == engine.Restock && it.Units+what.n > engine.MaxUnits {
		return nil, ErrState
	}
	m.write(&modelMove{sale: id, op: int16(what.op), lines: []engine.Line{{SKU: what.sku, Quantity: what.n}}})
	return it, nil
}

// Restock is Store.Restock.
func (m *Model) Restock(_ context.Context, sale engine.SaleID, sku engine.SKU, n int64, _ Note) (int64, error) {
	it, err := m.supply(sale, supply{engine.Restock, sku, n})
	if err != nil {
		return 0, err
	}
	it.Units += n
	return int64(len(m.moves)), nil
}

// RequestWithdraw is Store.RequestWithdraw.
func (m *Model) RequestWithdraw(_ context.Context, sale engine.SaleID, sku engine.SKU, n int64, _ Note) (int64, error) {
	if _, err := m.supply(sale, supply{engine.Withdraw, sku, n}); err != nil {
		return 0, err
	}
	return int64(len(m.moves)), nil
}

func (m *Model) write(row *modelMove) {
	m.moves = append(m.moves, row)
	m.wake(row.sale)
}

// wake makes a settled sale closed: Redis has something to follow again.
func (m *Model) wake(sale engine.SaleID) {
	if s := m.sales[sale]; s != nil && s.State == engine.SaleSettled {
		s.State = engine.SaleClosed
	}
}

// count adds the order's units to what is claimed and used, or takes them off.
func (m *Model) count(v *View, sign int64) {
	for _, l := range v.Lines {
		m.sales[v.Sale].claimed[l.SKU] += sign * l.Quantity
	}
	for _, key := range modelKeys(&v.Order) {
		m.used[modelKey{v.Sale, key}] += sign * engine.Units(v.Lines)
	}
}

func modelKeys(o *engine.Order) []string {
	keys := []string{"b:" + string(o.Buyer)}
	for _, id := range o.Identities {
		keys = append(keys, "i:"+hex.EncodeToString(id[:]))
	}
	return keys
}

// end finishes an order; the caller writes its row.
func (m *Model) end(v *View, state engine.OrderState, why engine.Reason) {
	v.State, v.Reason, v.Finished, v.Due = state, why, m.Now(), time.Time{}
	if state == engine.Cancelled {
		m.count(v, -1)
	}
}

func (m *Model) tell(sale engine.SaleID, ended []engine.OrderID) {
	for group := range slices.Chunk(ended, engine.MaxGroup) {
		m.write(&modelMove{sale: sale, orders: group})
	}
}

// Claim is Store.Claim, for one sale.
func (m *Model) Claim(_ context.Context, opt ClaimOptions) ([]Payable, error) {
	s, err := m.sale(opt.Sale)
	if err != nil {
		return nil, err
	}
	var out []Payable
	var due []*View
	now := m.Now()
	for _, v := range m.orders {
		open := v.State == engine.Paying || (v.State == engine.Reserved && s.Payment != engine.PayCheckout)
		if v.Sale == opt.Sale && open && !v.Due.After(now) {
			due = append(due, v)
		}
	}
	slices.SortFunc(due, byOrderID)
	for _, v := range due[:min(len(due), cmp.Or(opt.Limit, engine.MaxGroup))] {
		p := m.payable(v)
		p.Again, p.CancelWished, p.Attempt = v.State == engine.Paying, v.CancelWished, max(v.Attempt, 1)
		v.State, v.Attempt, v.Due = engine.Paying, p.Attempt, m.Now().Add(cmp.Or(opt.Lease, DefaultLease))
		out = append(out, p)
	}
	return out, nil
}

func (m *Model) sorted() []*View {
	return slices.SortedFunc(maps.Values(m.orders), byOrderID)
}

func byOrderID(a, b *View) int { return strings.Compare(string(a.Order.Order), string(b.Order.Order)) }

func (m *Model) payable(v *View) Payable {
	return Payable{
		Order: v.Order.Order, Sale: v.Sale, Buyer: v.Buyer, Attempt: v.Attempt, Provider: m.sales[v.Sale].Provider,
		Amount: engine.Money{Amount: v.Total, Currency: m.sales[v.Sale].Currency},
	}
}

// Settle is Store.Settle; also is given no transaction.
func (m *Model) Settle(ctx context.Context, sale engine.SaleID, payments []Payment,
	also func(ctx context.Context, tx pgx.Tx, confirmed []Payable) error,
) ([]Settled, error) {
	if _, err := m.sale(sale); err != nil {
		return nil, err
	}
	var ended []engine.OrderID
	var confirmed []Payable
	won := map[int]bool{}
	for i, p := range payments {
		v := m.orders[p.Order]
		first := !slices.ContainsFunc(payments[:i], func(q Payment) bool { return q.Order == p.Order })
		if v == nil || v.Sale != sale || v.State != engine.Paying || v.Attempt != p.Attempt || !first {
			continue
		}
		won[i], ended = true, append(ended, p.Order)
		switch p.Result {
		case Confirmed:
			confirmed = append(confirmed, m.payable(v))
			m.end(v, engine.Confirmed, engine.NoReason)
		case Declined:
			m.end(v, engine.Cancelled, engine.ReasonDeclined)
		case Voided:
			m.end(v, engine.Cancelled, engine.ReasonBuyer)
		}
	}
	m.tell(sale, ended)
	out := make([]Settled, len(payments))
	for i, p := range payments {
		out[i] = Settled{Order: p.Order, Attempt: p.Attempt, Won: won[i]}
		if v := m.orders[p.Order]; v != nil {
			out[i].State, out[i].Attempt = v.State, cmp.Or(v.Attempt, p.Attempt)
		}
	}
	if also != nil && len(confirmed) > 0 {
		return out, also(ctx, nil, confirmed)
	}
	return out, nil
}

// Defer is Store.Defer.
func (m *Model) Defer(_ context.Context, sale engine.SaleID, orders []engine.OrderID, next time.Duration) error {
	for _, id := range orders {
		if v := m.orders[id]; v != nil && v.Sale == sale && v.State == engine.Paying {
			v.Due = m.Now().Add(next)
		}
	}
	return nil
}

// NextAttempt is Store.NextAttempt.
func (m *Model) NextAttempt(_ context.Context, sale engine.SaleID, order engine.OrderID, attempt int) (bool, error) {
	v := m.orders[order]
	if v == nil || v.Sale != sale || v.State != engine.Paying || v.Attempt != attempt {
		return false, nil
	}
	v.Attempt, v.Due = attempt+1, m.Now().Add(DefaultLease)
	return true, nil
}

// BeginCheckout is Store.BeginCheckout.
func (m *Model) BeginCheckout(_ context.Context, sale engine.SaleID, order engine.OrderID, lease time.Duration) (Payable, bool, error) {
	s, err := m.sale(sale)
	if err != nil {
		return Payable{}, false, err
	}
	if s.Payment != engine.PayCheckout {
		return Payable{}, false, ErrState
	}
	v := m.orders[order]
	if v == nil || v.Sale != sale || v.State != engine.Reserved || !v.Due.After(m.Now()) {
		return Payable{}, false, nil
	}
	v.State, v.Attempt, v.Due = engine.Paying, 1, m.Now().Add(lease)
	return m.payable(v), true, nil
}

// Expire is Store.Expire. Which of several due orders go first, if limit is less
// than all, is not as there.
func (m *Model) Expire(_ context.Context, limit int) (n int, err error) {
	ended := map[engine.SaleID][]engine.OrderID{}
	for _, v := range m.sorted() {
		if v.State == engine.Reserved && m.sales[v.Sale].Payment == engine.PayCheckout && !v.Due.After(m.Now()) && n < limit {
			m.end(v, engine.Cancelled, engine.ReasonExpired)
			ended[v.Sale] = append(ended[v.Sale], v.Order.Order)
			n++
		}
	}
	for _, sale := range slices.Sorted(maps.Keys(ended)) {
		m.tell(sale, ended[sale])
	}
	return n, nil
}

// Cancel is Store.Cancel.
func (m *Model) Cancel(_ context.Context, buyer engine.BuyerID, order engine.OrderID) (CancelOutcome, error) {
	v := m.orders[order]
	switch {
	case v == nil || v.Buyer != buyer:
		return CancelPending, nil
	case v.State == engine.Reserved:
		m.end(v, engine.Cancelled, engine.ReasonBuyer)
		m.tell(v.Sale, []engine.OrderID{order})
		return CancelDone, nil
	case v.State == engine.Paying:
		v.CancelWished = true
		return CancelWished, nil
	case v.State == engine.Cancelled && v.Reason == engine.ReasonBuyer:
		return CancelDone, nil
	}
	return CancelForbidden, nil
}

// Return is Store.Return.
func (m *Model) Return(_ context.Context, order engine.OrderID, _ Note) (bool, error) {
	v := m.orders[order]
	switch {
	case v == nil:
		return false, ErrNoOrder
	case v.State != engine.Confirmed:
		return false, ErrState
	case v.Returned:
		return false, nil
	}
	v.Returned = true
	m.count(v, -1)
	m.write(&modelMove{sale: v.Sale, op: int16(engine.Return), orders: []engine.OrderID{order}, hold: v.Hold, lines: v.Lines})
	return true, nil
}
