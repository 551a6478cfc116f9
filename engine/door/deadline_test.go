package door_test

import (
	"bufio"
	"io"
	"net"
	"testing"
	"time"

	"github.com/valyala/fasthttp"

	"github.com/doorbuster/doorbuster/engine/door"
)

// A connection lives as long as it asks again and again, and ends when its own
// idle time has passed: deadlines that are moved seldom are moved enough.
func TestDeadlinesOfABusyConnection(t *testing.T) {
	t.Parallel()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := door.NewServer(func(*fasthttp.RequestCtx) {}, door.ServerOptions{IdleTimeout: 3 * time.Second, WriteTimeout: time.Second})
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(ln) }()
	c, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(c)
	ask := func() error {
		if _, err := io.WriteString(c, tail); err != nil {
			return err
		}
		_ = c.SetReadDeadline(time.Now().Add(5 * time.Second))
		var resp fasthttp.Response
		return resp.Read(r)
	}
	for _, pause := range []int{0, 100, 500, 1500, 2500, 0, 2500} { // longer than a request may take, shorter than idle
		time.Sleep(time.Duration(pause) * time.Millisecond)
		if err := ask(); err != nil {
			t.Fatalf("after a pause of %d ms: %v", pause, err)
		}
	}
	began := time.Now()
	_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, err := r.ReadByte(); err != io.EOF {
		t.Errorf("an idle connection ended with %v", err)
	}
	if took := time.Since(began); took < 2*time.Second || took > 6*time.Second {
		t.Errorf("an idle connection ended after %v, want 3 s", took)
	}
	_ = c.Close()
	if err := server.Shutdown(); err != nil {
		t.Error(err)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// Half a request does not live on what a whole one before it was given.
func TestSlowSecondRequestEnds(t *testing.T) {
	t.Parallel()
	addr, _ := serve(t, func(*fasthttp.RequestCtx) {})
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	if _, err := io.WriteString(c, tail+"GET / HT"); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.ReadAll(c); err != nil || time.Since(began) > 5*time.Second {
		t.Errorf("ended after %v with %v, want 2 s", time.Since(began), err)
	}
}

// Who does not read what he asked for does not keep a connection for ever.
func TestReaderThatStops(t *testing.T) {
	t.Parallel()
	addr, _ := serve(t, func(ctx *fasthttp.RequestCtx) { ctx.SetBody(make([]byte, 1<<20)) })
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	_ = c.SetWriteDeadline(time.Now().Add(30 * time.Second))
	began := time.Now()
	for err == nil { // never reads
		_, err = io.WriteString(c, tail)
	}
	if took := time.Since(began); took > 20*time.Second {
		t.Errorf("ended after %v, want 5 s or little more", took)
	}
}
