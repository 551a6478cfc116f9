package audit

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/doorbuster/doorbuster/engine"
	"github.com/doorbuster/doorbuster/payment/provider"
)

// purse is what the provider has of one order.
type purse struct {
	charges    int   // not declined, not voided
	holding    int   // of them, those that hold money now: authorised, or captured and not all given back
	most       int64 // largest authorised or captured amount, minor units
	net        int64 // captured − refunded, minor units
	open       int64 // authorised and not captured, minor units
	otherMoney string
}

// tills are the purses of a sale's orders.
type tills struct {
	byRow     map[int32]*purse // by row of books
	strangers map[engine.OrderID]*purse
	charges   int64
}

// readLedger reads the provider's book. Charges without money are counted only.
func readLedger(ctx context.Context, l Ledger, b *books) (*tills, error) {
	t := &tills{byRow: map[int32]*purse{}, strangers: map[engine.OrderID]*purse{}}
	for c, err := range l.Ledger(ctx) {
		if err != nil {
			return nil, fmt.Errorf("read the provider's ledger: %w", err)
		}
		t.charges++
		if c.State == provider.StateDeclined || c.State == provider.StateVoided {
			continue
		}
		t.purseOf(b, c.Order).add(&c, b.sale.Currency)
	}
	return t, nil
}

func (t *tills) purseOf(b *books, id engine.OrderID) *purse {
	if i, ok := b.index[id]; ok {
		if t.byRow[i] == nil {
			t.byRow[i] = &purse{}
		}
		return t.byRow[i]
	}
	if t.strangers[id] == nil {
		t.strangers[id] = &purse{}
	}
	return t.strangers[id]
}

func (p *purse) add(c *provider.Charge, currency string) {
	p.charges++
	p.most = max(p.most, c.Amount, c.Captured)
	switch {
	case c.State == provider.StateAuthorised:
		p.holding++
		p.open += c.Amount
	case c.Captured > c.Refunded:
		p.holding++
	}
	p.net += c.Captured - c.Refunded
	if c.Currency != currency {
		p.otherMoney = c.Currency
	}
}

// foreign forgets the strangers that are orders of other sales.
func (t *tills) foreign(ctx context.Context, pool *pgxpool.Pool) error {
	const slice = 10_000
	ids := make([]string, 0, min(len(t.strangers), slice))
	ask := func() error {
		rows, err := pool.Query(ctx, `SELECT id FROM orders WHERE id = ANY($1::text[])`, ids)
		if err != nil {
			return err
		}
		var id engine.OrderID
		_, err = pgx.ForEachRow(rows, []any{&id}, func() error {
			delete(t.strangers, id)
			return nil
		})
		ids = ids[:0]
		return err
	}
	all := make([]engine.OrderID, 0, len(t.strangers))
	for id := range t.strangers {
		all = append(all, id)
	}
	for _, id := range all {
		if ids = append(ids, string(id)); len(ids) == slice {
			if err := ask(); err != nil {
				return err
			}
		}
	}
	if len(ids) == 0 {
		return nil
	}
	return ask()
}
