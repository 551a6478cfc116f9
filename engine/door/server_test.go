package door_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/valyala/fasthttp"

	"github.com/doorbuster/doorbuster/engine/door"
)

// serve runs a server over TCP that counts the requests that reach the handler.
func serve(t *testing.T, handle fasthttp.RequestHandler) (addr string, server *door.Server) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server = door.NewServer(handle, door.ServerOptions{})
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(ln) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := server.ShutdownWithContext(ctx); err != nil {
			t.Error(err)
		}
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return ln.Addr().String(), server
}

// exchange sends raw bytes and reads replies until the server closes the
// connection, or has said nothing for a moment.
func exchange(t *testing.T, addr, raw string) (statuses []int, closed bool) {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	if _, err := io.WriteString(c, raw); err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(c)
	for {
		_ = c.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
		if _, err := r.Peek(1); err != nil {
			return statuses, !errors.Is(err, os.ErrDeadlineExceeded)
		}
		var resp fasthttp.Response
		if err := resp.Read(r); err != nil {
			return append(statuses, 0), true // cut off, or no HTTP at all
		}
		statuses = append(statuses, resp.StatusCode())
	}
}

const tail = "GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"

func TestOrdinaryRequestsPass(t *testing.T) {
	var reached atomic.Int64
	addr, _ := serve(t, func(ctx *fasthttp.RequestCtx) { reached.Add(1); ctx.SetStatusCode(204) })
	raw := "GET / HTTP/1.1\r\nHost: x\r\n\r\n" +
		"POST /a HTTP/1.1\r\nHOST:x\r\ncontent-length:\t 2 \r\nX-Empty:\r\nAccept: */*; q=\"1\"\r\n\r\nhi" +
		"GET /b?c=d HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n" +
		"GET / HTTP/1.0\r\n\r\n"
	statuses, closed := exchange(t, addr, raw)
	if len(statuses) != 4 || reached.Load() != 4 || !closed {
		t.Fatalf("statuses %v, %d reached, closed %v", statuses, reached.Load(), closed)
	}
}

func TestLargeBodies(t *testing.T) {
	addr, _ := serve(t, func(ctx *fasthttp.RequestCtx) { ctx.SetStatusCode(204) })
	post := func(n int) string {
		return string(ask{body: strings.Repeat(" ", n)}.bytes())
	}
	if statuses, _ := exchange(t, addr, post(4<<10)+tail); len(statuses) != 2 || statuses[0] != 204 {
		t.Errorf("4 KiB: %v", statuses)
	}
	if statuses, _ := exchange(t, addr, post(5<<10)+tail); len(statuses) != 2 || statuses[0] != 413 || statuses[1] != 204 {
		t.Errorf("5 KiB: %v, want 413 and the next request served", statuses)
	}
	head := "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n"
	if statuses, closed := exchange(t, addr, head); len(statuses) != 1 || statuses[0] != 413 || !closed {
		t.Errorf("1 MB: %v, closed %v", statuses, closed)
	}
}

func TestSlowRequestEnds(t *testing.T) {
	addr, _ := serve(t, func(*fasthttp.RequestCtx) {})
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	began := time.Now()
	if _, err := io.WriteString(c, "POST / HTTP/1.1\r\nHost: x\r\nContent-Le"); err != nil {
		t.Fatal(err)
	}
	_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.ReadAll(c); err != nil || time.Since(began) < time.Second || time.Since(began) > 5*time.Second {
		t.Errorf("ended after %v with %v, want 2 s", time.Since(began), err)
	}
}

func TestPanicInAHandler(t *testing.T) {
	addr, _ := serve(t, func(ctx *fasthttp.RequestCtx) {
		if string(ctx.Path()) == "/panic" {
			panic("boom")
		}
	})
	statuses, closed := exchange(t, addr, "GET /panic HTTP/1.1\r\nHost: x\r\n\r\n")
	if len(statuses) != 1 || statuses[0] != 500 || !closed {
		t.Errorf("%v, closed %v", statuses, closed)
	}
	if statuses, _ := exchange(t, addr, tail); len(statuses) != 1 || statuses[0] != 200 {
		t.Errorf("after it: %v", statuses)
	}
}
