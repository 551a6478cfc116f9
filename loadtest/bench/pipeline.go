package bench

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/doorbuster/doorbuster/engine"
	"github.com/doorbuster/doorbuster/engine/postgres"
	"github.com/doorbuster/doorbuster/engine/queue"
)

// (g) is what is left of the worker when everything that thinks is taken out: the
// same messages go through the same kind of queue, and the same rows are written,
// in tables of the same columns and indexes, by the same number of loops in the
// same three transactions per batch. No guard, no lock of a sale, no provider, no
// stale order, no lease, no answer to anybody.

const (
	bareSchema   = "bench_bare"
	barePrefix   = "bench-bare."
	bareSale     = "bench-bare" // whose queue carries the messages
	bareSaleNo   = 1
	bareBatch    = 12 // messages of one transaction: about as many orders as the worker writes together
	barePayers   = 2  // as payment.DefaultPayers
	bareWindow   = 4  // publishers, as many as a door has groups in flight
	bareConns    = 12
	bareInHand   = 4
	drainTimeout = 5 * time.Minute
)

const bareSetup = `DROP SCHEMA IF EXISTS ` + bareSchema + ` CASCADE;
	CREATE SCHEMA ` + bareSchema + `;
	CREATE TABLE ` + bareSchema + `.items (LIKE public.items INCLUDING ALL);
	CREATE TABLE ` + bareSchema + `.orders (LIKE public.orders INCLUDING ALL);
	CREATE TABLE ` + bareSchema + `.counters (LIKE public.counters INCLUDING ALL);
	CREATE TABLE ` + bareSchema + `.work (LIKE public.work INCLUDING ALL);
	CREATE TABLE ` + bareSchema + `.moves (LIKE public.moves INCLUDING ALL);
	CREATE TABLE ` + bareSchema + `.charges (LIKE public.charges INCLUDING ALL);
	CREATE TABLE ` + bareSchema + `.postings (LIKE public.postings INCLUDING ALL);
	CREATE TABLE ` + bareSchema + `.tasks (LIKE public.tasks INCLUDING ALL);
	INSERT INTO ` + bareSchema + `.items (sale_no, sku, pos, name, price, units) VALUES (1, 'MUG', 0, 'Mug', 1500, 100000000);`

const bareDrop = `DROP SCHEMA IF EXISTS ` + bareSchema + ` CASCADE`

// barePipeline is (g), with as many orders in groups as large as (f) had beside it.
func (b *bench) barePipeline(ctx context.Context, _ *doors) (err error) {
	if b.lastOrders == 0 || b.lastGroup == 0 {
		return errors.New("nothing to compare with: (f) measured no orders or no messages")
	}
	cfg := queue.Config{URL: b.cfg.AMQP, Prefix: barePrefix, Logger: b.cfg.Logger}
	if err := queue.Declare(ctx, cfg); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, queue.Delete(context.WithoutCancel(ctx), cfg)) }()
	if _, err := b.pool.Exec(ctx, bareSetup); err != nil {
		return err
	}
	defer func() {
		_, dropErr := b.pool.Exec(context.WithoutCancel(ctx), bareDrop)
		err = errors.Join(err, dropErr)
	}()
	pool, err := postgres.Open(ctx, b.cfg.Database, postgres.Options{MaxConns: bareConns, Name: "doorbuster bench bare"})
	if err != nil {
		return err
	}
	defer pool.Close()
	p := &bare{cfg: cfg, pool: pool, envelopes: envelopes(int(b.lastOrders), b.lastGroup), want: b.lastOrders}
	took, err := p.run(ctx)
	if err != nil {
		return err
	}
	rate := float64(b.lastOrders) / took.Seconds()
	b.add("(g)", rate)
	b.say("%-16s %9.0f/s  %d orders in messages of %d", "(g)", rate, b.lastOrders, b.lastGroup)
	return nil
}

// envelopes are the messages of n orders, size to each.
func envelopes(n, size int) [][]byte {
	var out [][]byte
	ids := newIDs()
	for from := 0; from < n; from += size {
		e := engine.Envelope{Sale: bareSale}
		for i := from; i < min(n, from+size); i++ {
			e.Orders = append(e.Orders, engine.Order{
				Basket: ids.basket(i), Hold: engine.Hold{Epoch: 1, Seq: int64(i + 1)},
				AcceptedAt: time.Now().UnixMilli(), LimitBuyer: 4,
			})
		}
		out = append(out, engine.AppendEnvelope(nil, &e))
	}
	return out
}

