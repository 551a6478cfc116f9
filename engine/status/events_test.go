package status_test

import (
	"context"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/doorbuster/doorbuster/engine"
	"github.com/doorbuster/doorbuster/engine/orders"
	"github.com/doorbuster/doorbuster/engine/status"
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
	deadline := time.Now().Add(5 * time.Second)
	for events(cy, "cy") != 200 {
		if time.Now().After(deadline) {
			t.Fatal("no room was made")
		}
	}
	_ = open
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
