package status_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/valyala/fasthttp"

	"github.com/doorbuster/doorbuster/engine"
	"github.com/doorbuster/doorbuster/engine/backing/backingtest"
	"github.com/doorbuster/doorbuster/engine/orders"
	"github.com/doorbuster/doorbuster/engine/status"
	"github.com/doorbuster/doorbuster/engine/ticket"
)

func TestEventsFollowTheOrderToItsEnd(t *testing.T) {
	t.Parallel()
	b := setup(t, nil)
	o := b.accept("ann")
	l := b.listen(o.Basket.Order, b.ticket("ann"))
	l.want("accepted")
	b.ingest(o)
	l.want("reserved")
	time.Sleep(300 * time.Millisecond) // longer than the server's WriteTimeout: a stream must outlive it
	b.pay(o)
	l.want("paying")
	b.ask(http.MethodPost, "/v1/orders/"+string(o.Basket.Order)+"/cancel", b.ticket("ann"))
	if event, v := l.next(); event != "order" || v.Status != "paying" || !v.CancelRequested {
		t.Fatalf("the wish: %q %+v", event, v)
	}
	b.settle(o, orders.Confirmed)
	l.want("confirmed")
	if event, _ := l.next(); event != "end" {
		t.Errorf("event %q, want end", event)
	}
	if event, _ := l.next(); event != "" {
		t.Errorf("the stream goes on with %q", event)
	}
	late := b.listen(o.Basket.Order, b.ticket("ann")) // who comes after the end hears it at once
	late.want("confirmed")
	if event, _ := late.next(); event != "end" {
		t.Errorf("event %q, want end", event)
	}
}

// countedOrders counts batched reads.
type countedOrders struct {
	books
	batches atomic.Int64
}

type books = status.Orders

func (c *countedOrders) Orders(ctx context.Context, ids []engine.OrderID) ([]orders.View, error) {
	c.batches.Add(1)
	return c.books.Orders(ctx, ids)
}

func TestStreamsShareOnePoller(t *testing.T) {
	t.Parallel()
	counted := &countedOrders{}
	b := setup(t, func(c *status.Config) {
		counted.books = c.Orders
		c.Orders, c.PollEvery = counted, 50*time.Millisecond
	})
	buyers := []engine.BuyerID{"ann", "bob", "cy", "dan", "eve"}
	var all []engine.Order
	var streams []*live
	for _, buyer := range buyers {
		o := b.reserve(buyer)
		all = append(all, o)
		for range 2 {
			l := b.listen(o.Basket.Order, b.ticket(buyer))
			l.want("reserved")
			streams = append(streams, l)
		}
	}
	began, before := time.Now(), counted.batches.Load()
	for _, o := range all {
		b.pay(o)
		b.settle(o, orders.Declined)
	}
	var wg sync.WaitGroup
	for _, l := range streams {
		wg.Go(func() {
			for {
				event, o := l.next()
				if event == "end" {
					return
				}
				if event == "" {
					t.Errorf("ended without the end: %+v", o)
					return
				}
			}
		})
	}
	wg.Wait()
	if rounds, most := counted.batches.Load()-before, int64(time.Since(began)/(50*time.Millisecond))+2; rounds > most {
		t.Errorf("%d questions for 10 streams, want at most %d: one per round", rounds, most)
	}
}

func TestStreamsAreBounded(t *testing.T) {
	t.Parallel()
	b := setup(t, func(c *status.Config) { c.MaxStreams = status.MaxStreamsPerBuyer + 1 })
	ann, bob := b.reserve("ann"), b.reserve("bob")
	var open []*live
	for range status.MaxStreamsPerBuyer {
		l := b.listen(ann.Basket.Order, b.ticket("ann"))
		l.want("reserved")
		open = append(open, l)
	}
	events := func(o engine.Order, buyer engine.BuyerID) int {
		code, _ := b.head("GET", "/v1/orders/"+string(o.Basket.Order)+"/events", b.ticket(buyer))
		return code
	}
	if code := events(ann, "ann"); code != 503 {
		t.Errorf("one more of ann: %d", code)
	}
	last := b.listen(bob.Basket.Order, b.ticket("bob"))
	last.want("reserved")
	if code := events(bob, "bob"); code != 503 {
		t.Errorf("one more at all: %d", code)
	}
	// A stream that ended makes room.
	b.pay(bob)
	b.settle(bob, orders.Confirmed)
	for event := "x"; event != ""; {
		event, _ = last.next()
	}
	cy := b.reserve("cy")
	backingtest.Eventually(t, "room was made", func() bool { return events(cy, "cy") == 200 })
	if len(open) != status.MaxStreamsPerBuyer {
		t.Errorf("%d streams", len(open))
	}
}

