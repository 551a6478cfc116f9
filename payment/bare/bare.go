// Package bare is the yardstick of the bench: the least that could be called an
// order pipeline. It takes the same messages from the same queues and writes the
// same rows per order as ingest, pay and capture do together, and decides nothing:
// no guard, no retry, no provider, no stage of its own, everything of a batch in one
// transaction, acknowledged after the commit.
//
// It owns tables named bare_*, made in the likeness of the real ones (columns,
// indexes, fill factors), so that it goes on writing what the engine writes. One
// loop consumes; Config.Writers transactions run at once. Run blocks until ctx ends
// and everything it started has ended. It imports engine and engine/queue only.
package bare

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/sync/errgroup"

	"github.com/doorbuster/doorbuster/engine"
	"github.com/doorbuster/doorbuster/engine/queue"
)

// Config says what to consume and how. Pool and Queue are required.
type Config struct {
	Pool      *pgxpool.Pool
	Queue     queue.Config
	Sale      engine.SaleID // whose ingest queue is consumed
	SKU       engine.SKU
	Writers   int // transactions at once; 0 is DefaultWriters
	Envelopes int // in one transaction; 0 is DefaultEnvelopes
}

// Defaults of Config: those with which it was fastest on two cores.
const (
	DefaultWriters   = 3
	DefaultEnvelopes = 8
	prefetchFactor   = 3
	onlyNo           = 1 // of the sale, and of its book
)

// Prepare makes the tables, empty, beside the real ones, which must be there.
func Prepare(ctx context.Context, pool *pgxpool.Pool) error {
	for _, table := range []string{"orders", "counters", "items", "moves", "charges", "postings"} {
		if _, err := pool.Exec(ctx, `DROP TABLE IF EXISTS bare_`+table); err != nil {
			return fmt.Errorf("prepare bare_%s: %w", table, err)
		}
		if _, err := pool.Exec(ctx, fmt.Sprintf(`CREATE TABLE bare_%s (LIKE %[1]s INCLUDING ALL)`, table)); err != nil {
			return fmt.Errorf("prepare bare_%s: %w", table, err)
		}
		var options string // LIKE leaves the fill factor out
		err := pool.QueryRow(ctx, `SELECT coalesce(array_to_string(reloptions, ', '), '') FROM pg_class WHERE oid = $1::text::regclass`, table).Scan(&options)
		if err == nil && options != "" {
			_, err = pool.Exec(ctx, fmt.Sprintf(`ALTER TABLE bare_%s SET (%s)`, table, options))
		}
		if err != nil {
			return fmt.Errorf("prepare bare_%s: %w", table, err)
		}
	}
	return nil
}

// Confirmed counts the orders written.
func Confirmed(ctx context.Context, pool *pgxpool.Pool) (n int64, err error) {
	err = pool.QueryRow(ctx, `SELECT coalesce(sum(n), 0)::bigint FROM bare_moves`).Scan(&n)
	return n, err
}

// Run consumes until ctx ends, which is no error.
func Run(ctx context.Context, cfg Config) error {
	if cfg.Writers <= 0 {
		cfg.Writers = DefaultWriters
	}
	if cfg.Envelopes <= 0 {
		cfg.Envelopes = DefaultEnvelopes
	}
	_, err := cfg.Pool.Exec(ctx, `INSERT INTO bare_items (sale_no, sku, pos, name, price, units) VALUES ($1, $2, 1, '', 0, $3)
		ON CONFLICT DO NOTHING`, onlyNo, cfg.SKU, int64(engine.MaxUnits))
	if err != nil {
		return fmt.Errorf("bare: %w", err)
	}
	writers, stop := errgroup.WithContext(ctx)
	writers.SetLimit(cfg.Writers + 1)
	opt := queue.ConsumeOptions{Prefetch: cfg.Envelopes * prefetchFactor * cfg.Writers, MaxBatch: cfg.Envelopes}
	err = queue.Consume(stop, cfg.Queue, queue.IngestQueue(cfg.Sale), opt, func(_ context.Context, ds []*queue.Delivery) {
		own := append([]*queue.Delivery(nil), ds...)
		writers.Go(func() error { return cfg.write(context.WithoutCancel(ctx), own) })
	})
	if e := writers.Wait(); e != nil {
		return e
	}
	return err
}

// columns are the orders of a batch, as unnest wants them.
type columns struct {
	id, buyer, identities, lines []string
	epoch, seq, body, total      []int64
	limitBuyer, limitIdentity    []int64
	accepted                     []time.Time
	attempts                     []int16 // all 1: as a constant the planner reads the whole index for it
	keys                         []string
	units                        int64
}

