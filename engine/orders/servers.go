package orders

import (
	"context"
	"fmt"
)

// Incarnation returns the newest incarnation number of a Redis server; a server not
// seen before gets one. No two servers have the same number.
func (s *Store) Incarnation(ctx context.Context, server string) (n int64, err error) {
	return s.RaiseIncarnation(ctx, server, 0)
}

// RaiseIncarnation gives the server a new number, if it still has number from,
// and returns the number it has now.
func (s *Store) RaiseIncarnation(ctx context.Context, server string, from int64) (n int64, err error) {
	err = s.pool.QueryRow(ctx, `INSERT INTO incarnations AS i (server, number, first) SELECT $1, n, n FROM nextval('incarnation_numbers') n
		ON CONFLICT (server) DO UPDATE SET first = coalesce(i.first, i.number),
			number = CASE WHEN i.number = $2 THEN nextval('incarnation_numbers') ELSE i.number END
		RETURNING number`, server, from).Scan(&n)
	if err != nil {
		return 0, fmt.Errorf("incarnation of server %s: %w", server, err)
	}
	return n, nil
}

// HadIncarnation tells whether a state that a Redis server has, and that was built under
// number n, was built for this server: n is none of those it could have from elsewhere,
// which were given out before it got its first.
func (s *Store) HadIncarnation(ctx context.Context, server string, n int64) (had bool, err error) {
	err = s.pool.QueryRow(ctx, `SELECT EXISTS (SELECT FROM incarnations WHERE server = $1 AND $2 BETWEEN coalesce(first, number) AND number)`,
		server, n).Scan(&had)
	if err != nil {
		return false, fmt.Errorf("incarnations of server %s: %w", server, err)
	}
	return had, nil
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
