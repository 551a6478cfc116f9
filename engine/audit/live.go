package audit

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/doorbuster/doorbuster/engine"
)

// Bounds of a sample.
const (
	sampleOrders = 500              // newest orders that a sample looks at, and older ones it looks at again
	maxEnds      = 20_000           // orders whose ends are remembered from sample to sample
	ledgerEvery  = 10 * time.Second // how often a sample reads the provider's ledger
)

// memory is what samples of one sale saw.
type memory struct {
	ends     map[engine.OrderID]end
	broken   map[int]Law // first sight of each broken law
	law6     Law         // of the last reading of the ledger
	ledgerAt time.Time
	samples  int
}

func (a *Auditor) remember(sale engine.SaleID) *memory {
	m := a.memory[sale]
	if m == nil {
		m = &memory{ends: map[engine.OrderID]end{}, broken: map[int]Law{}}
		a.memory[sale] = m
	}
	return m
}

// keep notes which laws the report breaks.
func (m *memory) keep(r *Report) {
	m.samples++
	for i := range r.Laws {
		if l := r.Laws[i]; l.Holds == Broken {
			if _, known := m.broken[l.Number]; !known {
				l.Detail = fmt.Sprintf("at %s: %s", millis(r.At.UnixMilli()), l.Detail)
				m.broken[l.Number] = l
			}
		}
	}
}

// into makes laws that a sample saw broken broken in the report.
func (m *memory) into(r *Report) {
	for n, seen := range m.broken {
		switch l := r.Law(n); {
		case l == nil:
			r.add(seen)
		case l.Holds != Broken:
			*l = seen
		}
	}
	if l := r.Law(3); l != nil && l.Holds == Holds && r.AtRest && m.samples > 0 {
		l.Detail += fmt.Sprintf(", and no more at %d samples", m.samples)
	}
}

// sample is what one look at PostgreSQL saw, all of one snapshot.
type sample struct {
	books
	sum    sums
	states []stateCount
	recent []row // newest orders, and all others of their buyers
	again  []row // orders seen before
}

// Live checks what can be checked while the sale runs: laws 1 to 7 and 14, from
// counters and a sample of the newest orders. What it sees broken stays broken
// in every later report of this Auditor. The error is for the end of ctx.
func (a *Auditor) Live(ctx context.Context, sale engine.SaleID) (Report, error) {
	r := a.report(sale, false)
	m := a.remember(sale)
	ask, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	b, bookErr := a.readSample(ask, sale, m)
	s, slotErr := a.readSlot(ask, sale) // after PostgreSQL: Redis' numbers only rise
	if err := ctx.Err(); err != nil {
		return r, err
	}
	if slotErr != nil {
		r.add(unchecked(1, slotErr))
	} else {
		r.add(law1(s))
	}
	if bookErr != nil {
		for _, n := range []int{2, 3, 4, 5, 7, 14} {
			r.add(unchecked(n, bookErr))
		}
	} else {
		a.liveLaws(ask, &r, m, b, s)
	}
	r.add(a.liveCharges(ctx, m, b))
	m.keep(&r)
	return a.finish(ctx, &r)
}

func (a *Auditor) liveLaws(ctx context.Context, r *Report, m *memory, b *sample, s *slot) {
	var f2, f5, f14 findings
	claims(&b.sale, b.claimed, b.sum, &f2)
	r.add(f2.law(2, "%d units claimed by live orders of %d", total(b.sum.live), units(&b.sale)),
		law3(&b.sale, b.sum), law4(b.recent))
	for i := range b.again {
		checkEnd(&b.again[i], &f5)
		sawEnd(&b.again[i], m.ends, &f5)
	}
	m.see(b)
	r.add(f5.law(5, "%d orders are as they were or went on", len(b.again)), liveNumbers(b, s))
	inWindow(&b.sale, b.recent, b.redefinedAt, &f14)
	if skew, err := a.skew(ctx, b.sale.ID, &f14); err != nil && f14.n == 0 {
		r.add(unchecked(14, err))
	} else {
		r.add(f14.law(14, "%d accepts inside the window; Redis' clock is %s off PostgreSQL's", len(b.recent), skew.Round(time.Millisecond)))
	}
	r.Units, r.UnitsConfirmed, r.Oversold = units(&b.sale), total(b.sum.confirmed), oversold(&b.sale, b.sum)
	for _, c := range b.states {
		r.count(c.State, c.Reason, c.N)
	}
}

// see remembers the orders of this sample for the next ones.
func (m *memory) see(b *sample) {
	for _, rows := range [][]row{b.again, b.recent} {
		for i := range rows {
			r := &rows[i]
			if _, known := m.ends[r.id]; known || len(m.ends) < maxEnds {
				m.ends[r.id] = end{r.state, r.reason, r.finished}
			}
		}
	}
}

// liveNumbers is law 7 while the sale runs: PostgreSQL cannot be ahead of Redis,
// unless Redis lost something and the rebuild is yet to come.
func liveNumbers(b *sample, s *slot) Law {
	switch {
	case s == nil:
		return excused(7, "Redis does not answer")
	case s.watch.Epoch != b.sale.Epoch || b.frozen || s.watch.Frozen:
		return excused(7, "a rebuild is under way")
	case s.watch.Seq < b.maxSeq:
		return excused(7, fmt.Sprintf("Redis (number %d) is behind PostgreSQL (%d): a rebuild is due", s.watch.Seq, b.maxSeq))
	}
	var f findings
	seen := map[engine.Hold]engine.OrderID{}
	for i := range b.recent {
		o := &b.recent[i]
		if other, twice := seen[o.hold]; twice && !o.stray && other != o.id {
			f.add("%s names orders %s and %s", o.hold, other, o.id)
		}
		if !o.stray {
			seen[o.hold] = o.id
		}
	}
	return f.law(7, "PostgreSQL has up to %d of %d numbers of epoch %d", b.maxSeq, s.watch.Seq, b.sale.Epoch)
}

