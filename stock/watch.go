package stock

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/redis/go-redis/v9"

	"github.com/doorbuster/doorbuster/engine"
)

// Watch reads everything a door must know about the sale, from the master of its
// slot: one round trip if epoch is the one in use (pass the one last seen, 0 at
// first), else two. ErrNoSale if the slot knows no such sale, ErrFenced if its epoch
// has no state hash or one that cannot be read. It calls no script, so it also reads a frozen
// sale.
func (s *Store) Watch(ctx context.Context, sale engine.SaleID, epoch int64) (Watch, error) {
	for range 2 {
		w, inUse, err := s.watch(ctx, sale, epoch)
		if err != nil {
			return Watch{}, fmt.Errorf("watch sale %s: %w", sale, err)
		}
		if inUse == epoch {
			return w, nil
		}
		epoch = inUse
	}
	return Watch{}, fmt.Errorf("watch sale %s: %w: its epoch moves while it is read", sale, ErrFenced)
}

// watch reads the keys of the given epoch, and which one is in use. The pointer
// is read first: if it names this epoch, what is read after it is not older.
func (s *Store) watch(ctx context.Context, sale engine.SaleID, epoch int64) (w Watch, inUse int64, err error) {
	var pointer *redis.StringCmd
	var state *redis.MapStringStringCmd
	var now *redis.TimeCmd
	err = s.on(ctx, sale, func(c *redis.Client) error {
		pipe := c.Pipeline()
		pointer = pipe.HGet(ctx, pointerKey(sale), fieldEpoch)
		if epoch != 0 {
			state = pipe.HGetAll(ctx, keysOf(sale, epoch).state)
		}
		now = pipe.Time(ctx)
		_, err := pipe.Exec(ctx)
		if errors.Is(pointer.Err(), redis.Nil) {
			return ErrNoSale
		}
		return err
	})
	if err != nil {
		return Watch{}, 0, err
	}
	if inUse, err = strconv.ParseInt(pointer.Val(), 10, 64); err != nil || inUse == 0 {
		return Watch{}, 0, fmt.Errorf("epoch %q", pointer.Val())
	}
	if inUse != epoch {
		return Watch{}, inUse, nil
	}
	if state.Val()[fieldState] == "" {
		return Watch{}, 0, fmt.Errorf("%w: epoch %d has no state", ErrFenced, epoch)
	}
	if w, err = parseState(state.Val()); err != nil {
		return Watch{}, 0, fmt.Errorf("%w: epoch %d: %w", ErrFenced, epoch, err)
	}
	w.Epoch, w.Now = epoch, now.Val().UnixMilli()
	return w, inUse, nil
}

// parseState reads a state hash.
func parseState(fields map[string]string) (Watch, error) {
	var w Watch
	ints := map[string]*int64{
		fieldInc: &w.Incarnation, fieldVersion: &w.Version, fieldHeartbeat: &w.Heartbeat,
		fieldOpens: &w.Opens, fieldCloses: &w.Closes, fieldLimit: &w.LimitBuyer, fieldIdentity: &w.LimitIdentity,
		fieldKey: &w.KeyNumber, fieldSeq: &w.Seq, fieldLag: &w.Lag,
	}
	for name, p := range ints {
		var err error
		if *p, err = strconv.ParseInt(fields[name], 10, 64); err != nil {
			return Watch{}, fmt.Errorf("field %s of the state: %q is not a number", name, fields[name])
		}
	}
	switch fields[fieldState] {
	case stateOpen:
		w.State = engine.SaleOpen
	case statePaused:
		w.State = engine.SalePaused
	case stateClosed:
		w.State = engine.SaleClosed
	case stateFrozen:
		w.Frozen = true
	default:
		return Watch{}, fmt.Errorf("state %q", fields[fieldState])
	}
	w.Currency, w.SHA, w.Retired = fields[fieldCurrency], parseSHAs(fields[fieldSHA]), fields[fieldRetired] != ""
	w.Safety = parseSafety(fields[fieldSafety])
	w.Turn, _ = strconv.ParseInt(fields[fieldTurn], 10, 64)
	for name := range fields {
		sku, ok := strings.CutPrefix(name, available)
		if !ok {
			continue
		}
		it := Item{SKU: engine.SKU(sku)}
		for prefix, p := range map[string]*int64{available: &it.Available, held: &it.Held, sold: &it.Sold, units: &it.Units, price: &it.Price} {
			var err error
			if *p, err = strconv.ParseInt(fields[prefix+sku], 10, 64); err != nil {
				return Watch{}, fmt.Errorf("field %s%s of the state: %q is not a number", prefix, sku, fields[prefix+sku])
			}
		}
		w.Items = append(w.Items, it)
	}
	slices.SortFunc(w.Items, func(a, b Item) int { return strings.Compare(string(a.SKU), string(b.SKU)) })
	return w, nil
}

