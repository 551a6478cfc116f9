package chaos

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

const enough = 5 * time.Second

// echo is a server that says what it hears.
func echo(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() { _, _ = io.Copy(c, c); _ = c.Close() }()
		}
	}()
	return ln.Addr().String()
}

func dialed(t *testing.T, p *proxy) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", p.addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// said sends a word and returns how long its echo took, or why none came.
func said(t *testing.T, c net.Conn, patience time.Duration) (time.Duration, error) {
	t.Helper()
	began := time.Now()
	_ = c.SetDeadline(began.Add(patience))
	if _, err := c.Write([]byte("word")); err != nil {
		return 0, err
	}
	var b [4]byte
	_, err := io.ReadFull(c, b[:])
	return time.Since(began), err
}

func TestProxy(t *testing.T) {
	t.Parallel()
	p, err := newProxy(echo(t))
	if err != nil {
		t.Fatal(err)
	}
	defer p.close()
	c := dialed(t, p)
	if _, err := said(t, c, enough); err != nil || p.hits.Load() != 0 {
		t.Fatalf("clean: %v, %d hits", err, p.hits.Load())
	}
	p.set(slow, 50*time.Millisecond)
	if took, err := said(t, c, enough); err != nil || took < 100*time.Millisecond || p.hits.Load() < 2 {
		t.Errorf("slow, both ways: %v, %v, %d hits", took, err, p.hits.Load())
	}
	p.set(blackhole, 0)
	if _, err := said(t, c, 100*time.Millisecond); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("blackhole: %v", err)
	}
	p.set(clean, 0)
	_ = c.SetDeadline(time.Now().Add(enough))
	var late [4]byte
	if _, err := io.ReadFull(c, late[:]); err != nil || string(late[:]) != "word" {
		t.Errorf("after the blackhole: %q %v", late, err)
	}
	p.set(halfOpen, 0)
	if _, err := said(t, c, 100*time.Millisecond); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("half open: %v", err)
	}
	fresh := dialed(t, p)
	if _, err := said(t, fresh, enough); err != nil {
		t.Errorf("a new connection beside dead ones: %v", err)
	}
	p.set(resetting, 0)
	if _, err := said(t, fresh, enough); !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, io.EOF) && !errors.Is(err, syscall.EPIPE) {
		t.Errorf("reset: %v", err)
	}
	p.set(clean, 0)
	if _, err := said(t, c, 100*time.Millisecond); err == nil {
		t.Error("a half open connection came back to life")
	}
}

// TestTruncate cuts a log where its stamps say.
func TestTruncate(t *testing.T) {
	t.Parallel()
	const log = "#TS:100\r\n*1\r\n$1\r\na\r\n#TS:101\r\n*1\r\n$1\r\nb\r\n#TS:102\r\n*1\r\n$1\r\nc\r\n"
	for _, c := range []struct {
		lost time.Duration
		kept string
	}{
		{time.Second, log[:bytes.Index([]byte(log), []byte("#TS:102"))]},
		{2 * time.Second, log[:bytes.Index([]byte(log), []byte("#TS:101"))]},
	} {
		dir := t.TempDir()
		old, file := filepath.Join(dir, "appendonly.aof.9.incr.aof"), filepath.Join(dir, "appendonly.aof.10.incr.aof")
		for _, f := range []string{old, file} {
			if err := os.WriteFile(f, []byte(log), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		cut, kept, err := truncate(dir, c.lost)
		b, rerr := os.ReadFile(file)
		if err != nil || rerr != nil || string(b) != c.kept || kept != len(c.kept) || cut != len(log)-kept {
			t.Errorf("%s: %q, cut %d, kept %d, %v %v; want %q", c.lost, b, cut, kept, err, rerr, c.kept)
		}
		if b, _ := os.ReadFile(old); string(b) != log {
			t.Error("an older log was cut")
		}
	}
	if _, _, err := truncate(t.TempDir(), time.Second); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no log: %v", err)
	}
}
