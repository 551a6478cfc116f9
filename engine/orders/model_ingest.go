package orders

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/doorbuster/doorbuster/engine"
)

// Ingest is Store.Ingest.
func (m *Model) Ingest(_ context.Context, sale engine.SaleID, arrivals []Arrival) (IngestReport, error) {
	return m.ingest(sale, arrivals, 0)
}

// IngestAndClaim is Store.IngestAndClaim.
func (m *Model) IngestAndClaim(_ context.Context, sale engine.SaleID, arrivals []Arrival, lease time.Duration) (IngestReport, error) {
	return m.ingest(sale, arrivals, max(lease, time.Microsecond))
}

func (m *Model) ingest(id engine.SaleID, arrivals []Arrival, lease time.Duration) (IngestReport, error) {
	s, err := m.sale(id)
	if err != nil {
		return IngestReport{}, err
	}
	for _, a := range arrivals {
		if (a.Retaken || a.Refused) && a.Epoch != s.Epoch {
			return IngestReport{Moved: true}, nil
		}
		for _, l := range a.Lines {
			if _, ok := s.Item(l.SKU); !ok {
				return IngestReport{}, ErrNotWritable // of a batch with a SKU nobody sells; the Store may know the order and not mind
			}
		}
	}
	in := modelIngestion{m: m, s: s, lease: lease}
	// First what can be written, by id; then what came beside it; then units, by
	// hold.
	picked, others := triage(arrivals, s.Epoch)
	var fresh []*View
	for _, a := range picked {
		v, ok := in.add(a)
		if v != nil {
			fresh = append(fresh, v)
		}
		if !ok {
			others = append(others, a)
		}
	}
	slices.SortStableFunc(others, func(a, b *Arrival) int { return cmp.Or(byID(a, b), compareHolds(a.Hold, b.Hold)) })
	for _, a := range others {
		if v := in.look(a); v != nil {
			fresh = append(fresh, v)
		}
	}
	for _, a := range in.met {
		m.again(id, a, opOutcome)
	}
	slices.SortFunc(fresh, func(a, b *View) int {
		return cmp.Or(compareHolds(a.Hold, b.Hold), cmp.Compare(a.Order.Order, b.Order.Order))
	})
	for _, v := range fresh {
		in.admit(v)
	}
	m.tell(id, in.ended)
	if slices.ContainsFunc(fresh, func(v *View) bool { return !v.State.Terminal() }) {
		m.wake(id)
	}
	return in.rep, nil
}

// modelIngestion is one ingest.
type modelIngestion struct {
	m     *Model
	s     *modelSale
	lease time.Duration
	rep   IngestReport
	ended []engine.OrderID
	met   []*Arrival // finished, and here again
}

// add writes one arrival if that is possible: v is what asks for units now.
func (in *modelIngestion) add(a *Arrival) (v *View, ok bool) {
	m, s := in.m, in.s
	seq := modelSeq{s.ID, a.Hold}
	if _, taken := m.owners[seq]; m.orders[a.Order.Order] != nil || (taken && !a.Refused) {
		return nil, false
	}
	if a.Refused {
		in.rep.Cancelled++
		in.ended = append(in.ended, a.Order.Order)
		m.orders[a.Order.Order] = m.refused(s, &a.Order, engine.ReasonEpoch)
		return nil, true
	}
	m.owners[seq] = a.Order.Order
	return m.reserve(s, &a.Order), true
}

func (m *Model) reserve(s *modelSale, o *engine.Order) *View {
	v := &View{Order: *o, Sale: s.ID, State: engine.Reserved, Ingested: m.Now()}
	m.orders[o.Order] = v
	return v
}

// look deals with an arrival that was not written, and returns it if it asks for
// units all the same.
func (in *modelIngestion) look(a *Arrival) *View {
	m, s := in.m, in.s
	v := m.orders[a.Order.Order]
	switch {
	case v != nil && v.Hold == a.Hold:
		in.rep.Repeated++
		if v.State.Terminal() {
			in.met = append(in.met, a)
		}
	case v != nil && a.Refused:
		in.rep.Repeated++
	case v != nil:
		in.rep.Foreign++
		m.again(s.ID, a, int16(engine.Drop))
	case a.Retaken:
		in.rep.Forks++
		m.strays[a.Order.Order] = true
		return m.reserve(s, &a.Order)
	default:
		if a.Hold.Epoch == s.Epoch {
			in.rep.Forks++
		}
		in.rep.Stale = append(in.rep.Stale, a.Order)
	}
	return nil
}

func (m *Model) refused(s *modelSale, o *engine.Order, why engine.Reason) *View {
	m.strays[o.Order] = true
	return &View{Order: *o, Sale: s.ID, State: engine.Cancelled, Reason: why, Ingested: m.Now(), Finished: m.Now()}
}

// again writes a row for an order that came again, once per order and hold.
func (m *Model) again(sale engine.SaleID, a *Arrival, op int16) {
	m.wake(sale)
	for _, row := range m.moves {
		if row.op == op && row.hold == a.Hold && row.orders[0] == a.Order.Order {
			row.done = false
			return
		}
	}
	row := &modelMove{sale: sale, op: op, orders: []engine.OrderID{a.Order.Order}, hold: a.Hold}
	if op != opOutcome {
		row.lines = a.Lines
	}
	m.write(row)
}

// admit is the guard: the order gets what it asks for, or ends.
func (in *modelIngestion) admit(v *View) {
	m, s := in.m, in.s
	if why := m.against(s, &v.Order); why != engine.NoReason {
		v.State, v.Reason, v.Finished = engine.Cancelled, why, m.Now()
		in.rep.Cancelled++
		in.ended = append(in.ended, v.Order.Order)
		return
	}
	m.count(v, 1)
	switch {
	case s.Payment == engine.PayCheckout:
		v.Due = m.Now().Add(s.HoldFor)
	case in.lease > 0:
		v.State, v.Attempt, v.Due = engine.Paying, 1, m.Now().Add(in.lease)
		in.rep.Claimed = append(in.rep.Claimed, m.payable(v))
		return
	default:
		v.Due = m.Now()
	}
	in.rep.Reserved = append(in.rep.Reserved, v.Order.Order)
}

func (m *Model) against(s *modelSale, o *engine.Order) engine.Reason {
	for _, l := range o.Lines {
		if it, _ := s.Item(l.SKU); s.claimed[l.SKU]+l.Quantity > it.Units {
			return engine.ReasonSoldOut
		}
	}
	for i, key := range modelKeys(o) {
		limit := o.LimitIdentity
		if i == 0 {
			limit = o.LimitBuyer
		}
		if limit > 0 && m.used[modelKey{s.ID, key}]+engine.Units(o.Lines) > limit {
			return engine.ReasonLimit
		}
	}
	return engine.NoReason
}

// Reject is Store.Reject, of an order that can be written.
func (m *Model) Reject(_ context.Context, sale engine.SaleID, r Rejected) error {
	if key := string(sale) + "\x00" + string(r.Bytes); m.rejected[key].Bytes == nil {
		m.rejected[key] = r
	}
	s := m.sales[sale]
	if r.Known == nil || s == nil || m.orders[r.Known.Order] != nil {
		return nil
	}
	m.orders[r.Known.Order] = m.refused(s, r.Known, engine.ReasonRejected)
	m.tell(sale, []engine.OrderID{r.Known.Order})
	return nil
}
