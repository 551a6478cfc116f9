package orders

import (
	"context"
	"slices"

	"github.com/doorbuster/doorbuster/engine"
)

// Sale is Store.Sale. When the sale came to its state is not known here.
func (m *Model) Sale(_ context.Context, id engine.SaleID) (engine.Sale, Status, error) {
	s, err := m.sale(id)
	if err != nil {
		return engine.Sale{}, Status{}, err
	}
	sale, st := s.Sale, Status{Frozen: s.frozen, Now: m.Now()}
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

// Views are all orders, by id.
func (m *Model) Views() []View {
	all := m.sorted()
	out := make([]View, len(all))
	for i, v := range all {
		out[i] = *v
	}
	return out
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
