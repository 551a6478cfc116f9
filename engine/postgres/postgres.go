// Package postgres opens PostgreSQL and holds the few things every owner of
// tables needs: a pool that refuses a server which may lose acknowledged
// commits, a transaction with a bounded retry, the advisory locks that order a
// sale's transactions, and a runner of embedded migrations.
//
// It owns no table but the version tables of the migrations, one per owner. All
// functions are safe for concurrent use; nothing here starts a goroutine of its
// own (the pool's are ended by its Close). It imports no other package of ours
// but engine.
package postgres

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

// Limits.
const (
	DefaultMaxConns = 8               // connections of a pool
	connectTimeout  = 5 * time.Second // for one connection
	pingTimeout     = time.Second     // of one that was idle: it may be dead without a word, and others are there

	// idleInTx ends a session that holds locks and says nothing: of a stopped worker,
	// say, for whose share of a sale a rebuild waits, and with it the sale.
	idleInTx = 4 * time.Second
)

// ErrAsyncCommit says that the server answers a COMMIT before it is on disk.
var ErrAsyncCommit = errors.New("synchronous_commit is off: a commit that was acknowledged could be lost; " +
	"set synchronous_commit=on in postgresql.conf (or ALTER ROLE … SET synchronous_commit = on) and start again")

// Options tune a pool. The zero value is for the sale path.
type Options struct {
	MaxConns int32  // 0 is DefaultMaxConns
	Name     string // application_name, seen in pg_stat_activity
	// Analytical leaves the planner alone. The sale path instead fixes it: see
	// salePath.
	Analytical bool

	// Lazy makes no connection before one is needed: for who works without PostgreSQL
	// nearly always.
	Lazy bool
}

// salePath are the settings of sessions that run the transactions of a sale.
// Each statement there looks rows up by an index, in the order of the array it
// was given, and that order is the lock order. A table that was empty when the
// plan was made would otherwise be scanned or hashed for minutes after it grew,
// until autovacuum analyses it.
var salePath = map[string]string{
	"enable_seqscan":   "off",
	"enable_hashjoin":  "off",
	"enable_mergejoin": "off",
	"jit":              "off",
	"plan_cache_mode":  "force_generic_plan",
}

// keepAlive makes the server notice within about 15 s that a client's machine is
// gone without a word. Until then the locks of its transaction stand, and with
// them those of a sale; the system's own default is two hours. Seconds, milliseconds.
var keepAlive = map[string]string{
	"tcp_keepalives_idle":     "5",
	"tcp_keepalives_interval": "3",
	"tcp_keepalives_count":    "3",
	"tcp_user_timeout":        "15000",
}

// Open returns a pool on the database at url. The first connection is made
// before it returns, unless Options.Lazy; a server with synchronous_commit=off is refused with
// ErrAsyncCommit, at the start and on every later connection.
func Open(ctx context.Context, url string, opt Options) (*pgxpool.Pool, error) {
	cfg, err := pgxpool.ParseConfig(url)
	if err != nil {
		return nil, fmt.Errorf("postgres: %w", err)
	}
	cfg.MaxConns = DefaultMaxConns
	if opt.MaxConns > 0 {
		cfg.MaxConns = opt.MaxConns
	}
	cfg.ConnConfig.ConnectTimeout, cfg.PingTimeout = connectTimeout, pingTimeout
	params := cfg.ConnConfig.RuntimeParams
	params["application_name"] = "doorbuster"
	if opt.Name != "" {
		params["application_name"] = opt.Name
	}
	params["timezone"] = "UTC"
	for k, v := range keepAlive {
		params[k] = v
	}
	params["idle_in_transaction_session_timeout"] = fmt.Sprint(idleInTx.Milliseconds())
	if !opt.Analytical {
		for k, v := range salePath {
			params[k] = v
		}
	}
	cfg.AfterConnect = refuseAsyncCommit
	// pgx waits up to 15 s for a connection that it gave up, and that long nobody else
	// has its place in the pool. One that is dead without a word never says a thing.
	cfg.BeforeClose = func(c *pgx.Conn) {
		if c.IsClosed() {
			_ = c.PgConn().Conn().Close()
		}
	}
	pool, err := pgxpool.NewWithConfig(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("postgres: %w", err)
	}
	if opt.Lazy {
		return pool, nil
	}
	if err := pool.Ping(ctx); err != nil {
		pool.Close()
		return nil, fmt.Errorf("postgres: %w", err)
	}
	return pool, nil
}

func refuseAsyncCommit(ctx context.Context, conn *pgx.Conn) error {
	var mode string
	if err := conn.QueryRow(ctx, "SHOW synchronous_commit").Scan(&mode); err != nil {
		return fmt.Errorf("read synchronous_commit: %w", err)
	}
	if mode == "off" {
		return ErrAsyncCommit
	}
	return nil
}

// Retry of a transaction that PostgreSQL gave up on.
const (
	maxTries   = 6
	firstPause = 2 * time.Millisecond
)

const (
	deadlockDetected     = "40P01"
	serializationFailure = "40001"
)

// Begin is what a transaction can be opened on: a pool or a connection.
type Begin interface {
	BeginTx(ctx context.Context, opt pgx.TxOptions) (pgx.Tx, error)
}

// InTx runs fn in a READ COMMITTED transaction and commits it if fn returns nil.
// A deadlock or a serialization failure (40P01, 40001) rolls back and runs fn
// again, at most maxTries times in all, so fn must change nothing outside that
// it cannot set again. Other errors roll back and are returned as they are.
func InTx(ctx context.Context, db Begin, fn func(tx pgx.Tx) error) error {
	pause := firstPause
	for try := 1; ; try++ {
		err := once(ctx, db, fn)
		if err == nil || !Retryable(err) || try == maxTries {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(jitter(pause)):
		}
		pause *= 2
	}
}

func once(ctx context.Context, db Begin, fn func(tx pgx.Tx) error) (err error) {
	tx, err := db.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.ReadCommitted})
	if err != nil {
		return fmt.Errorf("begin: %w", err)
	}
	defer func() {
		if err != nil {
			back, cancel := context.WithTimeout(context.WithoutCancel(ctx), pingTimeout)
			defer cancel()
			_ = tx.Rollback(back) // the error that counts is err
		}
	}()
	if err := fn(tx); err != nil {
		return err
	}
	if err := tx.Commit(ctx); err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	return nil
}

// Retryable tells whether err is PostgreSQL's way of saying: try again.
func Retryable(err error) bool {
	var pg *pgconn.PgError
	return errors.As(err, &pg) && (pg.Code == deadlockDetected || pg.Code == serializationFailure)
}

// OfTheData tells whether err is about what was sent (a violated constraint, a
// value out of range, bytes that are no text), rather than about the health of
// the database or of the way to it: SQLSTATE classes 22 and 23.
func OfTheData(err error) bool {
	var pg *pgconn.PgError
	return errors.As(err, &pg) && len(pg.Code) == 5 && (pg.Code[:2] == "22" || pg.Code[:2] == "23")
}
