package postgres_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/fstest"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/doorbuster/doorbuster/engine/backing/backingtest"
	"github.com/doorbuster/doorbuster/engine/postgres"
)

func open(t *testing.T) (*pgxpool.Pool, string) {
	t.Helper()
	url := backingtest.Database(t)
	pool, err := postgres.Open(t.Context(), url, postgres.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	return pool, url
}

func exec(t *testing.T, pool *pgxpool.Pool, sql string, args ...any) {
	t.Helper()
	if _, err := pool.Exec(t.Context(), sql, args...); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

func TestOpenRefusesAsynchronousCommit(t *testing.T) {
	t.Parallel()
	pool, url := open(t)
	var name string
	if err := pool.QueryRow(t.Context(), "SELECT current_database()").Scan(&name); err != nil {
		t.Fatal(err)
	}
	exec(t, pool, "ALTER DATABASE "+name+" SET synchronous_commit = off")
	if p, err := postgres.Open(t.Context(), url, postgres.Options{}); !errors.Is(err, postgres.ErrAsyncCommit) {
		if p != nil {
			p.Close()
		}
		t.Fatalf("got %v, want ErrAsyncCommit", err)
	}
	// A pool that was opened before finds out with its next connection.
	pool.Reset()
	if err := pool.Ping(t.Context()); !errors.Is(err, postgres.ErrAsyncCommit) {
		t.Fatalf("ping of an old pool: %v, want ErrAsyncCommit", err)
	}
}

func TestOpenFixesThePlannerUnlessAnalytical(t *testing.T) {
	t.Parallel()
	pool, url := open(t)
	wide, err := postgres.Open(t.Context(), url, postgres.Options{Analytical: true, Name: "audit", MaxConns: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer wide.Close()
	for name, want := range map[string][2]string{"enable_seqscan": {"off", "on"}, "TimeZone": {"UTC", "UTC"}, "application_name": {"doorbuster", "audit"}} {
		for i, p := range []*pgxpool.Pool{pool, wide} {
			var got string
			if err := p.QueryRow(t.Context(), "SELECT current_setting($1)", name).Scan(&got); err != nil || got != want[i] {
				t.Errorf("%s of pool %d is %q (%v), want %q", name, i, got, err, want[i])
			}
		}
	}
}

func TestOpenTellsWhatIsWrong(t *testing.T) {
	t.Parallel()
	for _, url := range []string{"postgres://%", "postgres://127.0.0.1:1/none?sslmode=disable"} {
		if _, err := postgres.Open(t.Context(), url, postgres.Options{}); err == nil {
			t.Errorf("%s: no error", url)
		}
		lazy, err := postgres.Open(t.Context(), url, postgres.Options{Lazy: true})
		if err != nil {
			continue // no URL at all
		}
		if err := lazy.Ping(t.Context()); err == nil {
			t.Errorf("%s: no error from a lazy pool", url)
		}
		lazy.Close()
	}
}

func TestInTxRetriesADeadlock(t *testing.T) {
	t.Parallel()
	pool, _ := open(t)
	exec(t, pool, "CREATE TABLE a (id int PRIMARY KEY, n int)")
	exec(t, pool, "INSERT INTO a VALUES (1, 0), (2, 0)")
	var both sync.WaitGroup // both hold their first row
	both.Add(2)
	var wg sync.WaitGroup
	tries := make([]int, 2)
	for i := range 2 {
		wg.Go(func() {
			err := postgres.InTx(t.Context(), pool, func(tx pgx.Tx) error {
				tries[i]++
				for step := range 2 {
					if _, err := tx.Exec(t.Context(), "UPDATE a SET n = n + 1 WHERE id = $1", 1+(i+step)%2); err != nil {
						return err
					}
					if step == 0 && tries[i] == 1 {
						both.Done()
						both.Wait()
					}
				}
				return nil
			})
			if err != nil {
				t.Errorf("transaction %d: %v", i, err)
			}
		})
	}
	wg.Wait()
	var sum int
	if err := pool.QueryRow(t.Context(), "SELECT sum(n) FROM a").Scan(&sum); err != nil || sum != 4 {
		t.Errorf("sum %d (%v), want 4", sum, err)
	}
	if tries[0]+tries[1] < 3 {
		t.Errorf("tries %v: nobody was made to try again", tries)
	}
}

func TestInTxGivesUpAndPassesOtherErrorsOn(t *testing.T) {
	t.Parallel()
	pool, _ := open(t)
	n := 0
	err := postgres.InTx(t.Context(), pool, func(pgx.Tx) error { n++; return &pgconn.PgError{Code: "40001"} })
	if !postgres.Retryable(err) || n < 2 || n > 20 {
		t.Errorf("%d tries, then %v", n, err)
	}
	n = 0
	sentinel := errors.New("no")
	if err := postgres.InTx(t.Context(), pool, func(pgx.Tx) error { n++; return sentinel }); !errors.Is(err, sentinel) || n != 1 {
		t.Errorf("%d tries, then %v", n, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	n = 0
	err = postgres.InTx(ctx, pool, func(pgx.Tx) error { n++; cancel(); return &pgconn.PgError{Code: "40P01"} })
	if n != 1 || err == nil {
		t.Errorf("after ctx ended: %d tries, %v", n, err)
	}
}

func TestInTxRollsBackAndGivesTheConnectionBack(t *testing.T) {
	t.Parallel()
	pool, _ := open(t)
	exec(t, pool, "CREATE TABLE a (id int PRIMARY KEY)")
	for range 3 * postgres.DefaultMaxConns {
		_ = postgres.InTx(t.Context(), pool, func(tx pgx.Tx) error {
			_, err := tx.Exec(t.Context(), "INSERT INTO a VALUES (1)")
			return errors.Join(err, errors.New("no"))
		})
	}
	var n int
	if err := pool.QueryRow(t.Context(), "SELECT count(*) FROM a").Scan(&n); err != nil || n != 0 {
		t.Errorf("%d rows (%v), want none", n, err)
	}
}

func TestErrorsOfTheData(t *testing.T) {
	t.Parallel()
	pool, _ := open(t)
	exec(t, pool, "CREATE TABLE a (id int PRIMARY KEY CHECK (id < 10), s text)")
	for sql, want := range map[string]bool{
		"INSERT INTO a VALUES (11)":           true,
		"INSERT INTO a VALUES (99999999999)":  true,
		"INSERT INTO a VALUES (1, E'\\x00')":  true,
		"INSERT INTO nowhere VALUES (1)":      false,
		"SELECT pg_terminate_backend(0) + 'x": false,
	} {
		_, err := pool.Exec(t.Context(), sql)
		if err == nil || postgres.OfTheData(err) != want {
			t.Errorf("%s: %v: of the data %v, want %v", sql, err, !want, want)
		}
	}
	if postgres.OfTheData(errors.New("x")) || postgres.OfTheData(nil) {
		t.Error("an error of another kind was taken for one of the data")
	}
}

func TestSaleLocks(t *testing.T) {
	t.Parallel()
	pool, _ := open(t)
	begin := func() pgx.Tx {
		tx, err := pool.Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return tx
	}
	a, b, c := begin(), begin(), begin()
	for _, tx := range []pgx.Tx{a, b} { // shared with each other
		if err := postgres.LockSaleShared(t.Context(), tx, "drop"); err != nil {
			t.Fatal(err)
		}
	}
	if err := postgres.LockSaleExclusive(t.Context(), c, "drop2"); err != nil { // another sale
		t.Fatal(err)
	}
	got := make(chan error)
	go func() { got <- postgres.LockSaleExclusive(t.Context(), c, "drop") }()
	waits := func() (n int) {
		_ = pool.QueryRow(t.Context(), "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND "+
			"database = (SELECT oid FROM pg_database WHERE datname = current_database())").Scan(&n)
		return n
	}
	backingtest.Eventually(t, "the exclusive lock waits for the shared ones", func() bool { return waits() > 0 })
	for _, tx := range []pgx.Tx{a, b} {
		if err := tx.Commit(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if err := <-got; err != nil {
		t.Fatal(err)
	}
	_ = c.Rollback(t.Context())
	if postgres.SaleLock("x") == postgres.SaleLock("y") {
		t.Error("two locks have one number")
	}
}

func TestMigrateByManyAtOnceAndAgain(t *testing.T) {
	t.Parallel()
	pool, url := open(t)
	one := fstest.MapFS{"00001_a.sql": {Data: []byte("-- Why: a.\n\n-- +goose Up\nCREATE TABLE a (id int);\n")}}
	other := fstest.MapFS{"00001_b.sql": {Data: []byte("-- +goose Up\nCREATE TABLE b (id int);\n")}}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for name, files := range map[string]fstest.MapFS{"one": one, "other": other} {
				if err := postgres.Migrate(t.Context(), url, name, files); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	one["00002_more.sql"] = &fstest.MapFile{Data: []byte("-- +goose Up\nALTER TABLE a ADD COLUMN more int;\n")}
	if err := postgres.Migrate(t.Context(), url, "one", one); err != nil {
		t.Fatal(err)
	}
	exec(t, pool, "INSERT INTO a (id, more) SELECT 1, 2 FROM b FULL JOIN schema_one ON true LIMIT 1")
	one["00003_bad.sql"] = &fstest.MapFile{Data: []byte("-- +goose Up\nCREATE TABLE a (id int);\n")}
	if err := postgres.Migrate(t.Context(), url, "one", one); err == nil {
		t.Error("a migration that fails is no error")
	}
	if err := postgres.Migrate(t.Context(), "postgres://%", "one", one); err == nil {
		t.Error("a wrong url is no error")
	}
}