// bare is one run of (g).
type bare struct {
	cfg       queue.Config
	pool      *pgxpool.Pool
	envelopes [][]byte
	want      int64
	confirmed atomic.Int64
	end       atomic.Int64 // Unix nanoseconds of the last confirmation
	fail      atomic.Pointer[error]
	cancel    context.CancelFunc
}

type bareOrders struct {
	ids, buyers, lines   []string
	seqs, bodies, totals []int64
	accepted             []time.Time
	moves                []int64 // rows that end them
	task                 int64
}

// groups cuts the ids as the engine cuts them into rows.
func (o *bareOrders) groups() iter.Seq[[]string] { return slices.Chunk(o.ids, engine.MaxGroup) }

func (p *bare) run(ctx context.Context) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, drainTimeout)
	defer cancel()
	p.cancel = cancel
	toPay, toCapture := make(chan *bareOrders, bareInHand), make(chan *bareOrders, bareInHand)
	var payers, rest sync.WaitGroup
	for range barePayers {
		payers.Go(func() { p.each(ctx, toPay, p.pay, toCapture) })
	}
	rest.Go(func() { p.each(ctx, toCapture, p.capture, nil) })
	rest.Go(func() {
		opt := queue.ConsumeOptions{Prefetch: 3 * bareBatch, MaxBatch: bareBatch}
		err := queue.Consume(ctx, p.cfg, queue.IngestQueue(bareSale), opt, func(ctx context.Context, batch []*queue.Delivery) {
			p.take(ctx, batch, toPay)
		})
		p.failed(ctx, err)
		close(toPay)
		payers.Wait()
		close(toCapture)
	})
	pub := queue.NewPublisher(p.cfg)
	rest.Go(func() { p.failed(ctx, pub.Run(ctx)) })
	start := time.Now()
	p.publish(ctx, pub)
	for p.confirmed.Load() < p.want && pause(ctx, poll) {
		continue
	}
	err := ctx.Err()
	cancel()
	rest.Wait()
	if f := p.fail.Load(); f != nil {
		return 0, *f
	}
	if err != nil {
		return 0, fmt.Errorf("%d of %d orders were confirmed: %w", p.confirmed.Load(), p.want, err)
	}
	return time.Unix(0, p.end.Load()).Sub(start), nil
}

// failed keeps the first error and ends the run. Errors after the end of ctx are
// its consequence.
func (p *bare) failed(ctx context.Context, err error) {
	if err == nil || ctx.Err() != nil {
		return
	}
	if p.fail.CompareAndSwap(nil, &err) {
		p.cancel()
	}
}

func (p *bare) publish(ctx context.Context, pub *queue.Publisher) {
	var next atomic.Int64
	var all sync.WaitGroup
	for range bareWindow {
		all.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= len(p.envelopes) {
					return
				}
				err := pub.Publish(ctx, bareSale, p.envelopes[i])
				for errors.Is(err, queue.ErrDown) && pause(ctx, poll) { // not connected yet
					err = pub.Publish(ctx, bareSale, p.envelopes[i])
				}
				p.failed(ctx, err)
				if err != nil {
					return
				}
			}
		})
	}
	all.Wait()
}

func (p *bare) take(ctx context.Context, batch []*queue.Delivery, toPay chan<- *bareOrders) {
	o := new(bareOrders)
	for _, d := range batch {
		e, _, err := engine.ParseEnvelope(d.Body)
		if err != nil {
			p.failed(ctx, err)
			return
		}
		for i := range e.Orders {
			o.add(&e.Orders[i])
		}
	}
	if err := p.ingest(ctx, o); err != nil {
		p.failed(ctx, err)
		return
	}
	for _, d := range batch {
		p.failed(ctx, d.Ack())
	}
	select {
	case toPay <- o:
	case <-ctx.Done():
	}
}

func (o *bareOrders) add(one *engine.Order) {
	o.ids = append(o.ids, string(one.Order))
	o.buyers = append(o.buyers, string(one.Buyer))
	o.lines = append(o.lines, string(engine.AppendLines(nil, one.Lines)))
	o.seqs = append(o.seqs, one.Hold.Seq)
	o.bodies = append(o.bodies, int64(one.Body))
	o.totals = append(o.totals, one.Total)
	o.accepted = append(o.accepted, one.Accepted())
}

// each does one step with every batch and hands it on.
func (p *bare) each(ctx context.Context, from <-chan *bareOrders, do func(context.Context, *bareOrders) error, to chan<- *bareOrders) {
	for o := range from {
		if err := do(ctx, o); err != nil {
			p.failed(ctx, err)
			continue
		}
		if to != nil {
			select {
			case to <- o:
			case <-ctx.Done():
			}
		}
	}
}

