package audit

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/doorbuster/doorbuster/engine"
)

// books are what PostgreSQL says of a sale, all of one snapshot.
type books struct {
	no                                  int32
	sale                                engine.Sale // without names and hold; Items in order
	frozen                              bool
	now                                 time.Time
	claimed                             map[engine.SKU]int64
	rows                                []row
	index                               map[engine.OrderID]int32 // of rows
	tellings                            []telling                // by row
	spent                               []int64                  // seqs of the present epoch whose hold was dropped or released without an order
	pending, rejected, tasks, parked    int64                    // release rows, rejected orders, tasks owed to the provider, orders to be taken again
	released                            map[engine.OrderID]bool  // under a hold that is not its own, or without being written
	counters                            map[string]int64         // used units by key, as engine/orders writes it
	own                                 ownBooks
	blindUntil                          int64                    // Unix milliseconds: before, Redis may have held units of which no row here tells
	restocks                            map[engine.SKU][]stocked // when Redis had them
	pruned                              bool                     // release rows of a settled sale's orders are gone: a week has passed
	redefinedAt                         int64                    // Unix milliseconds, 0 never
	baskets                             map[string]*basket
	first, lastEnd, lastConfirm, maxSeq int64 // Unix milliseconds; highest seq of the present epoch
}

// row is an order. Times are Unix milliseconds, 0 if not yet.
type row struct {
	id                               engine.OrderID
	buyer                            engine.BuyerID
	identities                       string
	lines                            *basket
	state                            engine.OrderState
	reason                           engine.Reason
	stray, returned                  bool
	hold                             engine.Hold
	body                             uint64
	total, limitBuyer, limitIdentity int64
	accepted, ingested, finished     int64
	back                             int64 // when Redis surely had followed its end
}

// live tells whether the order claims its units.
func (r *row) live() bool { return r.state.Live() && !r.returned }

// admitted tells whether the order ever claimed units in PostgreSQL: those that
// a guard refused did not.
func (r *row) admitted() bool {
	switch r.reason {
	case engine.ReasonSoldOut, engine.ReasonLimit, engine.ReasonEpoch, engine.ReasonRejected:
		return false
	}
	return true
}

// rejected tells whether the order could not be ingested. It is written as a stray, so
// that its number can stand beside any other's; the number is spent all the same.
func (r *row) rejected() bool { return r.reason == engine.ReasonRejected }

var errNoSale = errors.New("PostgreSQL knows no such sale")