func TestStopEndsStreams(t *testing.T) {
	t.Parallel()
	b := setup(t, nil)
	o := b.reserve("ann")
	l := b.listen(o.Basket.Order, b.ticket("ann"))
	l.want("reserved")
	b.stop()
	if event, _ := l.next(); event != "" {
		t.Errorf("event %q after the stop", event)
	}
	if code, _ := b.head("GET", "/v1/orders/"+string(o.Basket.Order)+"/events", b.ticket("ann")); code != 503 {
		t.Errorf("a stream after the stop: %d", code)
	}
}

// A buyer who closes his browser is noticed by the next sign of life, and leaves
// neither a stream nor a goroutine behind.
func TestStreamOfABuyerWhoLeft(t *testing.T) {
	t.Parallel()
	b := setup(t, func(c *status.Config) { c.MaxStreams = 3 })
	b.status.Beat(5 * time.Millisecond)
	o := b.reserve("ann")
	for range 3 {
		l := b.listen(o.Basket.Order, b.ticket("ann"))
		l.want("reserved")
		if err := l.resp.Body.Close(); err != nil {
			t.Fatal(err)
		}
	}
	backingtest.Eventually(t, "every stream has ended", func() bool { return b.status.Streams() == 0 })
	b.listen(o.Basket.Order, b.ticket("ann")).want("reserved")
}

// oneOrder is a PostgreSQL that knows one order.
type oneOrder struct {
	books
	view orders.View
}

func (o oneOrder) Order(context.Context, engine.OrderID) (orders.View, error) { return o.view, nil }

// Who opens a stream and does not read it loses the connection: a write may take
// StreamWrite.
func TestStreamOfABuyerWhoDoesNotRead(t *testing.T) {
	t.Parallel()
	keys, err := ticket.NewKeys(1, map[uint8][]byte{1: bytes.Repeat([]byte("k"), 32)})
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		view := orders.View{Sale: "drop", State: engine.Reserved}
		view.Order.Order, view.Order.Buyer = engine.OrderID(strings.Repeat("a", engine.OrderIDLen)), "ann"
		s, err := status.New(status.Config{Orders: oneOrder{view: view}, Stock: &watchedSlot{}, Tickets: keys})
		if err != nil {
			t.Fatal(err)
		}
		mine, err := keys.Mint(&ticket.Ticket{Sale: "drop", Buyer: "ann", NotAfter: 1})
		if err != nil {
			t.Fatal(err)
		}
		server, client := net.Pipe() // holds nothing: a write waits for its reader
		defer func() { _ = client.Close() }()
		var ctx fasthttp.RequestCtx
		ctx.Init2(server, nil, false)
		ctx.Request.SetRequestURI("/v1/orders/" + string(view.Order.Order) + "/events")
		ctx.Request.Header.Set("Authorization", "Ticket "+mine)
		if !s.Handle(&ctx) || ctx.Response.StatusCode() != http.StatusOK {
			t.Fatalf("%d %s", ctx.Response.StatusCode(), ctx.Response.Body())
		}
		wrote := make(chan error, 1)
		go func() {
			w := bufio.NewWriter(server)
			wrote <- errors.Join(ctx.Response.Write(w), w.Flush())
		}()
		lines := bufio.NewScanner(client)
		for lines.Scan() && !strings.HasPrefix(lines.Text(), "data: ") {
			continue // the first event; from here on she reads nothing
		}
		time.Sleep(status.BeatEvery + status.StreamWrite/2)
		if s.Streams() != 1 {
			t.Errorf("%d streams while the write may still come to its end", s.Streams())
		}
		time.Sleep(status.StreamWrite)
		select {
		case err := <-wrote:
			if !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("the connection ended with %v", err)
			}
		default:
			t.Error("the connection still waits for somebody who does not read")
		}
		time.Sleep(status.BeatEvery) // the stream itself learns it from its next sign of life
		if s.Streams() != 0 {
			t.Errorf("%d streams for somebody who does not read", s.Streams())
		}
	})
}
