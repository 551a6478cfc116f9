package orders

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/doorbuster/doorbuster/engine"
)

const (
	// LeadFor is how long a lead outlives the round in which it was renewed, by
	// PostgreSQL's clock: four rounds of recovery. A leader that dies is missed by
	// the doors about that long; one that is only slow loses nothing but the lead.
	LeadFor = 2 * time.Second

	// leadMost is the longest that a lead can have left. One that has more was written
	// before PostgreSQL's clock was set back, or before a failover to a server whose
	// clock is behind, and stands for nothing: else its sales had no leader so long.
	leadMost = 2 * LeadFor

	// takeMost bounds the leads that one round takes, so that several processes
	// share what there is, and none begins with ten thousand sales at once.
	takeMost = 256
)

// Lead is the lead of one sale. Its number is the fence: whoever takes the lead
// over raises it, and from then on a store Under the old lead is refused. The
// zero Lead is nobody's, and nothing is refused.
type Lead struct {
	Sale   engine.SaleID
	Number int64
}

// Under returns a store whose every transaction is refused with ErrDeposed unless
// that lead stands when it commits. Reading is not refused.
func (s *Store) Under(lead Lead) *Store {
	return &Store{pool: s.pool, lead: lead, memory: s.memory}
}

// mayLead is the fence. The row is locked until the transaction ends, so that
// nobody takes the lead over under it.
func (s *Store) mayLead(ctx context.Context, tx pgx.Tx, no int32) error {
	if s.lead.Number == 0 {
		return nil
	}
	var stands bool
	err := tx.QueryRow(ctx, `SELECT true FROM leads WHERE sale_no = $1 AND number = $2 FOR SHARE`, no, s.lead.Number).Scan(&stands)
	if errors.Is(err, pgx.ErrNoRows) {
		return ErrDeposed
	}
	return err
}

// Led is a sale that a leader leads, and its fence as PostgreSQL has it.
// AcceptedAt is not read.
type Led struct {
	Lead
	Fence Fence
	Now   time.Time // PostgreSQL's clock, UTC
}

// Leader takes and keeps leads for one process. A name of its own makes it; it
// holds no connection, and a leader that is stopped or cut off loses its leads
// LeadFor after its last Round, whatever becomes of its connections. It is safe
// for use by many goroutines.
type Leader struct {
	pool *pgxpool.Pool
	name string
}

// Leader returns a leader of no sale yet. Its name tells people where the process
// runs, and nobody else ever has it.
func (s *Store) Leader() *Leader {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	return &Leader{pool: s.pool, name: fmt.Sprintf("%s:%d:%s", host, os.Getpid(), rand.Text())}
}

// Round renews the leads of this process, takes some that are free (those that
// sell or open soon before those that are over), and returns every sale it leads:
// three statements in one round trip and one transaction, however many the sales.
// A sale is led by whom it is returned to until Round returns it to somebody
// else: what reads it and takes it over are ordered by PostgreSQL.
func (l *Leader) Round(ctx context.Context) ([]Led, error) {
	var b pgx.Batch
	b.Queue(`INSERT INTO leaders (name, until) VALUES ($1, clock_timestamp() + $2::interval)
		ON CONFLICT (name) DO UPDATE SET until = excluded.until`, l.name, LeadFor)
	b.Queue(`UPDATE leads l SET leader = $1, number = l.number + 1 FROM (
			SELECT l.sale_no FROM leads l JOIN sales s ON s.no = l.sale_no
			WHERE l.leader NOT IN (SELECT name FROM leaders WHERE until BETWEEN clock_timestamp() AND clock_timestamp() + $3::interval)
			ORDER BY s.state = 'closed', s.state = 'paused', s.opens LIMIT $2 FOR UPDATE OF l SKIP LOCKED) free
		WHERE l.sale_no = free.sale_no`, l.name, takeMost, leadMost)
	b.Queue(`SELECT s.id, l.number, s.epoch, s.frozen, s.state, s.version, coalesce(last.hold_seq, 0), clock_timestamp()
		FROM leads l JOIN sales s ON s.no = l.sale_no LEFT JOIN LATERAL (SELECT o.hold_seq FROM orders o
			WHERE o.sale_no = s.no AND o.hold_epoch = s.epoch AND NOT o.stray ORDER BY o.hold_seq DESC LIMIT 1) last ON true
		WHERE l.leader = $1`, l.name)
	res := l.pool.SendBatch(ctx, &b)
	led, err := readLed(res)
	if err = errors.Join(err, res.Close()); err != nil {
		return nil, fmt.Errorf("take and renew leads: %w", err)
	}
	return led, nil
}

func readLed(res pgx.BatchResults) ([]Led, error) {
	for range 2 {
		if _, err := res.Exec(); err != nil {
			return nil, err
		}
	}
	rows, err := res.Query()
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(r pgx.CollectableRow) (l Led, err error) {
		err = r.Scan(&l.Sale, &l.Number, &l.Fence.Epoch, &l.Fence.Frozen, &l.Fence.State, &l.Fence.Version, &l.Fence.Seq, &l.Now)
		l.Fence.Sale, l.Now = l.Sale, l.Now.UTC()
		return l, err
	})
}

// Resign gives up every lead at once, so that another process need not wait. A
// later Round takes leads again. Rows of leaders long gone go with it.
func (l *Leader) Resign(ctx context.Context) error {
	_, err := l.pool.Exec(ctx, `DELETE FROM leaders WHERE name = $1 OR until < now() - interval '1 day'`, l.name)
	if err != nil {
		return fmt.Errorf("resign: %w", err)
	}
	return nil
}
