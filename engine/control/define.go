package control

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/doorbuster/doorbuster/engine"
	"github.com/doorbuster/doorbuster/engine/orders"
)

// Change is what may be changed of a sale that exists; nil leaves a thing alone.
// Orders keep the price and the limits in force at their accept.
type Change struct {
	Opens, Closes                   *time.Time
	LimitPerBuyer, LimitPerIdentity *int64 // units; 0 is none
	Prices                          map[engine.SKU]int64
}

// Redefine changes a sale while it runs. PostgreSQL gets the new version first
// and Redis follows: an order carries the price and limits it was accepted under,
// so what is accepted in between stays right. Doors that still know the old
// version are sent back by the script. ErrInvalid, ErrIllegal, ErrUnsettled,
// ErrNote.
func (c *Control) Redefine(ctx context.Context, id engine.SaleID, ch Change, note Note) error {
	if err := checkNote(note); err != nil {
		return fmt.Errorf("change sale %s: %w", id, err)
	}
	version, err := c.redefine(ctx, id, ch, note)
	for range redefineTries - 1 {
		if !errors.Is(err, orders.ErrState) {
			break
		}
		version, err = c.redefine(ctx, id, ch, note)
	}
	if err != nil {
		return fmt.Errorf("change sale %s: %w", id, err)
	}
	c.done(id, "redefine", note)
	return c.until(ctx, id, func(ctx context.Context, now *engine.Sale) (bool, error) {
		if now.Epoch == 0 {
			return true, nil
		}
		w, err := c.cfg.Stock.Watch(ctx, id, now.Epoch)
		if err != nil {
			return false, err
		}
		if w.Version >= version {
			return true, nil
		}
		return false, c.cfg.Stock.Redefine(ctx, id, w.Grip, *now)
	})
}

// redefineTries is how often a change is made to what another has just changed.
const redefineTries = 5

// redefine writes the sale as it is, changed. orders.ErrState if another was faster.
func (c *Control) redefine(ctx context.Context, id engine.SaleID, ch Change, note Note) (version int64, err error) {
	sale, _, err := c.cfg.Orders.Sale(ctx, id)
	if err != nil {
		return 0, err
	}
	if sale.State == engine.SaleClosed || sale.State == engine.SaleSettled {
		return 0, fmt.Errorf("it is %s: %w", sale.State, ErrIllegal)
	}
	if err := ch.apply(&sale); err != nil {
		return 0, err
	}
	if err := Validate(&sale); err != nil {
		return 0, err
	}
	return c.cfg.Orders.Redefine(ctx, sale, note)
}

func (ch *Change) apply(s *engine.Sale) error {
	if ch.Opens != nil {
		s.Opens = ch.Opens.UTC().Truncate(time.Millisecond)
	}
	if ch.Closes != nil {
		s.Closes = ch.Closes.UTC().Truncate(time.Millisecond)
	}
	if ch.LimitPerBuyer != nil {
		s.LimitPerBuyer = *ch.LimitPerBuyer
	}
	if ch.LimitPerIdentity != nil {
		s.LimitPerIdentity = *ch.LimitPerIdentity
	}
	items := append([]engine.Item(nil), s.Items...)
	s.Items = items
	for sku, price := range ch.Prices {
		item, ok := s.Item(sku)
		if !ok {
			return fmt.Errorf("%w: no item %s", ErrInvalid, sku)
		}
		item.Price = price
	}
	return nil
}

// Validate tells why a sale cannot be made, or nil: what ParseSale checks, for
// sales that come from elsewhere. An ErrInvalid.
func Validate(s *engine.Sale) error {
	if err := s.ID.Validate(); err != nil {
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if err := engine.ValidateCurrency(s.Currency); err != nil {
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	switch {
	case s.Provider == "":
		return fmt.Errorf("%w: no payment provider", ErrInvalid)
	case s.Mode != engine.ModeStandard && s.Mode != engine.ModeDurable:
		return fmt.Errorf("%w: mode %q", ErrInvalid, s.Mode)
	case s.Payment != engine.PayAtOrder && s.Payment != engine.PayCheckout:
		return fmt.Errorf("%w: payment %q", ErrInvalid, s.Payment)
	case !s.Closes.After(s.Opens):
		return fmt.Errorf("%w: closes %s, which is not after opens, %s", ErrInvalid, s.Closes.Format(time.RFC3339), s.Opens.Format(time.RFC3339))
	case s.LimitPerBuyer < 0 || s.LimitPerIdentity < 0:
		return fmt.Errorf("%w: a limit is negative", ErrInvalid)
	case s.HoldFor < MinHold || s.HoldFor > MaxHold:
		return fmt.Errorf("%w: hold %s, want %s to %s", ErrInvalid, s.HoldFor, MinHold, MaxHold)
	case s.ReplayWindow < 0 || s.ReplayWindow > MaxReplay:
		return fmt.Errorf("%w: replay window %s, want at most %s", ErrInvalid, s.ReplayWindow, MaxReplay)
	case len(s.Items) == 0 || len(s.Items) > engine.MaxItems:
		return fmt.Errorf("%w: %d items, want 1 to %d", ErrInvalid, len(s.Items), engine.MaxItems)
	}
	return validateItems(s.Items)
}

func validateItems(items []engine.Item) error {
	seen := map[engine.SKU]bool{}
	for i := range items {
		it := &items[i]
		if err := it.SKU.Validate(); err != nil {
			return fmt.Errorf("%w: %w", ErrInvalid, err)
		}
		switch {
		case seen[it.SKU]:
			return fmt.Errorf("%w: item %s twice", ErrInvalid, it.SKU)
		case it.Price < 1 || it.Price > engine.MaxAmount:
			return fmt.Errorf("%w: item %s: price %d, want 1 to %d", ErrInvalid, it.SKU, it.Price, int64(engine.MaxAmount))
		case it.Units < 0 || it.Units > engine.MaxUnits:
			return fmt.Errorf("%w: item %s: %d units, want at most %d", ErrInvalid, it.SKU, it.Units, engine.MaxUnits)
		}
		seen[it.SKU] = true
	}
	return nil
}
