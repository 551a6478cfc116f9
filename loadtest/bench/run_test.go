package bench_test

import (
	"bytes"
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/doorbuster/doorbuster/engine/backing/backingtest"
	"github.com/doorbuster/doorbuster/engine/ticket"
	"github.com/doorbuster/doorbuster/loadtest/bench"
)

// TestMain is also the child of TestChild, which starts this binary again.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "bench-child" {
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
		defer stop()
		if err := bench.Child(ctx, os.Args[2:], os.Stdout); err != nil {
			os.Exit(1)
		}
		return
	}
	goleak.VerifyTestMain(m)
}

func keys(t *testing.T) *ticket.Keys {
	t.Helper()
	k, err := ticket.NewKeys(1, map[uint8][]byte{1: bytes.Repeat([]byte("k"), ticket.MinKeyLen)})
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// privateRedis starts one of the test's own: a part of the bench changes how it
// writes to disk.
func privateRedis(t *testing.T) string {
	t.Helper()
	path, err := exec.LookPath("redis-server")
	if err != nil {
		if os.Getenv("DOORBUSTER_REQUIRE_SERVERS") != "" {
			t.Fatal("redis-server is not installed, and DOORBUSTER_REQUIRE_SERVERS is set")
		}
		t.Skip("redis-server is not installed")
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := ln.Addr().String()
	_ = ln.Close()
	_, port, _ := net.SplitHostPort(addr)
	cmd := exec.Command(path, "--port", port, "--bind", "127.0.0.1", "--dir", t.TempDir(), "--appendonly", "yes", "--appendfsync", "no")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	for deadline := time.Now().Add(10 * time.Second); ; {
		c, err := net.Dial("tcp", addr)
		if err == nil {
			_ = c.Close()
			return "redis://" + addr + "/0"
		}
		if time.Now().After(deadline) {
			t.Fatal("redis-server does not answer: ", err)
		}
		time.Sleep(10 * time.Millisecond) // until it listens; it tells nobody
	}
}

func TestStockIsMeasuredAndThePageWritten(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	out := filepath.Join(dir, "BENCHMARKS.md")
	if err := os.WriteFile(out, []byte(bench.Page(&bench.Result{}, "by hand")), 0o600); err != nil {
		t.Fatal(err)
	}
	var said bytes.Buffer
	redis := privateRedis(t)
	res, err := bench.Run(t.Context(), bench.Config{
		Exe: os.Args[0], Redis: redis, AMQP: backingtest.AMQP(t), Database: backingtest.Database(t), Tickets: keys(t),
		Dir: dir, Out: out, Only: []string{"stock"}, Short: true, Pairs: 2, Command: "go test", Progress: &said,
	})
	if err != nil {
		t.Fatalf("%v\n%s", err, said.String())
	}
	for _, name := range []string{"(e) everysec 1", "(e) everysec 256", "(e) always 64", "grouped/single in (e)"} {
		if s := res.Find(name); s == nil || len(s.Values) != 2 || s.Median() <= 0 {
			t.Errorf("%s: %+v", name, s)
		}
	}
	page, err := os.ReadFile(out)
	if err != nil || bench.Notes(string(page)) != "by hand" || !strings.Contains(string(page), "short run") {
		t.Errorf("%v\n%s", err, page)
	}
	if out, err := exec.CommandContext(t.Context(), "redis-cli", "-u", redis, "config", "get", "appendfsync").Output(); err == nil && !strings.HasSuffix(strings.TrimSpace(string(out)), "no") {
		t.Errorf("appendfsync was left at %q", out)
	}
	if out, err := exec.CommandContext(t.Context(), "redis-cli", "-u", redis, "dbsize").Output(); err == nil && strings.TrimSpace(string(out)) != "0" {
		t.Errorf("%s keys were left", out)
	}
}

func TestRunRefusesWrongConfigurations(t *testing.T) {
	t.Parallel()
	for name, cfg := range map[string]bench.Config{
		"nothing":      {},
		"unknown step": {Redis: "r", AMQP: "a", Database: "d", Tickets: keys(t), Only: []string{"z"}},
		"many pairs":   {Redis: "r", AMQP: "a", Database: "d", Tickets: keys(t), Pairs: 51},
	} {
		if _, err := bench.Run(t.Context(), cfg); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestChildServesUntilItIsAskedToEnd(t *testing.T) {
	t.Parallel()
	cmd := exec.Command(os.Args[0], "bench-child", "bare")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	line := make([]byte, 200)
	n, err := out.Read(line)
	if err != nil {
		t.Fatal(err)
	}
	_, addr, ok := strings.Cut(strings.TrimSpace(string(line[:n])), "http://")
	if !ok {
		t.Fatalf("it said %q", line[:n])
	}
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	if _, err := c.Write([]byte("POST /v1/sales/x/orders HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}")); err != nil {
		t.Fatal(err)
	}
	answer := make([]byte, 1000)
	if n, err := c.Read(answer); err != nil || !strings.HasPrefix(string(answer[:n]), "HTTP/1.1 202 ") || !strings.Contains(string(answer[:n]), `"status":"accepted"`) {
		t.Errorf("%v, %q", err, answer[:n])
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("it ended with %v", err)
	}
	if err := bench.Child(t.Context(), []string{"else"}, &bytes.Buffer{}); err == nil || errors.Is(err, context.Canceled) {
		t.Errorf("an unknown child: %v", err)
	}
}