const bareOrdersInsert = `INSERT INTO ` + bareSchema + `.orders (sale_no, state, attempt, hold_epoch, limit_buyer, limit_identity, identities,
		due_at, id, buyer, lines, hold_seq, body, total, accepted_at)
	SELECT $1, 2, 1, 1, 4, 0, '', now() + interval '30 s', u.* FROM
		unnest($2::text[], $3::text[], $4::text[], $5::bigint[], $6::bigint[], $7::bigint[], $8::timestamptz[]) AS u`

func (p *bare) ingest(ctx context.Context, o *bareOrders) error {
	return p.inTx(ctx, func(b *pgx.Batch) {
		b.Queue(bareOrdersInsert, bareSaleNo, o.ids, o.buyers, o.lines, o.seqs, o.bodies, o.totals, o.accepted)
		b.Queue(`UPDATE `+bareSchema+`.items SET claimed = claimed + $2 WHERE sale_no = $1 AND sku = 'MUG'`, bareSaleNo, len(o.ids))
		b.Queue(`INSERT INTO `+bareSchema+`.counters AS c (sale_no, key, used, allowed) SELECT $1, 'b:' || u, 1, 4 FROM unnest($2::text[]) AS u
			ON CONFLICT (sale_no, key) DO UPDATE SET used = c.used + 1`, bareSaleNo, o.buyers)
		for ids := range o.groups() {
			b.Queue(`INSERT INTO `+bareSchema+`.work (sale_no, kind, due_at, orders) VALUES ($1, 1, now() + interval '30 s', $2)`, bareSaleNo, ids)
		}
	})
}

func (p *bare) pay(ctx context.Context, o *bareOrders) error {
	o.moves = o.moves[:0]
	err := p.inTx(ctx, func(b *pgx.Batch) {
		b.Queue(`UPDATE `+bareSchema+`.orders o SET state = 3, finished_at = now(), due_at = NULL WHERE o.id = ANY($1)`, o.ids)
		for ids := range o.groups() {
			b.Queue(`INSERT INTO `+bareSchema+`.moves (sale_no, op, n, orders) VALUES ($1, 0, $2, $3) RETURNING id`, bareSaleNo, len(ids), ids).
				QueryRow(func(row pgx.Row) error {
					var id int64
					err := row.Scan(&id)
					o.moves = append(o.moves, id)
					return err
				})
		}
		b.Queue(`INSERT INTO `+bareSchema+`.charges (book, attempt, order_id, amount) SELECT 1, 1, u.* FROM unnest($1::text[], $2::bigint[]) AS u`, o.ids, o.totals)
		b.Queue(`INSERT INTO `+bareSchema+`.tasks (kind, book, due_at, orders, attempts, amounts)
			VALUES (1, 1, now() + interval '20 s', $1, array_fill(1::smallint, ARRAY[cardinality($1::text[])]), $2) RETURNING id`, o.ids, o.totals).
			QueryRow(func(row pgx.Row) error { return row.Scan(&o.task) })
	})
	if err == nil {
		p.end.Store(time.Now().UnixNano())
		p.confirmed.Add(int64(len(o.ids)))
	}
	return err
}

func (p *bare) capture(ctx context.Context, o *bareOrders) error {
	return p.inTx(ctx, func(b *pgx.Batch) {
		b.Queue(`DELETE FROM `+bareSchema+`.tasks WHERE id = $1`, o.task)
		b.Queue(`WITH taken AS (UPDATE `+bareSchema+`.charges c SET state = 2, captured = c.amount, captured_at = now()
				WHERE c.order_id = ANY($1) AND c.attempt = 1 RETURNING c.no, c.amount)
			INSERT INTO `+bareSchema+`.postings (charge, book, kind, account, amount)
			SELECT t.no, 1, 1, a.account, a.sign * t.amount FROM taken t, (VALUES (1::smallint, 1), (2::smallint, -1)) AS a(account, sign)`, o.ids)
		b.Queue(`UPDATE `+bareSchema+`.moves SET done = true WHERE id = ANY($1)`, o.moves)
	})
}

func (p *bare) inTx(ctx context.Context, queue func(*pgx.Batch)) error {
	return postgres.InTx(ctx, p.pool, func(tx pgx.Tx) error {
		var b pgx.Batch
		queue(&b)
		return tx.SendBatch(ctx, &b).Close()
	})
}
