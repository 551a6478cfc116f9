package orders

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/doorbuster/doorbuster/engine"
	"github.com/doorbuster/doorbuster/engine/postgres"
)

// surveyMost is how long a survey is of use: what changed since is found by transaction
// numbers, which begin again after two thousand million.
const surveyMost = 5 * time.Minute

// roomMost bounds the orders for which room is made before they are read.
const roomMost = 1 << 20

// Survey is what the orders of a sale were at some moment before a cut, read without a
// lock while the sale goes on. A cut after it reads only what changed since: every
// version of a row that the survey did not see was written by a transaction that was
// under way when it was read, or came later, and has a number no less than since. No
// order is ever deleted. It is for one cut, whose image takes its memory over.
type Survey struct {
	sale  engine.SaleID
	read  time.Time // by the local clock
	since string    // the oldest transaction that was not over when it was read
	of    moment

	live       []LiveOrder
	tombstones []Tombstone
}

// moment is what a survey and a cut must have in common.
type moment struct {
	server string // when it was started: another one may know other transactions
	recent bool   // tombstones are still wanted
}

// Orders is how many orders the survey holds.
func (v *Survey) Orders() int { return len(v.live) + len(v.tombstones) }

// Survey reads the orders of a sale for a cut that follows. ErrNoSale.
func (s *Store) Survey(ctx context.Context, sale engine.SaleID) (*Survey, error) {
	in, err := s.info(ctx, sale)
	if err != nil {
		return nil, fmt.Errorf("survey: %w", err)
	}
	var v *Survey
	err = postgres.InTx(ctx, s.pool, func(tx pgx.Tx) error {
		v = &Survey{sale: sale, read: time.Now()}
		// Before the orders: what this snapshot finds under way is all that theirs can.
		err := tx.QueryRow(ctx, `SELECT pg_snapshot_xmin(pg_current_snapshot())::xid::text`).Scan(&v.since)
		if err == nil {
			v.of, err = presently(ctx, tx, in.no)
		}
		if err == nil {
			v.live, v.tombstones, err = v.readAll(ctx, tx, in.no)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("survey sale %s: %w", sale, err)
	}
	return v, nil
}

// presently reads what may make a survey useless. After the replay window PostgreSQL
// answers repeats and tombstones are no longer needed.
func presently(ctx context.Context, tx pgx.Tx, no int32) (m moment, err error) {
	err = tx.QueryRow(ctx, `SELECT pg_postmaster_start_time()::text, clock_timestamp() < closes + replay_ms * interval '1 millisecond'
		FROM sales WHERE no = $1`, no).Scan(&m.server, &m.recent)
	return m, err
}

// picture reads the orders of a sale that nobody changes meanwhile.
func picture(ctx context.Context, tx pgx.Tx, no int32, after *Survey) ([]LiveOrder, []Tombstone, error) {
	now, err := presently(ctx, tx, no)
	if err != nil {
		return nil, nil, err
	}
	if after == nil || after.of != now || time.Since(after.read) > surveyMost {
		return (&Survey{of: now}).readAll(ctx, tx, no)
	}
	return after.update(ctx, tx, no)
}

const selectOrders = `SELECT id, state, returned, hold_epoch, hold_seq, body, total, limit_buyer, limit_identity, accepted_at,
	coalesce(extract(epoch FROM finished_at)::bigint, 0), buyer, identities, lines FROM orders WHERE sale_no = $1 AND `

func (v *Survey) readAll(ctx context.Context, tx pgx.Tx, no int32) (live []LiveOrder, dead []Tombstone, err error) {
	// Room for what claims units: a slice that grows is copied again and again.
	var claimed int64
	if err := tx.QueryRow(ctx, `SELECT coalesce(sum(claimed), 0)::bigint FROM items WHERE sale_no = $1`, no).Scan(&claimed); err != nil {
		return nil, nil, err
	}
	live = make([]LiveOrder, 0, min(claimed, roomMost))
	rows, err := tx.Query(ctx, selectOrders+`($2 OR (state <> $3 AND NOT returned))`, no, v.of.recent, engine.Cancelled)
	if err != nil {
		return nil, nil, err
	}
	err = eachOrder(rows, func(o LiveOrder, t *Tombstone) {
		if t != nil {
			dead = append(dead, *t)
		} else {
			live = append(live, o)
		}
	})
	return live, dead, err
}

// update returns the survey as it is now.
func (v *Survey) update(ctx context.Context, tx pgx.Tx, no int32) ([]LiveOrder, []Tombstone, error) {
	rows, err := tx.Query(ctx, selectOrders+`age(xmin) <= age($2::text::xid)`, no, v.since)
	if err != nil {
		return nil, nil, err
	}
	changed := map[engine.OrderID]bool{}
	var live []LiveOrder
	var dead []Tombstone
	err = eachOrder(rows, func(o LiveOrder, t *Tombstone) {
		if t == nil {
			changed[o.Order.Order], live = true, append(live, o)
			return
		}
		changed[t.Order] = true
		if v.of.recent {
			dead = append(dead, *t)
		}
	})
	if err != nil {
		return nil, nil, err
	}
	// In place: to copy a hundred thousand orders takes longer than all of the above.
	v.live = slices.DeleteFunc(v.live, func(o LiveOrder) bool { return changed[o.Order.Order] })
	v.tombstones = slices.DeleteFunc(v.tombstones, func(t Tombstone) bool { return changed[t.Order] })
	return append(v.live, live...), append(v.tombstones, dead...), nil
}

// eachOrder hands over the rows of selectOrders: an order that claims units, or the
// tombstone of one that does not.
func eachOrder(rows pgx.Rows, each func(o LiveOrder, t *Tombstone)) error {
	var o engine.Order
	var state engine.OrderState
	var returned bool
	var body, finished int64
	var accepted time.Time
	var identities, lines string
	into := []any{
		&o.Order, &state, &returned, &o.Hold.Epoch, &o.Hold.Seq, &body, &o.Total, &o.LimitBuyer, &o.LimitIdentity, &accepted,
		&finished, &o.Buyer, &identities, &lines,
	}
	_, err := pgx.ForEachRow(rows, into, func() error {
		o.Body, o.AcceptedAt = uint64(body), accepted.UnixMilli()
		settled := state == engine.Confirmed
		if !state.Live() || returned {
			each(LiveOrder{}, &Tombstone{o.Order, o.Hold, o.Body, settled, finished})
			return nil
		}
		if err := parseBasket(&o, identities, lines); err != nil {
			return err
		}
		each(LiveOrder{Order: o, Settled: settled, Finished: finished}, nil)
		return nil
	})
	return err
}
