package recovery_test

import (
	"context"
	"fmt"
	"net"
	"os/exec"
	"strconv"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/doorbuster/doorbuster/engine/orders"
	"github.com/doorbuster/doorbuster/stock"
)

// server is a Redis process of the test's own.
type server struct {
	t    testing.TB
	port int
	args []string
	cmd  *exec.Cmd
}

// startServer starts one on a free port, without persistence: a restart is empty.
func startServer(t testing.TB) *server {
	t.Helper()
	if _, err := exec.LookPath("redis-server"); err != nil {
		t.Skip("no redis-server on this machine")
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &server{t: t, port: ln.Addr().(*net.TCPAddr).Port}
	if err := ln.Close(); err != nil {
		t.Fatal(err)
	}
	s.args = []string{"--port", strconv.Itoa(s.port), "--bind", "127.0.0.1", "--dir", t.TempDir(), "--save", "", "--appendonly", "no"}
	s.start()
	t.Cleanup(s.kill)
	return s
}

func (s *server) url() string { return fmt.Sprintf("redis://127.0.0.1:%d/0", s.port) }

func (s *server) start() {
	s.t.Helper()
	s.cmd = exec.Command("redis-server", s.args...)
	if err := s.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	rdb := redis.NewClient(&redis.Options{Addr: fmt.Sprintf("127.0.0.1:%d", s.port), MaxRetries: -1})
	defer func() { _ = rdb.Close() }()
	for deadline := time.Now().Add(10 * time.Second); rdb.Ping(context.Background()).Err() != nil; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			s.t.Fatal("redis-server does not answer")
		}
	}
}

// kill ends the process as a crash would.
func (s *server) kill() {
	if s.cmd != nil {
		_ = s.cmd.Process.Kill()
		_ = s.cmd.Wait()
		s.cmd = nil
	}
}

// Redis dies and comes back with nothing: the sale sells again within seconds,
// with PostgreSQL's numbers and under another incarnation.
func TestRedisComesBackEmpty(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	w := setup(t, s.url())
	w.recover()
	first := w.sells(1)
	b := w.buy(20)
	w.known(b)
	w.pay(b[:8], orders.Confirmed)
	w.counts(mugs-20, 12, 8)
	s.kill()
	time.Sleep(1500 * time.Millisecond) // an outage, not a step that anything waits for
	s.start()
	back := time.Now()
	watch := w.sells(2)
	t.Logf("sells again %v after Redis came back", time.Since(back).Round(time.Millisecond))
	if watch.Incarnation == first.Incarnation {
		t.Error("the incarnation was not raised")
	}
	w.counts(mugs-20, 12, 8)
	w.known(w.buy(5))
	w.counts(mugs-25, 17, 8)
}

func TestScriptsAreFlushed(t *testing.T) {
	t.Parallel()
	w := setup(t, startServer(t).url())
	w.recover()
	first := w.sells(1)
	w.known(w.buy(5))
	w.ok(w.rdb.ScriptFlush(t.Context()).Err())
	watch := w.sells(2)
	if watch.Incarnation == first.Incarnation {
		t.Error("the incarnation was not raised")
	}
	w.counts(mugs-5, 5, 0)
	var d stock.Decision
	if err := w.stock.Reserve(t.Context(), w.sale, first.Grip, w.baskets(1), &d); err == nil {
		t.Error("the grip of before still works")
	}
	w.buy(1)
}

// No cut before the leases of doors that saw the last heartbeat have run out.
func TestCutWaitsForLeases(t *testing.T) {
	t.Parallel()
	w := setup(t, startServer(t).url())
	w.recover()
	w.sells(1)
	w.ok(w.rdb.ScriptFlush(t.Context()).Err())
	var beat int64
	var rose, cut time.Time
	w.eventually("cut", func() bool {
		n, err := w.rdb.HGet(t.Context(), "s:{"+string(w.sale)+"}:1:st", "hb").Int64()
		w.ok(err)
		if n != beat {
			beat, rose = n, time.Now()
		}
		f, err := w.orders.Fence(t.Context(), w.sale)
		w.ok(err)
		cut = time.Now()
		return f.Epoch == 2
	})
	if waited := cut.Sub(rose); waited < 2*time.Second {
		t.Errorf("the cut came %v after the last heartbeat, a lease is 2 s", waited)
	}
}

// A restart that kept its data is a loss all the same: nobody can know what the
// last second held.
func TestRedisRestartsWithItsData(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	s.kill()
	s.args = append(s.args[:len(s.args)-1], "yes", "--appendfsync", "always")
	s.start()
	w := setup(t, s.url())
	w.recover()
	w.sells(1)
	b := w.buy(3)
	w.known(b)
	w.reserve(2) // in the outbox when it dies: the rebuild relays it
	s.kill()
	s.start()
	w.sells(2)
	w.counts(mugs-5, 5, 0)
}

// Redis lost its last seconds, and nothing else tells so: a hold that PostgreSQL
// knows was never given out.
func TestSeqBehindPostgreSQL(t *testing.T) {
	t.Parallel()
	w := setup(t, "")
	w.recover()
	watch := w.sells(1)
	w.known(w.buy(6))
	w.ok(w.rdb.HSet(t.Context(), fmt.Sprintf("s:{%s}:%d:st", w.sale, watch.Epoch), "seq", 2).Err())
	w.sells(2)
	w.counts(mugs-6, 6, 0)
}
