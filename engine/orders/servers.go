package orders

import (
	"context"
	"fmt"
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
