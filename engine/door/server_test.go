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
			t.Fatalf("reply: %v", err)
		}
		statuses = append(statuses, resp.StatusCode())
	}
}

const tail = "GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"

const post = "POST /v1/sales/drop/orders HTTP/1.1\r\nHost: x\r\n"

// smuggling is what two servers can read in two ways. through says that fasthttp
// v1.74 lets it reach a handler, or reads another request out of its end: these
// are for the door itself to refuse.
var smuggling = map[string]struct {
	through bool
	raw     string
}{
	"chunked":                              {true, post + "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + tail},
	"chunked beside a length":              {true, post + "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + tail},
	"length beside chunked":                {true, post + "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n" + tail},
	"identity beside a length":             {true, post + "Transfer-Encoding: identity\r\nContent-Length: 35\r\n\r\n" + tail},
	"identity alone":                       {true, post + "Transfer-Encoding: identity\r\n\r\n" + tail},
	"chunked in capitals":                  {true, post + "TRANSFER-ENCODING: CHUNKED\r\n\r\n0\r\n\r\n" + tail},
	"not exactly chunked":                  {false, post + "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" + tail},
	"chunked twice":                        {false, post + "Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n" + tail},
	"two encodings":                        {false, post + "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n" + tail},
	"tab in the encoding":                  {true, post + "Transfer-Encoding:\tchunked\r\n\r\n0\r\n\r\n" + tail},
	"vertical tab in the encoding":         {false, post + "Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n" + tail},
	"two lengths alike":                    {false, post + "Content-Length: 0\r\nContent-Length: 0\r\n\r\n" + tail},
	"two lengths":                          {false, post + "Content-Length: 0\r\nContent-Length: 35\r\n\r\n" + tail},
	"two lengths in one":                   {false, post + "Content-Length: 0, 35\r\n\r\n" + tail},
	"signed length":                        {false, post + "Content-Length: +0\r\n\r\n" + tail},
	"negative length":                      {false, post + "Content-Length: -1\r\n\r\n" + tail},
	"hexadecimal length":                   {false, post + "Content-Length: 0x0\r\n\r\n" + tail},
	"octal length":                         {true, post + "Content-Length: 035\r\n\r\n" + tail},
	"empty length":                         {false, post + "Content-Length:\r\n\r\n" + tail},
	"huge length":                          {false, post + "Content-Length: 18446744073709551616\r\n\r\n" + tail},
	"space before the colon":               {false, post + "Content-Length : 35\r\n\r\n" + tail},
	"tab before the colon":                 {false, post + "Content-Length\t: 35\r\n\r\n" + tail},
	"space inside of the name":             {true, post + "Content Length: 35\r\n\r\n" + tail},
	"folded line":                          {true, post + "X: a\r\n Content-Length: 35\r\n\r\n" + tail},
	"folded encoding":                      {true, post + "Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n" + tail},
	"folded first line":                    {false, "POST / HTTP/1.1\r\n Host: x\r\n\r\n" + tail},
	"bare line feed between fields":        {true, post + "X: a\nContent-Length: 0\r\n\r\n" + tail},
	"bare line feed as the end":            {true, post + "Content-Length: 0\n\n" + tail},
	"half an end":                          {true, post + "Content-Length: 0\r\n\n" + tail},
	"bare carriage return in a value":      {false, post + "X: a\rContent-Length: 35\r\n\r\n" + tail},
	"two carriage returns":                 {false, post + "X: a\r\r\nContent-Length: 0\r\n\r\n" + tail},
	"carriage return before the colon":     {false, post + "X\r: a\r\nContent-Length: 0\r\n\r\n" + tail},
	"NUL in a value":                       {false, post + "X: a\x00b\r\nContent-Length: 0\r\n\r\n" + tail},
	"no name":                              {false, post + ": a\r\nContent-Length: 0\r\n\r\n" + tail},
	"no colon":                             {false, post + "garbage\r\nContent-Length: 0\r\n\r\n" + tail},
	"quote in a name":                      {false, post + "\"X\": a\r\nContent-Length: 0\r\n\r\n" + tail},
	"two hosts":                            {false, post + "Host: y\r\nContent-Length: 0\r\n\r\n" + tail},
	"no host":                              {false, "GET / HTTP/1.1\r\n\r\n" + tail},
	"two keys":                             {true, post + "Idempotency-Key: a\r\nIdempotency-Key: b\r\nContent-Length: 0\r\n\r\n"},
	"two tickets":                          {true, post + "Authorization: Ticket a\r\nAuthorization: Ticket b\r\n\r\n"},
	"absolute form":                        {true, "GET http://other.example/v1/sales/drop HTTP/1.1\r\nHost: x\r\n\r\n" + tail},
	"absolute form of another scheme":      {true, "GET gopher://x/v1/sales/drop HTTP/1.1\r\nHost: x\r\n\r\n" + tail},
	"asterisk form":                        {true, "OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n" + tail},
	"authority form":                       {true, "CONNECT other.example:443 HTTP/1.1\r\nHost: x\r\n\r\n" + tail},
	"relative form":                        {false, "GET v1/sales/drop HTTP/1.1\r\nHost: x\r\n\r\n" + tail},
	"version of the future":                {true, "GET / HTTP/9.9\r\nHost: x\r\n\r\n" + tail},
	"version without a minor":              {false, "GET / HTTP/1\r\nHost: x\r\n\r\n" + tail},
	"no version":                           {false, "GET /\r\n\r\n" + tail},
	"space in the path":                    {false, "GET /a b HTTP/1.1\r\nHost: x\r\n\r\n" + tail},
	"two carriage returns, request line":   {false, "GET / HTTP/1.1\r\r\nHost: x\r\n\r\n" + tail},
	"encoding in HTTP/1.0":                 {false, "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + tail},
	"header block larger than the buffer":  {false, post + "X: " + strings.Repeat("x", 5<<10) + "\r\nContent-Length: 0\r\n\r\n" + tail},
	"chunk sizes that overflow":            {false, post + "Transfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFF0\r\n\r\n" + tail},
	"bare line feed in the chunked ending": {false, post + "Transfer-Encoding: chunked\r\n\r\n0\n\n" + tail},
}

func TestSmuggling(t *testing.T) {
	for name, c := range smuggling {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var reached atomic.Int64
			addr, _ := serve(t, func(*fasthttp.RequestCtx) { reached.Add(1) })
			statuses, closed := exchange(t, addr, c.raw)
			if reached.Load() != 0 {
				t.Errorf("%d requests reached the handler", reached.Load())
			}
			if len(statuses) != 1 || statuses[0]/100 != 4 || !closed {
				t.Errorf("statuses %v, closed %v; want one refusal and the end", statuses, closed)
			}
		})
	}
}

// What fasthttp lets through is written down, so that an update that changes it
// is seen.
func TestSmugglingThroughBareFasthttp(t *testing.T) {
	for name, c := range smuggling {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var reached atomic.Int64
			ln, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			server := &fasthttp.Server{Handler: func(*fasthttp.RequestCtx) { reached.Add(1) }, Logger: silent{}, CloseOnShutdown: true}
			ended := make(chan error, 1)
			go func() { ended <- server.Serve(ln) }()
			exchange(t, ln.Addr().String(), c.raw)
			if err := errors.Join(server.Shutdown(), <-ended); err != nil {
				t.Error(err)
			}
			if got := reached.Load() > 0; got != c.through {
				t.Errorf("let through: %v, written down: %v", got, c.through)
			}
		})
	}
}

type silent struct{}

func (silent) Printf(string, ...any) {}

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