// readBooks reads a whole sale: about 300 bytes of memory per order.
func readBooks(ctx context.Context, pool *pgxpool.Pool, id engine.SaleID) (*books, error) {
	b := &books{
		claimed: map[engine.SKU]int64{}, index: map[engine.OrderID]int32{},
		counters: map[string]int64{}, baskets: map[string]*basket{}, restocks: map[engine.SKU][]stocked{},
	}
	err := snapshot(ctx, pool, func(tx pgx.Tx) error {
		if err := b.readSale(ctx, tx, id); err != nil {
			return err
		}
		for _, read := range []func(context.Context, pgx.Tx) error{b.readOrders, b.readMoves, b.readRestocks, b.readCounters, b.readCounts, b.readOwn} {
			if err := read(ctx, tx); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read sale %s from PostgreSQL: %w", id, err)
	}
	return b, nil
}

// snapshot runs fn in a transaction that sees one moment and writes nothing.
func snapshot(ctx context.Context, pool *pgxpool.Pool, fn func(pgx.Tx) error) error {
	return pgx.BeginTxFunc(ctx, pool, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}, fn)
}

func (b *books) readSale(ctx context.Context, tx pgx.Tx, id engine.SaleID) error {
	s := &b.sale
	s.ID = id
	var replay int64
	err := tx.QueryRow(ctx, `SELECT no, state, epoch, frozen, version, payment, provider, currency, opens, closes,
		limit_buyer, limit_identity, pruned, key_number, replay_ms, clock_timestamp() FROM sales WHERE id = $1`, id).
		Scan(&b.no, &s.State, &s.Epoch, &b.frozen, &s.Version, &s.Payment, &s.Provider, &s.Currency, &s.Opens, &s.Closes,
			&s.LimitPerBuyer, &s.LimitPerIdentity, &b.pruned, &s.KeyNumber, &replay, &b.now)
	if errors.Is(err, pgx.ErrNoRows) {
		return errNoSale
	}
	if err != nil {
		return err
	}
	s.ReplayWindow = time.Duration(replay) * time.Millisecond
	rows, err := tx.Query(ctx, `SELECT sku, price, units, claimed FROM items WHERE sale_no = $1 ORDER BY pos`, b.no)
	if err != nil {
		return err
	}
	var it engine.Item
	var claimed int64
	_, err = pgx.ForEachRow(rows, []any{&it.SKU, &it.Price, &it.Units, &claimed}, func() error {
		s.Items = append(s.Items, it)
		b.claimed[it.SKU] = claimed
		return nil
	})
	return err
}

const orderColumns = `id, buyer, identities, lines, state, reason, stray, returned, hold_epoch, hold_seq, body, total,
	limit_buyer, limit_identity, accepted_at, ingested_at, finished_at`

func (b *books) readOrders(ctx context.Context, tx pgx.Tx) error {
	rows, err := tx.Query(ctx, `SELECT `+orderColumns+` FROM orders WHERE sale_no = $1`, b.no)
	if err != nil {
		return err
	}
	return b.scanOrders(rows, func(r *row) {
		b.index[r.id] = int32(len(b.rows))
		b.rows = append(b.rows, *r)
		b.note(r)
	})
}

func (b *books) scanOrders(rows pgx.Rows, take func(*row)) error {
	var r row
	var lines string
	var body int64
	var accepted, ingested time.Time
	var finished *time.Time
	_, err := pgx.ForEachRow(rows, []any{
		&r.id, &r.buyer, &r.identities, &lines, &r.state, &r.reason, &r.stray, &r.returned,
		&r.hold.Epoch, &r.hold.Seq, &body, &r.total, &r.limitBuyer, &r.limitIdentity, &accepted, &ingested, &finished,
	}, func() error {
		r.body, r.accepted, r.ingested, r.finished = uint64(body), accepted.UnixMilli(), ingested.UnixMilli(), 0
		if finished != nil {
			r.finished = finished.UnixMilli()
		}
		var err error
		if r.lines, err = b.basket(lines); err != nil {
			return fmt.Errorf("order %s: %w", r.id, err)
		}
		take(&r)
		return nil
	})
	return err
}

// basket shares equal texts: a sale has few.
func (b *books) basket(text string) (*basket, error) {
	if s := b.baskets[text]; s != nil {
		return s, nil
	}
	lines, err := engine.ParseLines(text)
	if err != nil {
		return nil, err
	}
	s := &basket{text: text, lines: lines}
	if s.sum, err = engine.Total(lines); err != nil {
		return nil, err
	}
	b.baskets[text] = s
	return s, nil
}

// note keeps the times and numbers of the figures.
func (b *books) note(r *row) {
	if b.first == 0 || r.accepted < b.first {
		b.first = r.accepted
	}
	b.lastEnd = max(b.lastEnd, r.finished)
	if r.state == engine.Confirmed {
		b.lastConfirm = max(b.lastConfirm, r.finished)
	}
	if r.hold.Epoch == b.sale.Epoch && !r.stray {
		b.maxSeq = max(b.maxSeq, r.hold.Seq)
	}
}

// telling counts the release rows that tell an order's end.
type telling struct {
	first uint16 // of the transactions that ended it: one
	again uint16 // of its repeats, one per hold
}

// readMoves counts the release rows that end each order, and notes when the last of
// them was done.
func (b *books) readMoves(ctx context.Context, tx pgx.Tx) error {
	b.tellings = make([]telling, len(b.rows))
	b.released = map[engine.OrderID]bool{}
	rows, err := tx.Query(ctx, `SELECT orders[1], hold_epoch, hold_seq FROM moves WHERE sale_no = $1 AND op IN (2, 3)`, b.no)
	if err != nil {
		return err
	}
	var of engine.OrderID
	var hold engine.Hold
	_, err = pgx.ForEachRow(rows, []any{&of, &hold.Epoch, &hold.Seq}, func() error {
		b.released[of] = true
		if hold.Epoch == b.sale.Epoch {
			b.spent = append(b.spent, hold.Seq)
		}
		return nil
	})
	if err != nil {
		return err
	}
	rows, err = tx.Query(ctx, `SELECT unnest(orders), hold_seq > 0, done_at FROM moves WHERE sale_no = $1 AND op = 0`, b.no)
	if err != nil {
		return err
	}
	var id engine.OrderID
	var again bool
	var done *time.Time
	_, err = pgx.ForEachRow(rows, []any{&id, &again, &done}, func() error {
		i, ok := b.index[id]
		if ok {
			b.tellings[i].count(again)
		}
		if ok && done != nil {
			b.rows[i].back = max(b.rows[i].back, done.UnixMilli())
		}
		return nil
	})
	return err
}

func (t *telling) count(again bool) {
	n := &t.first
	if again {
		n = &t.again
	}
	if *n < 1<<15 {
		*n++
	}
}

// readRestocks reads when units were added.
func (b *books) readRestocks(ctx context.Context, tx pgx.Tx) error {
	rows, err := tx.Query(ctx, `SELECT lines, coalesce(done_at, clock_timestamp()) FROM moves WHERE sale_no = $1 AND op = $2`, b.no, engine.Restock)
	if err != nil {
		return err
	}
	var text string
	var at time.Time
	_, err = pgx.ForEachRow(rows, []any{&text, &at}, func() error {
		lines, err := engine.ParseLines(text)
		for _, l := range lines {
			b.restocks[l.SKU] = append(b.restocks[l.SKU], stocked{at.UnixMilli(), l.Quantity})
		}
		return err
	})
	return err
}

func (b *books) readCounters(ctx context.Context, tx pgx.Tx) error {
	rows, err := tx.Query(ctx, `SELECT key, used FROM counters WHERE sale_no = $1 AND used <> 0`, b.no)
	if err != nil {
		return err
	}
	var key string
	var used int64
	_, err = pgx.ForEachRow(rows, []any{&key, &used}, func() error {
		b.counters[key] = used
		return nil
	})
	return err
}

func (b *books) readCounts(ctx context.Context, tx pgx.Tx) error {
	var blind, redefined *time.Time
	err := tx.QueryRow(ctx, `SELECT
		(SELECT count(*) FROM moves WHERE sale_no = $1 AND NOT done),
		(SELECT count(*) FROM tasks t JOIN books k ON k.no = t.book WHERE k.sale = $2),
		(SELECT count(*) FROM rejected WHERE sale = $2),
		(SELECT coalesce(sum(n), 0)::bigint FROM parked WHERE sale_no = $1),
		(SELECT max(t) FROM (SELECT coalesce(done_at, clock_timestamp()) FROM moves WHERE sale_no = $1 AND op IN (2, 3)
			UNION ALL SELECT cut_at FROM sales WHERE no = $1 AND epoch > 1) AS u (t)),
		(SELECT max(at) FROM trail WHERE sale_no = $1 AND what = 'redefine')`, b.no, b.sale.ID).
		Scan(&b.pending, &b.tasks, &b.rejected, &b.parked, &blind, &redefined)
	if blind != nil {
		b.blindUntil = blind.UnixMilli()
	}
	if redefined != nil {
		b.redefinedAt = redefined.UnixMilli()
	}
	return err
}

// ownBooks is what our own ledger says, beside the provider's.
type ownBooks struct {
	net        int64 // captured − refunded, minor units
	unbalanced int64 // books whose postings do not add up to 0
	missing    int64 // confirmed orders without a charge
}

func (b *books) readOwn(ctx context.Context, tx pgx.Tx) error {
	return tx.QueryRow(ctx, `SELECT
		(SELECT coalesce(sum(c.captured - c.refunded), 0)::bigint FROM charges c JOIN books k ON k.no = c.book WHERE k.sale = $2),
		(SELECT count(*) FROM (SELECT 1 FROM postings p JOIN books k ON k.no = p.book WHERE k.sale = $2
			GROUP BY k.no HAVING sum(p.amount) <> 0) AS u),
		(SELECT count(*) FROM orders o WHERE o.sale_no = $1 AND o.state = 3
			AND NOT EXISTS (SELECT FROM charges c WHERE c.order_id = o.id))`, b.no, b.sale.ID).
		Scan(&b.own.net, &b.own.unbalanced, &b.own.missing)
}
