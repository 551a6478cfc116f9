package proxy_test

import (
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/doorbuster/doorbuster/loadtest/proxy"
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

func dialed(t *testing.T, p *proxy.Proxy) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", p.Addr())
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
	p, err := proxy.New(echo(t))
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	c := dialed(t, p)
	if _, err := said(t, c, enough); err != nil || p.Hits() != 0 {
		t.Fatalf("clean: %v, %d hits", err, p.Hits())
	}
	p.Set(proxy.Slow, 50*time.Millisecond)
	if took, err := said(t, c, enough); err != nil || took < 100*time.Millisecond || p.Hits() < 2 {
		t.Errorf("slow, both ways: %v, %v, %d hits", took, err, p.Hits())
	}
	p.Set(proxy.Blackhole, 0)
	if _, err := said(t, c, 100*time.Millisecond); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("blackhole: %v", err)
	}
	p.Set(proxy.Clean, 0)
	_ = c.SetDeadline(time.Now().Add(enough))
	var late [4]byte
	if _, err := io.ReadFull(c, late[:]); err != nil || string(late[:]) != "word" {
		t.Errorf("after the blackhole: %q %v", late, err)
	}
	p.Set(proxy.HalfOpen, 0)
	if _, err := said(t, c, 100*time.Millisecond); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("half open: %v", err)
	}
	fresh := dialed(t, p)
	if _, err := said(t, fresh, enough); err != nil {
		t.Errorf("a new connection beside dead ones: %v", err)
	}
	p.Set(proxy.Resetting, 0)
	if _, err := said(t, fresh, enough); !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, io.EOF) && !errors.Is(err, syscall.EPIPE) {
		t.Errorf("reset: %v", err)
	}
	p.Set(proxy.Clean, 0)
	if _, err := said(t, c, 100*time.Millisecond); err == nil {
		t.Error("a half open connection came back to life")
	}
}

// TestProxyAims: it goes to the first that answers, and elsewhere when told so.
func TestProxyAims(t *testing.T) {
	t.Parallel()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	dead := ln.Addr().String()
	_ = ln.Close()
	p, err := proxy.New(dead)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	if c, err := net.Dial("tcp", p.Addr()); err == nil {
		if _, err := said(t, c, enough); err == nil {
			t.Error("an answer from where nobody listens")
		}
		_ = c.Close()
	}
	p.Aim(false, dead, echo(t))
	old := dialed(t, p)
	if _, err := said(t, old, enough); err != nil {
		t.Errorf("the second target: %v", err)
	}
	p.Aim(true, echo(t))
	if _, err := said(t, old, enough); !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, io.EOF) && !errors.Is(err, syscall.EPIPE) {
		t.Errorf("the old connection: %v, want it reset", err)
	}
	if _, err := said(t, dialed(t, p), enough); err != nil {
		t.Errorf("a new connection: %v", err)
	}
}
