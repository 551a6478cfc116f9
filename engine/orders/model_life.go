package orders

import (
	"context"
	"slices"

	"github.com/doorbuster/doorbuster/engine"
)

// Sale is Store.Sale. Since when it is closed is not known here.
func (m *Model) Sale(_ context.Context, id engine.SaleID) (engine.Sale, Status, error) {
	s, err := m.sale(id)
	if err != nil {
		return engine.Sale{}, Status{}, err
	}
	sale, st := s.Sale, Status{Frozen: s.frozen, Since: s.since, Now: m.Now()}
	sale.Items = slices.Clone(s.Items)
	for _, it := range s.Items {
		st.Claimed = append(st.Claimed, Claimed{SKU: it.SKU, Units: s.claimed[it.SKU]})
	}
	return sale, st, nil
}

// AdvanceSale is Store.AdvanceSale.
func (m *Model) AdvanceSale(ctx context.Context, seen engine.Sale, to engine.SaleState, note Note) error {
	s, err := m.sale(seen.ID)
	if err != nil {
		return err
	}
	if s.State != seen.State || s.Version != seen.Version {
		return ErrState
	}
	return m.SetSaleState(ctx, seen.ID, to, note)
}

// SettleSale is Store.SettleSale. Nothing is parked here.
func (m *Model) SettleSale(ctx context.Context, id engine.SaleID, epoch int64, _ Note, also func(context.Context) error) (bool, error) {
	s, err := m.sale(id)
	if err != nil || s.frozen || s.Epoch != epoch || s.State != engine.SaleClosed {
		return false, err
	}
	for _, row := range m.moves {
		if row.sale == id && !row.done {
			return false, nil
		}
	}
	for _, v := range m.orders {
		if v.Sale == id && !v.State.Terminal() {
			return false, nil
		}
	}
	if also != nil {
		if err := also(ctx); err != nil {
			return false, err
		}
	}
	s.State = engine.SaleSettled
	return true, nil
}

// Wanted are the sales that somebody must lead: those that are not settled, by id.
func (m *Model) Wanted() (ids []engine.SaleID) {
	for id, s := range m.sales {
		if s.State != engine.SaleSettled {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

// State is the state of a sale; "" if there is none.
func (m *Model) State(id engine.SaleID) engine.SaleState {
	if s := m.sales[id]; s != nil {
		return s.State
	}
	return ""
}

// Wake makes a settled sale closed, as Store.Parked does.
func (m *Model) Wake(id engine.SaleID) { m.wake(id) }

// Backlog is Store.Backlog.
func (m *Model) Backlog(_ context.Context, id engine.SaleID) (n int64, err error) {
	for _, row := range m.moves {
		if row.sale == id && !row.done {
			n++
		}
	}
	_, err = m.sale(id)
	return n, err
}

// Numbers are those of the sale's epoch that PostgreSQL has an account of: each
// belongs to an order, or its hold was dropped.
func (m *Model) Numbers(id engine.SaleID, epoch int64) map[int64]bool {
	spent := map[int64]bool{}
	for seq := range m.owners {
		if seq.sale == id && seq.hold.Epoch == epoch {
			spent[seq.hold.Seq] = true
		}
	}
	for _, row := range m.moves {
		if row.sale == id && row.op == int16(engine.Drop) && row.hold.Epoch == epoch {
			spent[row.hold.Seq] = true
		}
	}
	return spent
}

// Views are all orders, by id.
func (m *Model) Views() []View {
	all := m.sorted()
	out := make([]View, len(all))
	for i, v := range all {
		out[i] = *v
	}
	return out
}

// Each looks at every order, in no order. It must not change them.
func (m *Model) Each(look func(v *View)) {
	for _, v := range m.orders {
		look(v)
	}
}

// Claimed is how many units of an item are claimed, and how many there are.
func (m *Model) Claimed(id engine.SaleID, sku engine.SKU) (claimed, units int64) {
	if s := m.sales[id]; s != nil {
		if it, ok := s.Item(sku); ok {
			return s.claimed[sku], it.Units
		}
	}
	return 0, 0
}

// Pending counts the moves that are not done.
func (m *Model) Pending() (n int) {
	for _, row := range m.moves {
		if !row.done {
			n++
		}
	}
	return n
}

// Strays tells whether an order has no claim on the number of its hold.
func (m *Model) Strays(id engine.OrderID) bool { return m.strays[id] }
