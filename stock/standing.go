package stock

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/redis/go-redis/v9"

	"github.com/doorbuster/doorbuster/engine"
)

// Standing is what the slot counts of one buyer: his live orders in the epoch in
// use, and in the one before while its keys are there. Those that were accepted up to
// Seq of the epoch and have not ended are counted; some of later ones may be.
type Standing struct {
	Epoch, Seq  int64 // in use
	Now, Before int64 // orders
}

// Counts tells whether the buyer's order of that hold is counted in Now, if it has not
// ended.
func (s *Standing) Counts(h engine.Hold) bool {
	return h.Epoch < s.Epoch || (h.Epoch == s.Epoch && h.Seq <= s.Seq)
}

// Standing reads the counters of a buyer. It costs two round trips, whatever the
// sale's size. ErrNoSale if the slot knows no such sale.
func (s *Store) Standing(ctx context.Context, sale engine.SaleID, buyer engine.BuyerID) (Standing, error) {
	var st Standing
	err := s.on(ctx, sale, func(c *redis.Client) (err error) {
		st.Epoch, err = c.HGet(ctx, pointerKey(sale), fieldEpoch).Int64()
		if errors.Is(err, redis.Nil) {
			return ErrNoSale
		}
		if err != nil {
			return err
		}
		pipe := c.Pipeline()
		seq := pipe.HGet(ctx, keysOf(sale, st.Epoch).state, fieldSeq) // first: see Standing
		now := pipe.HGet(ctx, keysOf(sale, st.Epoch).buyers, string(buyer))
		before := pipe.HGet(ctx, keysOf(sale, st.Epoch-1).buyers, string(buyer))
		if _, err := pipe.Exec(ctx); err != nil && !errors.Is(err, redis.Nil) {
			return err
		}
		for _, one := range []struct {
			cmd *redis.StringCmd
			to  *int64
		}{{seq, &st.Seq}, {now, &st.Now}, {before, &st.Before}} {
			n, err := one.cmd.Int64()
			if err != nil && !errors.Is(err, redis.Nil) {
				return err
			}
			*one.to = n
		}
		st.Now, st.Before = st.Now%perUnit, st.Before%perUnit
		return nil
	})
	if err != nil {
		return Standing{}, fmt.Errorf("standing of buyer %s in sale %s: %w", buyer, sale, err)
	}
	return st, nil
}

// HeldOf reads a slice of an epoch's records, as Records does, and returns those
// held by a buyer who is wanted. The others are not parsed; one that cannot be is left
// out: see OnUnreadable.
func (s *Store) HeldOf(ctx context.Context, sale engine.SaleID, at Slice, wanted func(engine.BuyerID) bool) (recs []engine.Record, next uint64, err error) {
	next, err = s.scan(ctx, part{sale, at.Epoch, keysOf(sale, at.Epoch).records, "record"}, at.Cursor, func(id, text string) error {
		if !wanted(holderOf(text)) {
			return nil
		}
		r, err := engine.ParseRecord(engine.OrderID(id), text)
		if err == nil {
			recs = append(recs, r)
		}
		return err
	})
	return recs, next, err
}

// Slice names a slice of an epoch's records: 0 is the first cursor.
type Slice struct {
	Epoch  int64
	Cursor uint64
}

// buyerField is where the buyer stands in a held record (engine.Record).
const buyerField = 6

// holderOf is the buyer in a held record, "" in any other.
func holderOf(record string) engine.BuyerID {
	if len(record) < 2 || record[1] != byte(engine.RecordHeld) {
		return ""
	}
	for range buyerField {
		at := strings.IndexByte(record, '|')
		if at < 0 {
			return ""
		}
		record = record[at+1:]
	}
	buyer, _, _ := strings.Cut(record, "|")
	return engine.BuyerID(buyer)
}
