package orders

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/doorbuster/doorbuster/engine"
	"github.com/doorbuster/doorbuster/engine/postgres"
)

// Incarnation returns the incarnation number of a Redis server; a server not
// seen before gets one. No two servers have the same number.
func (s *Store) Incarnation(ctx context.Context, server string) (n int64, err error) {
	return s.RaiseIncarnation(ctx, server, 0)
}

// RaiseIncarnation gives the server a new number, if it still has number from,
// and returns the number it has now.
func (s *Store) RaiseIncarnation(ctx context.Context, server string, from int64) (n int64, err error) {
	err = s.pool.QueryRow(ctx, `INSERT INTO incarnations AS i (server) VALUES ($1)
		ON CONFLICT (server) DO UPDATE SET number = CASE WHEN i.number = $2 THEN nextval('incarnation_numbers') ELSE i.number END
		RETURNING number`, server, from).Scan(&n)
	if err != nil {
		return 0, fmt.Errorf("incarnation of server %s: %w", server, err)
	}
	return n, nil
}

// MarkMarker notes that a worker has met the marker message with this nonce.
// Those of more than a day ago are forgotten.
func (s *Store) MarkMarker(ctx context.Context, nonce string) error {
	_, err := s.pool.Exec(ctx, `WITH old AS (DELETE FROM markers WHERE at < now() - interval '1 day')
		INSERT INTO markers (nonce) VALUES ($1) ON CONFLICT DO NOTHING`, nonce)
	if err != nil {
		return fmt.Errorf("mark marker: %w", err)
	}
	return nil
}

// SeenMarker tells whether some worker has met it.
func (s *Store) SeenMarker(ctx context.Context, nonce string) (seen bool, err error) {
	err = s.pool.QueryRow(ctx, `SELECT EXISTS (SELECT FROM markers WHERE nonce = $1)`, nonce).Scan(&seen)
	if err != nil {
		return false, fmt.Errorf("look for marker: %w", err)
	}
	return seen, nil
}

// Leader holds the session locks of the sales it leads, all on one connection of
// its own. If that connection is lost, so are the locks, unnoticed until the next
// TryLead: that is why the epoch is compared and set as well. For one goroutine.
type Leader struct {
	pool  *pgxpool.Pool
	conn  *pgxpool.Conn
	leads map[engine.SaleID]bool
}

// Leader returns a leader of no sale. Close it.
func (s *Store) Leader() *Leader {
	return &Leader{pool: s.pool, leads: map[engine.SaleID]bool{}}
}

// TryLead tells whether this leader leads the sale, taking the lead if it is
// free. Ask before every step: it goes to the server. An error means that the
// connection is gone, and with it every lead.
func (l *Leader) TryLead(ctx context.Context, sale engine.SaleID) (leads bool, err error) {
	if l.conn == nil {
		if l.conn, err = l.pool.Acquire(ctx); err != nil {
			return false, fmt.Errorf("lead sale %s: %w", sale, err)
		}
	}
	// A session lock counts: taken twice it must be given back twice. So it is
	// only asked whether the connection lives once the lead is ours.
	if l.leads[sale] {
		err = l.conn.Ping(ctx)
		leads = err == nil
	} else {
		err = l.conn.QueryRow(ctx, `SELECT pg_try_advisory_lock($1)`, postgres.LeadLock(sale)).Scan(&leads)
	}
	if err != nil {
		l.Close()
		return false, fmt.Errorf("lead sale %s: %w", sale, err)
	}
	if leads {
		l.leads[sale] = true
	}
	return leads, nil
}

// Resign gives the lead of one sale up, if it is ours.
func (l *Leader) Resign(ctx context.Context, sale engine.SaleID) error {
	if !l.leads[sale] {
		return nil
	}
	delete(l.leads, sale)
	if _, err := l.conn.Exec(ctx, `SELECT pg_advisory_unlock($1)`, postgres.LeadLock(sale)); err != nil {
		l.Close()
		return fmt.Errorf("resign from sale %s: %w", sale, err)
	}
	return nil
}

// Close gives up every lead, and the connection. The leader can be used again.
func (l *Leader) Close() {
	if l.conn == nil {
		return
	}
	// The connection is closed rather than given back: with it go the locks.
	raw := l.conn.Hijack()
	_ = raw.Close(context.Background())
	l.conn, l.leads = nil, map[engine.SaleID]bool{}
}
