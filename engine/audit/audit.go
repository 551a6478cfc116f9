package audit

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/redis/go-redis/v9"

	"github.com/doorbuster/doorbuster/engine"
	"github.com/doorbuster/doorbuster/engine/queue"
	"github.com/doorbuster/doorbuster/payment/provider"
	"github.com/doorbuster/doorbuster/stock"
)

// Limits of the auditor's own use of the servers.
const (
	maxConns       = 2               // of PostgreSQL
	connectTimeout = 5 * time.Second // to PostgreSQL
	askTimeout     = 10 * time.Second
)

// Ledger is the book of a payment provider: provider.Auditor.
type Ledger interface {
	Ledger(ctx context.Context) iter.Seq2[provider.Charge, error]
}

// Config says where to look. What is missing, or does not answer, leaves its
// laws unchecked.
type Config struct {
	DatabaseURL string
	RedisURL    string
	Queue       queue.Config      // URL empty: queues are not looked at
	Ledgers     map[string]Ledger // by provider name
	Logger      *slog.Logger      // nil: none
	Now         func() time.Time  // nil: time.Now
}

// Auditor audits sales.
type Auditor struct {
	cfg    Config
	pool   *pgxpool.Pool
	rdb    redis.UniversalClient
	stock  *stock.Store
	unread []string // of the slot that is being read
	memory map[engine.SaleID]*memory
}

// Open returns an auditor. It connects to nothing yet; the error is for a URL
// that cannot be read.
func Open(cfg Config) (*Auditor, error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	a := &Auditor{cfg: cfg, memory: map[engine.SaleID]*memory{}}
	if err := a.openPool(); err != nil {
		return nil, err
	}
	rdb, err := stock.Open(cfg.RedisURL)
	if err != nil {
		a.pool.Close()
		return nil, fmt.Errorf("audit: %w", err)
	}
	a.rdb, a.stock = rdb, stock.New(rdb)
	a.stock.OnUnreadable(func(u stock.Unreadable) {
		a.unread = append(a.unread, fmt.Sprintf("%s %s of epoch %d cannot be read: %v", u.What, u.ID, u.Epoch, u.Cause))
	})
	return a, nil
}

// openPool makes a pool of its own rather than postgres.Open's, which wants the
// server up at once: a server that is down is a finding here.
func (a *Auditor) openPool() error {
	pc, err := pgxpool.ParseConfig(a.cfg.DatabaseURL)
	if err != nil {
		return fmt.Errorf("audit: %w", err)
	}
	pc.MaxConns = maxConns
	pc.ConnConfig.ConnectTimeout = connectTimeout
	pc.ConnConfig.RuntimeParams["application_name"] = "doorbuster audit"
	pc.ConnConfig.RuntimeParams["timezone"] = "UTC"
	if a.pool, err = pgxpool.NewWithConfig(context.Background(), pc); err != nil {
		return fmt.Errorf("audit: %w", err)
	}
	return nil
}

// Close closes its connections.
func (a *Auditor) Close() {
	a.pool.Close()
	_ = a.rdb.Close()
}

func (a *Auditor) report(sale engine.SaleID, atRest bool) Report {
	return Report{Sale: sale, At: a.cfg.Now().UTC(), AtRest: atRest, Figures: Figures{CancelReasons: Reasons{}}}
}

// AtRest checks every law. clientLog may be nil: laws 8, 11 and 12 are then
// unchecked. What an earlier Live of this Auditor saw broken is broken here too.
// The error is for the end of ctx; whatever else fails is in the report.
func (a *Auditor) AtRest(ctx context.Context, sale engine.SaleID, clientLog io.Reader) (Report, error) {
	r := a.report(sale, true)
	b, bookErr := readBooks(ctx, a.pool, sale)
	s, slotErr := a.readAll(ctx, sale)
	if err := ctx.Err(); err != nil {
		return r, err
	}
	if slotErr != nil {
		r.add(unchecked(1, slotErr))
	} else {
		r.add(law1(s))
	}
	if bookErr != nil {
		for _, n := range []int{2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14} {
			r.add(unchecked(n, bookErr))
		}
		return a.finish(ctx, &r)
	}
	sum := b.sums()
	r.figures(b, sum)
	var heard witness
	if clientLog != nil {
		heard.crowd, heard.err = readCrowd(ctx, clientLog)
	}
	r.add(b.law2(sum), law3(&b.sale, sum), law4(b.rows), law5(b, a.remember(sale).ends, heard.crowd))
	a.chargesLaw(ctx, &r, b)
	r.add(law7(b, s), a.law9(ctx, b, s, slotErr))
	if slotErr != nil {
		r.add(unchecked(10, slotErr), unchecked(13, slotErr))
	} else {
		r.add(law10(b, s, sum), a.law13(ctx, b, s))
	}
	r.add(a.law14(ctx, b, slotErr))
	heard.laws(&r, b, sum)
	return a.finish(ctx, &r)
}

// finish adds what samples saw, sorts and judges.
func (a *Auditor) finish(ctx context.Context, r *Report) (Report, error) {
	a.remember(r.Sale).into(r)
	r.judge()
	for i := range r.Laws {
		if r.Laws[i].Holds == Broken {
			a.cfg.Logger.Error("law broken", "sale", r.Sale, "law", r.Laws[i].Number, "detail", r.Laws[i].Detail)
		}
	}
	return *r, ctx.Err()
}

