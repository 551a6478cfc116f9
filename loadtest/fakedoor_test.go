package loadtest_test

import (
	"fmt"
	"io"
	"log"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/valyala/fasthttp"

	"github.com/doorbuster/doorbuster/engine"
	"github.com/doorbuster/doorbuster/loadtest"
)

// fakeDoor is a door with the stock in a variable. Its fields may be set before
// it is asked for the first time.
type fakeDoor struct {
	mu        sync.Mutex
	url       string
	opens     time.Time
	units     int
	sold      int
	decline   int // so many sold units return once
	overload  int // so many requests are answered 503 overloaded
	unknown   int // so many are answered 503 outcome-unknown, though the unit is taken
	cut       int // so many connections are cut after the unit was taken
	cutAfter  int // orders
	orders    map[string]string
	bodies    map[string]string
	asks      map[string]int // by key: requests
	replays   int            // repeats that came with Idempotency-Replay
	neverSell bool           // held, but never confirmed
	early     int            // so many are told ticket-early, though it is open
	closed    bool           // once sold out
}

func newFakeDoor(t *testing.T, units int) *fakeDoor {
	t.Helper()
	d := &fakeDoor{units: units, opens: time.Now(), orders: map[string]string{}, bodies: map[string]string{}, asks: map[string]int{}}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	d.url = "http://" + ln.Addr().String()
	srv := &fasthttp.Server{Handler: d.handle, NoDefaultServerHeader: true, Logger: log.New(io.Discard, "", 0)}
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.Serve(ln) }()
	t.Cleanup(func() { _ = ln.Close(); <-done })
	return d
}

func (d *fakeDoor) handle(ctx *fasthttp.RequestCtx) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if ctx.IsGet() {
		sold := d.sold
		if d.neverSell {
			sold = 0
		}
		state := "open"
		if time.Now().Before(d.opens) {
			state = "scheduled"
		} else if d.closed && d.sold >= d.units {
			state = "closed"
		}
		ctx.SetBodyString(fmt.Sprintf(`{"sale":"drop","state":%q,"opens":%q,"closes":%q,"now":%q,"items":[{"sku":"MUG","price":1500,"units":%d,"available":%d,"held":%d,"sold":%d}]}`,
			state, d.opens.UTC().Format(time.RFC3339Nano), d.opens.Add(time.Hour).UTC().Format(time.RFC3339Nano), time.Now().UTC().Format(time.RFC3339Nano),
			d.units, d.units-d.sold, d.sold-sold, sold))
		return
	}
	key := string(ctx.Request.Header.Peek("Idempotency-Key"))
	body := string(ctx.PostBody())
	d.asks[key]++
	if len(ctx.Request.Header.Peek("Idempotency-Replay")) > 0 {
		d.replays++
	}
	d.answer(ctx, key, body)
}

func (d *fakeDoor) answer(ctx *fasthttp.RequestCtx, key, body string) {
	problem := func(status int, slug string) {
		ctx.SetStatusCode(status)
		ctx.SetContentType("application/problem+json")
		ctx.SetBodyString(`{"type":"/problems/` + slug + `","title":"t","status":` + fmt.Sprint(status) + `,"may_return":true}`)
	}
	if id, ok := d.orders[key]; ok {
		if d.bodies[key] != body {
			problem(422, "idempotency-mismatch")
			return
		}
		ctx.SetStatusCode(202)
		ctx.SetBodyString(`{"order":"` + id + `","status":"accepted","replayed":true}`)
		return
	}
	switch {
	case time.Now().Before(d.opens):
		problem(409, "not-open")
		return
	case d.early > 0:
		d.early--
		problem(403, "ticket-early")
		return
	case d.overload > 0:
		d.overload--
		ctx.Response.Header.Set("Retry-After", "1")
		problem(503, "overloaded")
		return
	case d.sold >= d.units:
		problem(409, "sold-out")
		if d.decline > 0 {
			d.decline--
			d.sold--
		}
		return
	}
	d.sold++
	id := fmt.Sprintf("%026d", d.sold+len(d.orders))
	id = strings.NewReplacer("0", "a", "1", "b", "8", "c", "9", "d").Replace(id)
	d.orders[key], d.bodies[key] = id, body
	switch {
	case d.unknown > 0:
		d.unknown--
		problem(503, "outcome-unknown")
	case d.cut > 0 && len(d.orders) > d.cutAfter:
		d.cut--
		_ = ctx.Conn().Close()
	default:
		ctx.SetStatusCode(202)
		ctx.SetBodyString(`{"order":"` + id + `","status":"accepted"}`)
	}
}

func tickets(n int) []loadtest.Ticket {
	out := make([]loadtest.Ticket, n)
	for i := range out {
		out[i] = loadtest.Ticket{Buyer: engine.BuyerID(fmt.Sprintf("buyer-%d", i)), Token: fmt.Sprintf("token-%d", i)}
	}
	return out
}

var mug = loadtest.Single("MUG", 1, 1500, "KRW")