func (c *columns) add(o *engine.Order) {
	c.id, c.buyer = append(c.id, string(o.Order)), append(c.buyer, string(o.Buyer))
	c.identities = append(c.identities, string(engine.AppendIdentities(nil, o.Identities)))
	c.lines = append(c.lines, string(engine.AppendLines(nil, o.Lines)))
	c.epoch, c.seq = append(c.epoch, o.Hold.Epoch), append(c.seq, o.Hold.Seq)
	c.body, c.total = append(c.body, int64(o.Body)), append(c.total, o.Total)
	c.limitBuyer, c.limitIdentity = append(c.limitBuyer, o.LimitBuyer), append(c.limitIdentity, o.LimitIdentity)
	c.accepted, c.attempts = append(c.accepted, o.Accepted()), append(c.attempts, 1)
	c.keys = append(c.keys, "b:"+string(o.Buyer))
	for i := range o.Identities {
		c.keys = append(c.keys, "i:"+string(engine.AppendIdentities(nil, o.Identities[i:i+1])))
	}
	c.units += engine.Units(o.Lines)
}

func (cfg *Config) write(ctx context.Context, ds []*queue.Delivery) error {
	var c columns
	for _, d := range ds {
		e, _, err := engine.ParseEnvelope(d.Body)
		if err != nil {
			return fmt.Errorf("bare: %w", err)
		}
		for i := range e.Orders {
			c.add(&e.Orders[i])
		}
	}
	err := pgx.BeginFunc(ctx, cfg.Pool, func(tx pgx.Tx) error { return tx.SendBatch(ctx, c.batch(cfg.SKU)).Close() })
	if err != nil {
		return fmt.Errorf("bare: %w", err)
	}
	for _, d := range ds {
		if err := d.Ack(); err != nil {
			return fmt.Errorf("bare: %w", err)
		}
	}
	return nil
}

// batch are the statements of one transaction: per order one insert and one update
// in orders, one in counters per buyer and identity, one insert and one update in
// charges, two inserts in postings; per batch one in items and in moves.
func (c *columns) batch(sku engine.SKU) *pgx.Batch {
	var b pgx.Batch
	b.Queue(`INSERT INTO bare_orders (sale_no, state, attempt, id, hold_epoch, hold_seq, accepted_at, limit_buyer, limit_identity, body, buyer, identities, lines, total)
		SELECT $1, 2, 1, u.* FROM unnest($2::text[], $3::bigint[], $4::bigint[], $5::timestamptz[], $6::bigint[], $7::bigint[], $8::bigint[],
			$9::text[], $10::text[], $11::text[], $12::bigint[]) AS u`,
		onlyNo, c.id, c.epoch, c.seq, c.accepted, c.limitBuyer, c.limitIdentity, c.body, c.buyer, c.identities, c.lines, c.total)
	b.Queue(`INSERT INTO bare_counters AS c (sale_no, key, used, allowed)
		SELECT $1, key, count(*), 0 FROM unnest($2::text[]) AS u(key) GROUP BY key ORDER BY key
		ON CONFLICT (sale_no, key) DO UPDATE SET used = c.used + excluded.used`, onlyNo, c.keys)
	b.Queue(`UPDATE bare_orders o SET state = 3, finished_at = now() FROM unnest($1::text[]) AS u(id) WHERE o.id = u.id`, c.id)
	b.Queue(`INSERT INTO bare_charges (book, order_id, attempt, amount) SELECT $1, u.id, 1, u.amount FROM unnest($2::text[], $3::bigint[]) AS u(id, amount)`,
		onlyNo, c.id, c.total)
	b.Queue(`WITH taken AS (UPDATE bare_charges c SET state = 2, captured = amount, captured_at = now() FROM unnest($1::text[], $2::smallint[]) AS u(id, attempt)
			WHERE c.order_id = u.id AND c.attempt = u.attempt RETURNING c.no, c.book, c.amount)
		INSERT INTO bare_postings (charge, book, kind, account, amount)
		SELECT t.no, t.book, 1, a.account, a.sign * t.amount FROM taken t, (VALUES (1::smallint, 1), (2::smallint, -1)) AS a(account, sign)`, c.id, c.attempts)
	b.Queue(`INSERT INTO bare_moves (sale_no, op, n, orders) VALUES ($1, 0, $2, $3)`, onlyNo, len(c.id), c.id)
	b.Queue(`UPDATE bare_items SET claimed = claimed + $3 WHERE sale_no = $1 AND sku = $2`, onlyNo, sku, c.units)
	return &b
}