// liveCharges reads the provider's ledger now and then, and only asks whether
// anybody is charged twice.
func (a *Auditor) liveCharges(ctx context.Context, m *memory, b *sample) Law {
	if b == nil {
		return excused(6, "the sale's provider is not known")
	}
	ledger := a.cfg.Ledgers[b.sale.Provider]
	if ledger == nil {
		return excused(6, fmt.Sprintf("no ledger of provider %q was given", b.sale.Provider))
	}
	now := a.cfg.Now()
	if !m.ledgerAt.IsZero() && now.Sub(m.ledgerAt) < ledgerEvery {
		return m.law6
	}
	t, err := readLedger(ctx, ledger, &b.books)
	if err != nil {
		return unchecked(6, err)
	}
	var f findings
	for id, p := range t.strangers { // a sample has no rows: every order is a stranger
		if p.holding > 1 {
			f.add("order %s is charged %d times", id, p.holding)
		}
	}
	m.ledgerAt, m.law6 = now, f.law(6, "nobody is charged twice, of %d charges at %s", t.charges, millis(now.UnixMilli()))
	return m.law6
}

// readSample reads sums over all orders, and the newest ones in full.
func (a *Auditor) readSample(ctx context.Context, sale engine.SaleID, m *memory) (*sample, error) {
	b := &sample{books: books{claimed: map[engine.SKU]int64{}, baskets: map[string]*basket{}}}
	b.sum = sums{live: map[engine.SKU]int64{}, confirmed: map[engine.SKU]int64{}}
	err := snapshot(ctx, a.pool, func(tx pgx.Tx) error {
		if err := b.readSale(ctx, tx, sale); err != nil {
			return err
		}
		for _, read := range []func(context.Context, pgx.Tx, *memory) error{b.readSums, b.readStates, b.readRecent, b.readAgain} {
			if err := read(ctx, tx, m); err != nil {
				return err
			}
		}
		return b.readCounts(ctx, tx)
	})
	if err != nil {
		return nil, fmt.Errorf("read sale %s from PostgreSQL: %w", sale, err)
	}
	return b, nil
}

func (b *sample) readSums(ctx context.Context, tx pgx.Tx, _ *memory) error {
	rows, err := tx.Query(ctx, `SELECT split_part(l, '*', 1), sum(split_part(l, '*', 2)::bigint)::bigint,
		coalesce(sum(split_part(l, '*', 2)::bigint) FILTER (WHERE state = 3), 0)::bigint
		FROM orders, unnest(string_to_array(lines, ',')) AS l
		WHERE sale_no = $1 AND state IN (1, 2, 3) AND NOT returned GROUP BY 1`, b.no)
	if err != nil {
		return err
	}
	var sku engine.SKU
	var live, confirmed int64
	_, err = pgx.ForEachRow(rows, []any{&sku, &live, &confirmed}, func() error {
		b.sum.live[sku], b.sum.confirmed[sku] = live, confirmed
		return nil
	})
	return err
}

// stateCount is how many orders are in a state, for a reason.
type stateCount struct {
	State  engine.OrderState
	Reason engine.Reason
	N      int64
}

func (b *sample) readStates(ctx context.Context, tx pgx.Tx, _ *memory) error {
	rows, err := tx.Query(ctx, `SELECT state, reason, count(*) FROM orders WHERE sale_no = $1 GROUP BY 1, 2`, b.no)
	if err != nil {
		return err
	}
	b.states, err = pgx.CollectRows(rows, pgx.RowToStructByPos[stateCount])
	return err
}

// readRecent reads the newest orders of the present epoch, with all orders of
// their buyers.
func (b *sample) readRecent(ctx context.Context, tx pgx.Tx, _ *memory) error {
	rows, err := tx.Query(ctx, `SELECT `+orderColumns+` FROM orders WHERE sale_no = $1 AND buyer IN
		(SELECT buyer FROM orders WHERE sale_no = $1 AND hold_epoch = $2 AND NOT stray ORDER BY hold_seq DESC LIMIT $3)`,
		b.no, b.sale.Epoch, sampleOrders)
	if err != nil {
		return err
	}
	return b.scanOrders(rows, func(r *row) {
		b.recent = append(b.recent, *r)
		b.note(r)
	})
}

// readAgain reads some of the orders that samples saw before: Go's map order
// picks them.
func (b *sample) readAgain(ctx context.Context, tx pgx.Tx, m *memory) error {
	ids := make([]string, 0, sampleOrders)
	for id := range m.ends {
		if ids = append(ids, string(id)); len(ids) == sampleOrders {
			break
		}
	}
	rows, err := tx.Query(ctx, `SELECT `+orderColumns+` FROM orders WHERE id = ANY($1::text[])`, ids)
	if err != nil {
		return err
	}
	return b.scanOrders(rows, func(r *row) { b.again = append(b.again, *r) })
}

// Watch calls Live every interval and hands each report over, until ctx ends.
// A sample that takes longer than the interval makes the next one late.
func (a *Auditor) Watch(ctx context.Context, sale engine.SaleID, every time.Duration, report func(Report)) error {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		r, err := a.Live(ctx, sale)
		if err != nil {
			return nil // only ctx ends Live: a stop, not a failure
		}
		report(r)
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}
