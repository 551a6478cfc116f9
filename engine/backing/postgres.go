package backing

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

const (
	postgresUser     = "doorbuster"
	postgresDatabase = "doorbuster"
	duplicateDB      = "42P04" // SQLSTATE duplicate_database
)

// postgresSettings are those that differ from PostgreSQL's own. Durability is
// not touched: fsync, full_page_writes and synchronous_commit stay on.
var postgresSettings = []string{
	"listen_addresses=" + loopback,
	"unix_socket_directories=", // none: a path below a deep checkout may be too long for one
	"max_connections=200",      // roles, tests and pools side by side
	"shared_buffers=256MB",
	"synchronous_commit=on",
	"max_wal_size=2GB", // a storm writes about 1 GB of WAL: no checkpoint in the midst of it
	"checkpoint_timeout=15min",
	"jit=off", // compiling costs more than our queries take
	"random_page_cost=1.1",
	"logging_collector=off",
	"log_min_messages=warning",
	"timezone=UTC",
}

var postgresKind = kind{
	name:     PostgreSQL,
	accounts: []string{"postgres"},
	programs: []string{"postgres", "initdb"},
	ports:    []string{portMain},
	quit:     syscall.SIGINT, // fast shutdown: sessions are cut, nothing is lost
	boot:     60 * time.Second,
	prepare:  preparePostgres,
	commands: func(s site) []command {
		args := []string{"-D", s.dataDir(), "-p", fmt.Sprint(s.ports[portMain])}
		for _, setting := range postgresSettings {
			args = append(args, "-c", setting)
		}
		return []command{{role: roleServer, path: s.programs["postgres"], args: args, env: s.environment(), dir: s.dir}}
	},
	url:    postgresURL,
	ping:   pingPostgres,
	settle: settlePostgres,
}

func postgresURL(s site) string {
	u := url.URL{
		Scheme: "postgres", User: url.UserPassword(postgresUser, s.password), Host: s.address(),
		Path: "/" + postgresDatabase, RawQuery: "sslmode=disable",
	}
	return u.String()
}

// preparePostgres makes the cluster once. initdb writes into a directory beside
// the final one, so that one that was interrupted is begun again.
func preparePostgres(ctx context.Context, s site) error {
	if _, err := os.Stat(filepath.Join(s.dataDir(), "PG_VERSION")); err == nil {
		buried(ctx, s.dataDir())
		return nil
	}
	fresh, secret := filepath.Join(s.dir, "initdb"), filepath.Join(s.dir, "password")
	if err := errors.Join(os.RemoveAll(fresh), os.RemoveAll(s.dataDir())); err != nil {
		return err
	}
	if err := s.who.writeFile(secret, []byte(s.password+"\n")); err != nil {
		return err
	}
	defer func() { _ = os.Remove(secret) }()
	cmd := exec.CommandContext(ctx, s.programs["initdb"], "-D", fresh, "-U", postgresUser, "-A", "scram-sha-256",
		"--pwfile", secret, "-E", "UTF8", "--locale", "C", "--no-instructions")
	cmd.Dir, cmd.Env = s.dir, s.environment()
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Credential: s.who.credential()}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("initdb: %w: %s", err, out)
	}
	return os.Rename(fresh, s.dataDir())
}

// buried waits, for killGrace at most, for a server that was killed and that nobody
// has waited for yet, as when the process that started it has gone and init is slow:
// PostgreSQL takes the id in postmaster.pid for a server that runs, and does not start.
func buried(ctx context.Context, dataDir string) {
	b, err := os.ReadFile(filepath.Join(dataDir, "postmaster.pid"))
	if err != nil {
		return
	}
	first, _, _ := strings.Cut(string(b), "\n")
	pid, err := strconv.Atoi(strings.TrimSpace(first))
	if err != nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, killGrace)
	defer cancel()
	for st, ok := readStat(pid); ok && st.dead() && pause(ctx) == nil; st, ok = readStat(pid) {
		reap(pid)
	}
}

// pingPostgres connects to the database every cluster has; the one of ours is
// made by settlePostgres.
func pingPostgres(ctx context.Context, rawURL string) error {
	conn, err := connectMaintenance(ctx, rawURL)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(ctx) }()
	var one int
	return conn.QueryRow(ctx, "SELECT 1").Scan(&one)
}

// connectMaintenance connects to the database of rawURL, or to "postgres" where
// rawURL's is our own, which may not be there yet.
func connectMaintenance(ctx context.Context, rawURL string) (*pgx.Conn, error) {
	cfg, err := pgx.ParseConfig(rawURL)
	if err != nil {
		return nil, err
	}
	if cfg.Database == postgresDatabase {
		cfg.Database = "postgres"
	}
	return pgx.ConnectConfig(ctx, cfg)
}

func settlePostgres(ctx context.Context, s site) error {
	conn, err := connectMaintenance(ctx, postgresURL(s))
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(ctx) }()
	_, err = conn.Exec(ctx, "CREATE DATABASE "+postgresDatabase)
	if pg := new(pgconn.PgError); errors.As(err, &pg) && pg.Code == duplicateDB {
		return nil
	}
	return err
}
