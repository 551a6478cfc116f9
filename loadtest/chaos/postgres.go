package chaos

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/doorbuster/doorbuster/engine/backing"
)

const (
	poolLeft  = 30      // sessions that are left to everyone before the strike
	poolTaken = 60      // that are asked for then
	tooMany   = "53300" // SQLSTATE too_many_connections
)

func postgresCells() []*Cell {
	const p = string(backing.PostgreSQL)
	cells := []*Cell{
		{Component: p, Fault: "backends-terminated", hold: quick, strike: terminate, heal: nothing},
		{Component: p, Fault: "backend-killed", hold: quick, strike: killBackend, heal: nothing},
		{Component: p, Fault: "read-only", hold: full, strike: readOnly, heal: readWrite},
		{Component: p, Fault: "lock-storm", hold: full, strike: lockAll, heal: unlockAll},
		{Component: p, Fault: "pool-exhausted", hold: full, arm: armPool, strike: takePool, heal: freePool},
	}
	for _, c := range cells {
		c.kind = p
	}
	return cells
}

// terminate ends every session of the run's database, ours too.
func terminate(ctx context.Context, h *house) (string, error) {
	conn, err := pgx.Connect(ctx, h.admin.Database)
	if err != nil {
		return "", err
	}
	defer func() { _ = conn.Close(ctx) }()
	n := 0
	err = conn.QueryRow(ctx, `SELECT count(*) FILTER (WHERE pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = $1`, h.name).Scan(&n)
	if err == nil && n == 0 {
		err = unproven("no session was there")
	}
	return fmt.Sprintf("%d sessions terminated", n), err
}

// killBackend kills the process of one session (SIGKILL). The server cannot know what
// it did to shared memory: it ends all sessions and recovers from its log.
func killBackend(ctx context.Context, h *house) (string, error) {
	pid := 0
	err := queryOne(ctx, h.admin.Database, &pid, `SELECT pid FROM pg_stat_activity WHERE datname = $1 AND backend_type = 'client backend'
		ORDER BY state = 'active' DESC, state_change DESC LIMIT 1`, h.name)
	if err != nil {
		return "", err
	}
	if h.cfg.Services.PID(backing.PostgreSQL) == 0 {
		return "", errors.New("this cell kills a process of a PostgreSQL that is ours")
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		return "", err
	}
	gone, stop := context.WithTimeout(ctx, stateWait)
	defer stop()
	if err := until(gone, func() bool { s := processState(pid); return s == 0 || s == 'Z' }); err != nil {
		return "", unproven("session process %d is in state %c", pid, processState(pid))
	}
	return fmt.Sprintf("session process %d killed", pid), nil
}

// readOnly makes every session refuse writes, as a standby does: new sessions by the
// database's default, the present ones because they are ended.
func readOnly(ctx context.Context, h *house) (string, error) {
	if err := execute(ctx, h.admin.Database, "ALTER DATABASE "+h.name+" SET default_transaction_read_only = on"); err != nil {
		return "", err
	}
	proof, err := terminate(ctx, h)
	if err != nil {
		return "", err
	}
	err = execute(ctx, h.urls.Database, "CREATE TABLE chaos_probe ()")
	if err == nil || !strings.Contains(err.Error(), "read-only") {
		return "", unproven("a write was answered %v", err)
	}
	return proof + ", a write was refused as read-only", nil
}

func readWrite(ctx context.Context, h *house) (string, error) {
	if err := execute(ctx, h.admin.Database, "ALTER DATABASE "+h.name+" SET default_transaction_read_only = off"); err != nil {
		return "", err
	}
	_, err := terminate(ctx, h)
	if errors.Is(err, errUnproven) {
		err = nil
	}
	return "", err
}

// lockAll locks the largest table of the run against everyone. One alone: who holds
// several and asks for more meets the roles' transactions in a deadlock, and loses.
func lockAll(ctx context.Context, h *house) (string, error) {
	conn, err := pgx.Connect(ctx, h.urls.Database)
	if err != nil {
		return "", err
	}
	h.memory["locks"] = conn
	var table string
	err = conn.QueryRow(ctx, `SELECT quote_ident(relname) FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace
		ORDER BY pg_total_relation_size(oid) DESC LIMIT 1`).Scan(&table)
	if err != nil {
		return "", err
	}
	for _, command := range []string{"BEGIN", "SET LOCAL lock_timeout = '2s'", "LOCK TABLE " + table + " IN ACCESS EXCLUSIVE MODE"} {
		if _, err := conn.Exec(ctx, command); err != nil {
			return "", err
		}
	}
	return "table " + table + " locked", nil
}

func unlockAll(ctx context.Context, h *house) (string, error) {
	conn, ok := h.memory["locks"].(*pgx.Conn)
	if !ok {
		return "", nil
	}
	waiting := 0
	err := queryOne(ctx, h.admin.Database, &waiting, `SELECT count(*) FROM pg_stat_activity WHERE datname = $1 AND wait_event_type = 'Lock'`, h.name)
	err = errors.Join(err, conn.Close(ctx)) // and with it the transaction
	if err == nil && waiting == 0 {
		err = unproven("nobody waited for a lock")
	}
	return fmt.Sprintf("%d sessions waited for a lock", waiting), err
}

func queryOne(ctx context.Context, url string, out any, query string, args ...any) error {
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(ctx) }()
	return conn.QueryRow(ctx, query, args...).Scan(out)
}

// armPool takes nearly every session the server has to give.
func armPool(ctx context.Context, h *house) error {
	most := 0
	if err := queryOne(ctx, h.admin.Database, &most, `SELECT current_setting('max_connections')::int - count(*) FROM pg_stat_activity`); err != nil {
		return err
	}
	return h.take(ctx, most-poolLeft)
}

// take opens n sessions at most; that there is none left is no error.
func (h *house) take(ctx context.Context, n int) error {
	taken, _ := h.memory["taken"].([]*pgx.Conn)
	defer func() { h.memory["taken"] = taken }()
	for range n {
		conn, err := pgx.Connect(ctx, h.admin.Database)
		if pg := new(pgconn.PgError); errors.As(err, &pg) && pg.Code == tooMany {
			h.memory["full"] = pg.Message
			return nil
		}
		if err != nil {
			return err
		}
		taken = append(taken, conn)
	}
	return nil
}

// takePool ends the sessions of the run and, while they come back, takes what there
// is.
func takePool(ctx context.Context, h *house) (string, error) {
	proof, err := terminate(ctx, h)
	if err != nil {
		return "", err
	}
	done := make(chan error, 1)
	h.memory["taking"] = done
	go func() { done <- h.take(context.WithoutCancel(ctx), poolTaken) }()
	return proof, nil
}

func freePool(ctx context.Context, h *house) (proof string, err error) {
	if done, ok := h.memory["taking"].(chan error); ok {
		err = <-done
		if proof, ok = h.memory["full"].(string); !ok && err == nil {
			err = unproven("there was always one more session to be had")
		}
	}
	taken, _ := h.memory["taken"].([]*pgx.Conn)
	for _, conn := range taken {
		_ = conn.Close(ctx)
	}
	return proof, err
}