// law2 checks items and counters against live orders.
func (b *books) law2(sum sums) Law {
	var f findings
	claims(&b.sale, b.claimed, sum, &f)
	used := b.used()
	for key, n := range b.counters {
		if used[key] != n {
			f.add("counter %s is %d, live orders have %d", key, n, used[key])
		}
	}
	for key, n := range used {
		if _, ok := b.counters[key]; !ok && n != 0 {
			f.add("counter %s is missing, live orders have %d", key, n)
		}
	}
	return f.law(2, "%d units claimed by live orders of %d; %d counters agree", total(sum.live), units(&b.sale), len(b.counters))
}

func (a *Auditor) chargesLaw(ctx context.Context, r *Report, b *books) {
	ledger := a.cfg.Ledgers[b.sale.Provider]
	if ledger == nil {
		r.add(excused(6, fmt.Sprintf("no ledger of provider %q was given", b.sale.Provider)))
		return
	}
	t, err := readLedger(ctx, ledger, b)
	if err == nil {
		err = t.foreign(ctx, a.pool)
	}
	if err != nil {
		r.add(unchecked(6, err))
		return
	}
	l, double := law6(b, t)
	r.DoubleCharged = &double
	r.add(l)
}

func (a *Auditor) law9(ctx context.Context, b *books, s *slot, slotErr error) Law {
	if slotErr != nil {
		return unchecked(9, slotErr)
	}
	var f findings
	open := map[engine.OrderState]int64{}
	for i := range b.rows {
		open[b.rows[i].state]++
	}
	for _, state := range []engine.OrderState{engine.Reserved, engine.Paying} {
		if open[state] != 0 {
			f.add("%d orders %s", open[state], state)
		}
	}
	for _, c := range []struct {
		n    int64
		what string
	}{{s.outbox, "envelopes in the outbox"}, {b.pending, "release rows pending"}, {b.rejected, "orders rejected"}, {b.parked, "orders parked"}, {b.tasks, "tasks owed to the provider"}} {
		if c.n != 0 {
			f.add("%d %s", c.n, c.what)
		}
	}
	if b.frozen {
		f.add("the sale is frozen")
	}
	if a.cfg.Queue.URL == "" {
		l := f.law(9, "unchecked: queues were not looked at")
		if l.Holds == Holds {
			l.Holds, l.Excused = Unchecked, true
		}
		return l
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	queued, dead, err := a.depths(ctx)
	switch {
	case err != nil && f.n == 0:
		return unchecked(9, err)
	case err != nil:
		f.add("queues unknown: %v", err)
	case queued != 0 || dead != 0:
		f.add("%d messages queued, %d dead", queued, dead)
	}
	return f.law(9, "outbox, queues, rejected and parked orders and release rows are empty; nothing is paying")
}

func (a *Auditor) depths(ctx context.Context) (queued, dead int, err error) {
	ready, dead, err := queue.Depths(ctx, a.cfg.Queue)
	if err != nil {
		return 0, 0, fmt.Errorf("read queue depths: %w", err)
	}
	for _, n := range ready {
		queued += n
	}
	return queued, dead, nil
}

// law14 reads both clocks one after the other. Without Redis it still checks the
// orders, but cannot hold.
func (a *Auditor) law14(ctx context.Context, b *books, slotErr error) Law {
	var f findings
	inWindow(&b.sale, b.rows, b.redefinedAt, &f)
	skew, err := a.skew(ctx, b.sale.ID, &f)
	if err = errors.Join(slotErr, err); err != nil && f.n == 0 {
		return unchecked(14, err)
	}
	return f.law(14, "%d accepts inside the window; Redis' clock is %s off PostgreSQL's", len(b.rows), skew.Round(time.Millisecond))
}

func (a *Auditor) skew(ctx context.Context, sale engine.SaleID, f *findings) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	var now time.Time
	if err := a.pool.QueryRow(ctx, `SELECT clock_timestamp()`).Scan(&now); err != nil {
		return 0, fmt.Errorf("read PostgreSQL's clock: %w", err)
	}
	w, err := a.stock.Watch(ctx, sale, 0)
	if err != nil {
		return 0, fmt.Errorf("read Redis' clock: %w", err)
	}
	return clocks(w.Now, now, f), nil
}

// witness is the crowd's log, if there was one.
type witness struct {
	crowd *crowd
	err   error
}

// laws checks laws 8, 11 and 12.
func (w *witness) laws(r *Report, b *books, sum sums) {
	c := w.crowd
	if c == nil {
		for _, n := range []int{8, 11, 12} {
			if w.err != nil {
				r.add(unchecked(n, w.err))
			} else {
				r.add(excused(n, "no client log was given"))
			}
		}
		return
	}
	l8, lost := law8(b, c)
	l11, undersold := law11(b, c, sum)
	r.add(l8, l11, law12(b, c))
	r.crowdFigures(b, c)
	r.Lost, r.Undersold = &lost, &undersold
}