// slotState is how the state hash spells a sale's state, or "" for a state in
// which a sale has no keys.
func slotState(s engine.SaleState) string {
	switch s {
	case engine.SaleScheduled, engine.SaleOpen:
		return stateOpen
	case engine.SalePaused:
		return statePaused
	case engine.SaleClosed, engine.SaleSettled:
		return stateClosed
	}
	return ""
}

// Record reads what stands under the order id, in the epoch in use or, while its
// keys are there, the one before. False if nothing does; ErrNoSale if the slot
// knows no such sale.
func (s *Store) Record(ctx context.Context, sale engine.SaleID, order engine.OrderID) (engine.Record, bool, error) {
	var found string
	err := s.on(ctx, sale, func(c *redis.Client) error {
		epoch, err := c.HGet(ctx, pointerKey(sale), fieldEpoch).Int64()
		if errors.Is(err, redis.Nil) {
			return ErrNoSale
		}
		if err != nil {
			return err
		}
		pipe := c.Pipeline()
		now := pipe.HGet(ctx, keysOf(sale, epoch).records, string(order))
		before := pipe.HGet(ctx, keysOf(sale, epoch-1).records, string(order))
		if _, err = pipe.Exec(ctx); err != nil && !errors.Is(err, redis.Nil) {
			return err
		}
		if found = now.Val(); found == "" {
			found = before.Val()
		}
		return nil
	})
	if err != nil {
		return engine.Record{}, false, fmt.Errorf("record of order %s in sale %s: %w", order, sale, err)
	}
	if found == "" {
		return engine.Record{}, false, nil
	}
	r, err := engine.ParseRecord(order, found)
	return r, err == nil, err
}

// scanCount is how many records or counters one slice of a scan reads, about.
const scanCount = 512

// Records reads a slice of an epoch's records; begin with cursor 0, go on with
// next until it is 0. One that is there all the while is read at least once. One that
// cannot be read is left out: see OnUnreadable.
func (s *Store) Records(ctx context.Context, sale engine.SaleID, epoch int64, cursor uint64) (recs []engine.Record, next uint64, err error) {
	next, err = s.scan(ctx, part{sale, epoch, keysOf(sale, epoch).records, "record"}, cursor, func(id, text string) error {
		r, err := engine.ParseRecord(engine.OrderID(id), text)
		if err == nil {
			recs = append(recs, r)
		}
		return err
	})
	return recs, next, err
}

// BuyerCounters reads a slice of an epoch's counters per buyer, as Records does.
func (s *Store) BuyerCounters(ctx context.Context, sale engine.SaleID, epoch int64, cursor uint64) (counters []Counter, next uint64, err error) {
	next, err = s.scan(ctx, part{sale, epoch, keysOf(sale, epoch).buyers, "counter"}, cursor, func(name, count string) error {
		n, err := strconv.ParseInt(count, 10, 64)
		if err == nil {
			counters = append(counters, Counter{Buyer: engine.BuyerID(name), Units: n / perUnit, Orders: n % perUnit})
		}
		return err
	})
	return counters, next, err
}

// IdentityCounters reads a slice of an epoch's counters per identity, as Records
// does.
func (s *Store) IdentityCounters(ctx context.Context, sale engine.SaleID, epoch int64, cursor uint64) (counters []Counter, next uint64, err error) {
	next, err = s.scan(ctx, part{sale, epoch, keysOf(sale, epoch).identities, "counter"}, cursor, func(name, count string) error {
		n, err := strconv.ParseInt(count, 10, 64)
		if err != nil {
			return err
		}
		c := Counter{Units: n}
		if copy(c.Identity[:], name) != len(name) || len(name) != len(c.Identity) {
			return fmt.Errorf("identity %x has %d bytes", name, len(name))
		}
		counters = append(counters, c)
		return nil
	})
	return counters, next, err
}

// part is what a scan reads.
type part struct {
	sale  engine.SaleID
	epoch int64
	key   string
	what  string // see Unreadable
}

// scan hands over fields one by one; an error of each leaves that one out.
func (s *Store) scan(ctx context.Context, of part, cursor uint64, each func(field, value string) error) (next uint64, err error) {
	var pairs []string
	err = s.on(ctx, of.sale, func(c *redis.Client) (err error) {
		pairs, next, err = c.HScan(ctx, of.key, cursor, "", scanCount).Result()
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("scan %s: %w", of.key, err)
	}
	for i := 0; i+1 < len(pairs); i += 2 {
		if err := each(pairs[i], pairs[i+1]); err != nil {
			s.leaveOut(Unreadable{Sale: of.sale, Epoch: of.epoch, What: of.what, ID: pairs[i], Bytes: pairs[i+1], Cause: err})
		}
	}
	return next, nil
}
