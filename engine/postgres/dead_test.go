package postgres_test

import (
	"context"
	"errors"
	"net/url"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/doorbuster/doorbuster/engine/backing/backingtest"
	"github.com/doorbuster/doorbuster/engine/postgres"
	"github.com/doorbuster/doorbuster/loadtest/proxy"
)

// throughProxy returns a pool of so many connections, all open and under way a moment
// ago, and what they pass through.
func throughProxy(t *testing.T, conns int32) (*pgxpool.Pool, *proxy.Proxy) {
	t.Helper()
	u, err := url.Parse(backingtest.Database(t))
	if err != nil {
		t.Fatal(err)
	}
	p, err := proxy.New(u.Host)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	u.Host = p.Addr()
	pool, err := postgres.Open(t.Context(), u.String(), postgres.Options{MaxConns: conns})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	var busy sync.WaitGroup
	for range conns {
		busy.Go(func() {
			if _, err := pool.Exec(t.Context(), `SELECT pg_sleep(0.3)`); err != nil {
				t.Error(err)
			}
		})
	}
	busy.Wait()
	if n := pool.Stat().TotalConns(); n != conns {
		t.Fatalf("%d connections, want %d", n, conns)
	}
	return pool, p
}

// All connections of a pool are dead without a word, and new ones work: each place is
// free again as soon as a call gave its connection up. (pgx keeps it for 15 s.)
func TestDeadConnectionsLeaveThePool(t *testing.T) {
	t.Parallel()
	const conns, limit = 4, time.Second
	pool, p := throughProxy(t, conns)
	p.Set(proxy.HalfOpen, 0)
	p.Set(proxy.Clean, 0)
	var calls sync.WaitGroup
	began := time.Now()
	for range conns {
		calls.Go(func() {
			for err := context.DeadlineExceeded; err != nil; {
				ctx, cancel := context.WithTimeout(t.Context(), limit)
				_, err = pool.Exec(ctx, `SELECT 1`)
				cancel()
			}
		})
	}
	calls.Wait()
	if took := time.Since(began); took > 8*limit {
		t.Errorf("the pool worked again after %v", took)
	}
}

// A transaction that gives up on a dead connection does not wait for its rollback.
func TestDeadRollbackEnds(t *testing.T) {
	t.Parallel()
	pool, p := throughProxy(t, 1)
	refused := errors.New("refused")
	began := time.Now()
	err := postgres.InTx(t.Context(), pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(t.Context(), `SELECT 1`); err != nil {
			return err
		}
		p.Set(proxy.HalfOpen, 0)
		return refused
	})
	if took := time.Since(began); !errors.Is(err, refused) || took > 8*time.Second {
		t.Errorf("%v after %v", err, took)
	}
}
