package simulate

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/doorbuster/doorbuster/engine"
	"github.com/doorbuster/doorbuster/engine/door"
	"github.com/doorbuster/doorbuster/engine/orders"
	"github.com/doorbuster/doorbuster/engine/ticket"
)

const (
	clients  = 22
	buyers   = 13
	sharing  = 6 // of them share two identities
	arriveBy = 14 * time.Second
	tries    = 16
	hearBy   = 4 * time.Second // a client waits so long for an answer
)

// crowd is who buys, and what they heard.
type crowd struct {
	left int // clients who still want something

	acked  map[engine.OrderID]acked // a 202 was heard
	gone   map[engine.OrderID]bool  // "cancelled" was heard
	bought map[engine.OrderID]bool  // "confirmed" was heard
}

// acked is what a client knows of his order.
type acked struct {
	buyer engine.BuyerID
	total int64
}

func (c *crowd) over() bool { return c.left == 0 }

// visit is one request on its way.
type visit struct {
	ask  door.Ask
	said *door.Said
	who  *actor
}

// answer lets the client hear. The way back takes a while, and sometimes breaks.
func (v *visit) answer(s door.Said) {
	w := v.who.w
	if w.chance(.03) {
		w.count("reply lost")
		return
	}
	v.said = &s
	w.wake(v.who, w.between(0, 2*time.Millisecond))
}

func (c *crowd) begin(w *world) {
	c.acked, c.gone, c.bought = map[engine.OrderID]acked{}, map[engine.OrderID]bool{}, map[engine.OrderID]bool{}
	c.left = clients + 1
	for i := range clients {
		w.spawn(nil, fmt.Sprint("client", i), func(a *actor) {
			cl := newClient(w, a, i)
			a.wait(w.between(4*time.Second, arriveBy))
			cl.buy()
			c.left--
		})
	}
	w.spawn(nil, "operator", func(a *actor) {
		a.wait(w.between(5*time.Second, arriveBy))
		c.operate(w, a)
		c.left--
		if c.over() {
			return
		}
	})
}

// client is one who wants one order.
type client struct {
	w     *world
	a     *actor
	buyer engine.BuyerID
	ask   door.Ask
	total int64
}

var baskets = []struct {
	lines string
	total int64
}{
	{`{"sku":"A","quantity":1}`, 100},
	{`{"sku":"A","quantity":1}`, 100},
	{`{"sku":"A","quantity":2}`, 200},
	{`{"sku":"B","quantity":1}`, 250},
	{`{"sku":"A","quantity":1},{"sku":"B","quantity":1}`, 350},
}

func newClient(w *world, a *actor, i int) *client {
	b := baskets[w.rng.IntN(len(baskets))]
	cl := &client{w: w, a: a, buyer: engine.BuyerID(fmt.Sprint("buyer", i%buyers)), total: b.total}
	var ids []engine.Identity
	if n := i % buyers; n < sharing {
		ids = []engine.Identity{{'i', byte(n % 2)}}
	}
	cl.ask = door.Ask{
		Ticket: ticket.Ticket{Sale: saleID, Buyer: cl.buyer, NotAfter: dawn.Add(24 * time.Hour).UnixMilli(), Identities: ids},
		Key:    fmt.Appendf(nil, "key-%d", i),
		Body:   fmt.Appendf(nil, `{"lines":[%s],"total":{"amount":%d,"currency":%q}}`, b.lines, b.total, currency),
	}
	return cl
}

// buy tries until it hears something final.
func (cl *client) buy() {
	w, a := cl.w, cl.a
	for range tries {
		said := cl.visit()
		switch {
		case said != nil && said.Status < 300:
			cl.later(said.Order)
			return
		case said == nil, said.Status >= 500, said.Status == http.StatusTooManyRequests:
			cl.ask.Repeat = w.rng.IntN(3) > 0
			a.wait(w.between(200*time.Millisecond, 2*time.Second))
		case said.Status == http.StatusConflict && w.rng.IntN(2) == 0:
			a.wait(w.between(time.Second, 3*time.Second)) // a unit may return
		default:
			return
		}
	}
}

// visit asks some door once, and returns what it said or nil.
func (cl *client) visit() *door.Said {
	w, a := cl.w, cl.a
	d := w.doors[w.rng.IntN(len(w.doors))]
	if d.p.dead {
		return nil
	}
	v := &visit{ask: cl.ask, who: a}
	d.queue = append(d.queue, v)
	w.wake(d.lanes[w.rng.IntN(len(d.lanes))], w.between(0, 5*time.Millisecond))
	a.wait(hearBy)
	if v.said == nil {
		w.tell("hears nothing")
		v.who = a // an answer may still come: nobody listens
		return nil
	}
	w.tell("%s hears %d %s %.6s", cl.buyer, v.said.Status, v.said.Type, v.said.Order)
	w.laws.heard(cl, v.said)
	return v.said
}

// later is what a buyer does who has his order: ask once more, or cancel.
func (cl *client) later(id engine.OrderID) {
	w, a := cl.w, cl.a
	switch w.rng.IntN(6) {
	case 0, 1:
		a.wait(w.between(500*time.Millisecond, 8*time.Second))
		cl.ask.Repeat = true
		cl.visit()
	case 2:
		c := conn{database: w.db}
		for range 3 {
			a.wait(w.between(100*time.Millisecond, 4*time.Second))
			if out, err := c.cancel(context.Background(), cl.buyer, id); err == nil && out != orders.CancelPending {
				return
			}
		}
	}
}

// operate restocks, withdraws and takes back.
func (c *crowd) operate(w *world, a *actor) {
	ctx, db := context.Background(), conn{database: w.db}
	for range 1 + w.rng.IntN(4) {
		sku, n := engine.SKU("A"), 1+w.rng.Int64N(3)
		if w.rng.IntN(3) == 0 {
			sku = "B"
		}
		switch w.rng.IntN(3) {
		case 0:
			_ = db.tx(ctx, "restock", func() error { _, err := db.m.Restock(ctx, saleID, sku, n, orders.Note{}); return err })
		case 1:
			_ = db.tx(ctx, "withdraw", func() error { _, err := db.m.RequestWithdraw(ctx, saleID, sku, n, orders.Note{}); return err })
		case 2:
			for id := range oneOf(w, c.acked) {
				_ = db.tx(ctx, "return", func() error { _, err := db.m.Return(ctx, id, orders.Note{}); return err })
			}
		}
		a.wait(w.between(300*time.Millisecond, 4*time.Second))
	}
}
