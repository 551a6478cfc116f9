package stock

import (
	"context"
	"fmt"
	"strconv"

	"github.com/doorbuster/doorbuster/engine"
)

// SetState opens, pauses or closes the sale for new orders: scheduled and open
// are the same to the slot, where the window decides. ErrStale if the state was
// set, also to the same, since g was read: so what was sent by one who read before
// another's word, and comes after it, does nothing.
func (s *Store) SetState(ctx context.Context, sale engine.SaleID, g Grip, state engine.SaleState) error {
	to := slotState(state)
	if to == "" {
		return fmt.Errorf("set sale %s to %q: no state of a sale that has keys", sale, state)
	}
	args := append(scriptArgs([]string{keysOf(sale, g.Epoch).state}, 2), to, g.Turn)
	if _, err := s.eval(ctx, sale, g.SHA[OpState], args); err != nil {
		return fmt.Errorf("set sale %s to %s: %w", sale, state, err)
	}
	return nil
}

// Redefine puts the definition's window, currency, limits and prices in force, and
// raises the version to def.Version; from then on calls with a grip of another
// version are refused with ErrStale. ErrStale if a later version is in force; the
// same one is not written twice. An item the sale did not have begins with no
// units. Units, state and epoch of def do not matter.
func (s *Store) Redefine(ctx context.Context, sale engine.SaleID, g Grip, def engine.Sale) error {
	args := scriptArgs([]string{keysOf(sale, g.Epoch).state}, 7+2*len(def.Items))
	args = append(args, def.Version, def.Opens.UnixMilli(), def.Closes.UnixMilli(), def.Currency,
		def.LimitPerBuyer, def.LimitPerIdentity, strconv.Itoa(len(def.Items)))
	for i := range def.Items {
		args = append(args, string(def.Items[i].SKU), def.Items[i].Price)
	}
	if _, err := s.eval(ctx, sale, g.SHA[OpDefine], args); err != nil {
		return fmt.Errorf("define version %d of sale %s: %w", def.Version, sale, err)
	}
	return nil
}

// SetLag tells the doors, through the watch, by how many milliseconds the ingest
// is behind.
func (s *Store) SetLag(ctx context.Context, sale engine.SaleID, g Grip, ms int64) error {
	args := append(scriptArgs([]string{keysOf(sale, g.Epoch).state}, 1), ms)
	if _, err := s.eval(ctx, sale, g.SHA[OpLag], args); err != nil {
		return fmt.Errorf("set lag of sale %s: %w", sale, err)
	}
	return nil
}
