package door_test

import (
	"errors"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/valyala/fasthttp"

	"github.com/doorbuster/doorbuster/engine/door"
	"github.com/doorbuster/doorbuster/loadtest/smuggling"
)

func corpus(t *testing.T) []smuggling.Line {
	t.Helper()
	all, err := smuggling.Corpus()
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// fill puts orders into the placeholders that a door would take.
func (b *bench) fill(raw string) string {
	b.Helper()
	order := ask{ticket: b.ticket("hidden"), key: "hidden", body: oneMug}.bytes()
	return smuggling.Fill(raw, string(order), string(ask{ticket: b.ticket("seen"), key: "seen"}.bytes()))
}

// taken counts the orders that the stock has accepted.
func (b *bench) taken() int64 {
	b.Helper()
	w, err := b.stock.Model.Watch(b.Context(), testSale, 0)
	if err != nil {
		b.Fatal(err)
	}
	return w.Seq
}

// A request that can be read in two ways ends in one refusal and the end of the
// connection, and the order hidden in it is not taken.
func TestSmuggling(t *testing.T) {
	t.Parallel()
	all := corpus(t)
	if len(all) < 140 {
		t.Fatalf("%d lines in the corpus: it does not shrink", len(all))
	}
	for _, c := range all {
		t.Run(c.Name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			addr, _ := serve(t, b.route)
			statuses, closed := exchange(t, addr, b.fill(c.Raw))
			if len(statuses) > 1 || (len(statuses) == 1 && statuses[0]/100 != 4) || !closed {
				t.Errorf("statuses %v, closed %v; want one refusal and the end", statuses, closed)
			}
			if n := b.taken(); n != 0 || b.stock.reserves.Load() != 0 {
				t.Errorf("%d orders taken", n)
			}
		})
	}
}

// What fasthttp lets through is written down, so that an update that changes it
// is seen.
func TestSmugglingThroughBareFasthttp(t *testing.T) {
	t.Parallel()
	for _, c := range corpus(t) {
		t.Run(c.Name, func(t *testing.T) {
			t.Parallel()
			var reached atomic.Int64
			ln, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			server := &fasthttp.Server{
				Handler: func(*fasthttp.RequestCtx) { reached.Add(1) }, Logger: silent{}, CloseOnShutdown: true, ReadTimeout: door.ReadTimeout,
			}
			ended := make(chan error, 1)
			go func() { ended <- server.Serve(ln) }()
			exchange(t, ln.Addr().String(), setup(t).fill(c.Raw))
			if err := errors.Join(server.Shutdown(), <-ended); err != nil {
				t.Error(err)
			}
			if got := reached.Load() > 0; got != c.Passes {
				t.Errorf("let through: %v, written down: %v", got, c.Passes)
			}
		})
	}
}

type silent struct{}

func (silent) Printf(string, ...any) {}

// What is odd and can be read in one way only: each request has one answer, and an
// order inside of another's body stays there.
func TestOddButClear(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		raw     string
		answers []int
		taken   int64
	}{
		"order in the body of another":  {"{post}Content-Length: {len}\r\n\r\n{order}", []int{422}, 0},
		"order in the body of a GET":    {"GET /v1/sales/drop HTTP/1.1\r\nHost: x\r\nContent-Length: {len}\r\n\r\n{order}", []int{200}, 0},
		"order in a body of 10 KiB":     {"{post}Content-Length: 10240\r\n\r\n" + strings.Repeat("{order}", 40), []int{413}, 0},
		"order behind the close":        {"{post}Connection: close\r\nContent-Length: 0\r\n\r\n{order}", []int{422}, 0},
		"order behind HTTP/1.0":         {"GET /v1/sales/drop HTTP/1.0\r\nHost: x\r\n\r\n{order}", []int{200}, 0},
		"body that is waited for":       {"{post}Expect: 100-continue\r\nContent-Length: {len}\r\n\r\n{order}", []int{422}, 0}, // after a 100, which is no answer
		"expectation nobody knows":      {"{post}Expect: a miracle\r\nContent-Length: {len}\r\n\r\n{order}", []int{422}, 0},
		"upgrade, then an order":        {"GET /v1/sales/drop HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n{order}", []int{200, 202}, 1},
		"upgrade to h2c, then an order": {"GET /v1/sales/drop HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n{order}", []int{200, 202}, 1},
		// RFC 9112 section 2.2 lets a server take it, and fasthttp does not show the line's bytes.
		"bare line feed behind the request line": {"GET /v1/sales/drop HTTP/1.1\nHost: x\r\n\r\n{order}", []int{200, 202}, 1},

		"two orders, one after another":  {"{order}{order}", []int{202, 202}, 1},
		"empty line before the request":  {"\r\n{order}", []int{202}, 1},
		"name that is nearly a length":   {"{post}Content_Length: {len}\r\n\r\n{order}", []int{422, 202}, 1},
		"kept alive in HTTP/1.0":         {"GET /v1/sales/drop HTTP/1.0\r\nHost: x\r\nConnection: keep-alive\r\n\r\n{order}", []int{200, 202}, 1},
		"nothing is hop by hop here":     {"{post}Connection: content-length, close\r\nContent-Length: {len}\r\n\r\n{order}", []int{422}, 0},
		"body in gzip is not unpacked":   {"{post}Content-Encoding: gzip\r\nContent-Length: {len}\r\n\r\n{order}", []int{422}, 0},
		"form of many parts is one body": {"{post}Content-Type: multipart/form-data; boundary=x\r\nContent-Length: {len}\r\n\r\n{order}", []int{422}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			addr, _ := serve(t, b.route)
			raw := b.fill(c.raw)
			if head, _, ok := strings.Cut(c.raw, "10240\r\n\r\n"); ok {
				raw = raw[:len(b.fill(head+"10240\r\n\r\n"))+10240]
			}
			statuses, _ := exchange(t, addr, raw)
			if !slices.Equal(statuses, c.answers) {
				t.Errorf("statuses %v, want %v", statuses, c.answers)
			}
			if n := b.taken(); n != c.taken {
				t.Errorf("%d orders taken, want %d", n, c.taken)
			}
		})
	}
}
