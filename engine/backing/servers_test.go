package backing_test

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/redis/go-redis/v9"

	"github.com/doorbuster/doorbuster/engine/backing"
	"github.com/doorbuster/doorbuster/engine/backing/backingtest"
)

// bringUp is Up with a log that a failed test shows, and Remove at the end.
func bringUp(t *testing.T, cfg backing.Config) *backing.Services {
	t.Helper()
	backingtest.RedisURL(t) // skips on a machine without servers
	log := new(syncBuffer)
	cfg.Progress = log
	s, err := backing.Up(t.Context(), cfg)
	if err != nil {
		t.Fatalf("up: %v\n%s", err, log)
	}
	t.Cleanup(func() {
		if _, err := os.Stat(filepath.Join(cfg.Dir, "state.json")); err != nil {
			return
		}
		if err := s.Remove(context.Background()); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Log(log)
		}
	})
	return s
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// openDir is a directory that other accounts can reach (t.TempDir's parent is
// closed to them).
func openDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "backing-test-") //nolint:usetesting // see above
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, "state")
}

func up(t *testing.T, s *backing.Services) map[backing.Name]backing.ServiceStatus {
	t.Helper()
	out := map[backing.Name]backing.ServiceStatus{}
	for _, st := range s.Status(t.Context()) {
		if !st.Up {
			t.Errorf("%s is not up: %s", st.Name, st.Problem)
		}
		out[st.Name] = st
	}
	return out
}

// families are the ids of all processes of all servers.
func families(s *backing.Services) (all []int) {
	for _, pid := range s.PIDs() {
		all = append(all, backing.Family(pid)...)
	}
	return all
}

func wantGone(t *testing.T, pids []int) {
	t.Helper()
	if len(pids) == 0 {
		t.Error("there was nothing to end")
	}
	for _, pid := range pids {
		if backing.Alive(pid) {
			t.Errorf("process %d is left", pid)
		}
	}
}

// TestServersLive walks all three through their life: up, up again, killed and
// started one by one, wiped, down, up on the same data, removed. One test,
// because RabbitMQ takes seconds to boot.
func TestServersLive(t *testing.T) {
	t.Parallel()
	dir := openDir(t)
	s := bringUp(t, backing.Config{Dir: dir, Fsync: "always", RedisMemory: 64 << 20})
	first, urls := up(t, s), s.URLs()
	if len(first) != 3 {
		t.Fatalf("status tells of %d services", len(first))
	}
	wantRedis(t, urls, map[string]string{"appendfsync": "always", "appendonly": "yes", "maxmemory": "67108864", "maxmemory-policy": "noeviction", "auto-aof-rewrite-min-size": "1073741824"})
	wantPostgres(t, urls, map[string]string{"synchronous_commit": "on", "fsync": "on", "max_connections": "200"})

	// Its own URLs come back to it where a shell evaluated `doorbuster up --env`.
	again := bringUp(t, backing.Config{Dir: dir, URLs: backing.URLs{Redis: urls.Redis, Database: urls.Database}})
	if again.URLs() != urls {
		t.Errorf("a second up moved them: %v, %v", urls, again.URLs())
	}
	for name, st := range up(t, again) {
		if st.PID != first[name].PID || st.Mode != backing.Own {
			t.Errorf("a second up started %s again", name)
		}
	}
	wantRedis(t, urls, map[string]string{"appendfsync": "always", "maxmemory": "0"})

	for name := range notes {
		killAndStart(t, s, name)
	}
	if err := s.Wipe(t.Context(), backing.Redis); err == nil {
		t.Error("a running server was wiped")
	}
	if err := errors.Join(s.Kill(t.Context(), backing.Redis), s.Wipe(t.Context(), backing.Redis), s.Start(t.Context(), backing.Redis)); err != nil {
		t.Fatal(err)
	}
	if there, err := notes[backing.Redis].read(t.Context(), urls); there || err != nil {
		t.Errorf("after Wipe: mark there %v, %v", there, err)
	}

	pids := families(s)
	for range 2 {
		if err := s.Down(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	wantGone(t, pids)
	wantNobodyListens(t, urls)

	bringUp(t, backing.Config{Dir: dir})
	up(t, s)
	for _, name := range []backing.Name{backing.RabbitMQ, backing.PostgreSQL} {
		if there, err := notes[name].read(t.Context(), s.URLs()); !there || err != nil {
			t.Errorf("%s after down and up: mark there %v, %v", name, there, err)
		}
	}
	pids = families(s)
	if err := s.Remove(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantGone(t, pids)
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func killAndStart(t *testing.T, s *backing.Services, name backing.Name) {
	t.Helper()
	t.Logf("kill %s", name)
	ctx, urls := t.Context(), s.URLs()
	if err := notes[name].note(ctx, urls); err != nil {
		t.Fatal(err)
	}
	if name == backing.RabbitMQ {
		backingtest.Eventually(t, "the queue's registration", func() bool { return registered(t, s.Dir(name)) })
	}
	before := up(t, s)
	killed := backing.Family(before[name].PID)
	for range 2 {
		if err := s.Kill(ctx, name); err != nil {
			t.Fatal(err)
		}
	}
	wantGone(t, killed)
	for _, st := range s.Status(ctx) {
		if st.Up != (st.Name != name) {
			t.Errorf("after the kill of %s: %s is up: %v", name, st.Name, st.Up)
		}
	}
	for range 2 {
		if err := s.Start(ctx, name); err != nil {
			t.Fatal(err)
		}
	}
	after := up(t, s)
	if after[name].PID == before[name].PID || after[name].Address != before[name].Address {
		t.Errorf("before %+v, after %+v", before[name], after[name])
	}
	if there, err := notes[name].read(ctx, urls); !there || err != nil {
		t.Errorf("mark there %v, %v", there, err)
	}
}

// registered says whether the quorum queue's name is on disk. RabbitMQ 3.10.8
// writes it up to some seconds after it has confirmed the declaration; a queue
// whose broker is killed before never comes back.
func registered(t *testing.T, dir string) bool {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "data", "*", "quorum", "*", "names.dets"))
	if err != nil || len(files) != 1 {
		t.Fatalf("%v, %v", files, err)
	}
	b, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	return bytes.Contains(b, []byte("_mark"))
}

func wantRedis(t *testing.T, u backing.URLs, want map[string]string) {
	t.Helper()
	err := withRedis(u, func(rdb *redis.Client) error {
		for key, value := range want {
			got, err := rdb.ConfigGet(t.Context(), key).Result()
			if err != nil {
				return err
			}
			if got[key] != value {
				t.Errorf("redis %s is %q, want %q", key, got[key], value)
			}
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

func wantPostgres(t *testing.T, u backing.URLs, want map[string]string) {
	t.Helper()
	err := withPostgres(t.Context(), u, func(c *pgx.Conn) error {
		for key, value := range want {
			var got string
			if err := c.QueryRow(t.Context(), "SELECT current_setting($1)", key).Scan(&got); err != nil {
				return err
			}
			if got != value {
				t.Errorf("postgresql %s is %q, want %q", key, got, value)
			}
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

func wantNobodyListens(t *testing.T, urls backing.URLs) {
	t.Helper()
	for _, raw := range []string{urls.Redis, urls.AMQP, urls.Database} {
		u, err := url.Parse(raw)
		if err != nil {
			t.Fatal(err)
		}
		if conn, err := net.Dial("tcp", u.Host); err == nil {
			_ = conn.Close()
			t.Errorf("somebody listens on %s", u.Host)
		}
	}
}
