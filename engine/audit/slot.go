package audit

import (
	"context"
	"fmt"

	"github.com/doorbuster/doorbuster/engine"
	"github.com/doorbuster/doorbuster/stock"
)

// slot is what Redis says of a sale.
type slot struct {
	watch      stock.Watch
	outbox     int64 // entries, of all epochs that have keys
	held       map[engine.SKU]int64
	heldN      int64 // records that hold units
	marks      map[engine.OrderID]mark
	buyers     map[engine.BuyerID]stock.Counter
	identities map[engine.Identity]int64
	unread     []string // what was left out
}

const (
	maxScans   = 1 << 20 // calls of one HSCAN loop, so that a broken cursor cannot go on for ever
	outboxPeek = 1       // entries read to learn a length
)

// readSlot reads the counters of a sale: O(1).
func (a *Auditor) readSlot(ctx context.Context, sale engine.SaleID) (*slot, error) {
	w, err := a.stock.Watch(ctx, sale, 0)
	if err != nil {
		return nil, fmt.Errorf("read sale %s from Redis: %w", sale, err)
	}
	return &slot{watch: w}, nil
}

// readAll reads every record and counter too. It is exact only at rest: HSCAN
// does not see one moment.
func (a *Auditor) readAll(ctx context.Context, sale engine.SaleID) (*slot, error) {
	s, err := a.readSlot(ctx, sale)
	if err != nil {
		return nil, err
	}
	a.unread = nil
	for _, read := range []func(context.Context, engine.SaleID, *slot) error{a.readOutboxes, a.readRecords, a.readBuyers, a.readIdentities} {
		if err := read(ctx, sale, s); err != nil {
			return nil, fmt.Errorf("read sale %s from Redis: %w", sale, err)
		}
	}
	s.unread = a.unread
	return s, nil
}

func (a *Auditor) readOutboxes(ctx context.Context, sale engine.SaleID, s *slot) error {
	epochs, err := a.stock.Epochs(ctx, sale)
	if err != nil {
		return err
	}
	for _, e := range epochs {
		_, n, err := a.stock.Outbox(ctx, sale, e, outboxPeek)
		if err != nil {
			return err
		}
		s.outbox += n
	}
	return nil
}

func (a *Auditor) readRecords(ctx context.Context, sale engine.SaleID, s *slot) error {
	s.held, s.marks = map[engine.SKU]int64{}, map[engine.OrderID]mark{}
	return scan(func(cursor uint64) (uint64, error) {
		recs, next, err := a.stock.Records(ctx, sale, s.watch.Epoch, cursor)
		for i := range recs {
			o := &recs[i].Order
			_, seen := s.marks[o.Order] // HSCAN may return a field twice
			s.marks[o.Order] = mark{recs[i].State, o.Hold, o.Body}
			if recs[i].State != engine.RecordHeld || seen {
				continue
			}
			s.heldN++
			for _, l := range o.Lines {
				s.held[l.SKU] += l.Quantity
			}
		}
		return next, err
	})
}

func (a *Auditor) readBuyers(ctx context.Context, sale engine.SaleID, s *slot) error {
	s.buyers = map[engine.BuyerID]stock.Counter{}
	return scan(func(cursor uint64) (uint64, error) {
		counters, next, err := a.stock.BuyerCounters(ctx, sale, s.watch.Epoch, cursor)
		for i := range counters {
			if counters[i].Units != 0 || counters[i].Orders != 0 {
				s.buyers[counters[i].Buyer] = counters[i]
			}
		}
		return next, err
	})
}

func (a *Auditor) readIdentities(ctx context.Context, sale engine.SaleID, s *slot) error {
	s.identities = map[engine.Identity]int64{}
	return scan(func(cursor uint64) (uint64, error) {
		counters, next, err := a.stock.IdentityCounters(ctx, sale, s.watch.Epoch, cursor)
		for i := range counters {
			if counters[i].Units != 0 {
				s.identities[counters[i].Identity] = counters[i].Units
			}
		}
		return next, err
	})
}

func scan(step func(cursor uint64) (next uint64, err error)) error {
	var cursor uint64
	for range maxScans {
		next, err := step(cursor)
		if err != nil || next == 0 {
			return err
		}
		cursor = next
	}
	return fmt.Errorf("a scan did not end in %d calls", maxScans)
}
