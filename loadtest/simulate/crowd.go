package simulate

import (
	"fmt"
	"net/http"
	"strconv"
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
	buyer   engine.BuyerID
	total   int64
	epoch   int64 // of the sale when he heard it
	careful bool  // Redis wrote before it answered
}

func (c *crowd) over() bool { return c.left == 0 }

// visit is one request on its way.
type visit struct {
	ask  door.Ask
	said *door.Said
	who  *actor
}

// answer lets the client hear. The way back takes a while, and sometimes breaks.
func (v *visit) answer(s *door.Said) {
	w := v.who.w
	if w.chance(.03) {
		w.count("reply lost")
		return
	}
	v.said = s
	w.wake(v.who, w.between(0, 2*time.Millisecond))
}

func (c *crowd) begin(w *world) {
	c.acked, c.gone, c.bought = map[engine.OrderID]acked{}, map[engine.OrderID]bool{}, map[engine.OrderID]bool{}
	for i := range clients {
		cl := newClient(w, i)
		c.join(w, fmt.Sprint("client", i), func(a *actor) {
			cl.a = a
			a.wait(w.between(4*time.Second, arriveBy))
			cl.buy()
		})
	}
	c.join(w, "operator", func(a *actor) {
		a.wait(w.between(5*time.Second, arriveBy))
		newOperator(w, a).operate()
	})
}

// join spawns somebody who wants something.
func (c *crowd) join(w *world, name string, body func(a *actor)) {
	c.left++
	w.spawn(nil, name, func(a *actor) {
		body(a)
		c.left--
	})
}

// client is one who wants one order.
type client struct {
	w      *world
	a      *actor
	shop   *shop
	buyer  engine.BuyerID
	basket basket
	prices [2]int64 // that he saw
	ask    door.Ask
	total  int64
	order  engine.OrderID // under his key
	other  bool           // he asks for something else under his key
}

// basket is how many of each item somebody wants.
type basket [2]int

var baskets = [...]basket{{1, 0}, {1, 0}, {2, 0}, {0, 1}, {1, 1}}

func newClient(w *world, i int) *client {
	s := w.shops[i%len(w.shops)]
	cl := &client{
		w: w, shop: s, buyer: engine.BuyerID("buyer" + strconv.Itoa(i%buyers)), basket: baskets[w.rng.IntN(len(baskets))], prices: s.prices,
	}
	var ids []engine.Identity
	if n := i % buyers; n < sharing {
		ids = []engine.Identity{{'i', byte(n % 2)}}
	}
	cl.ask.Ticket = ticket.Ticket{Sale: s.id, Buyer: cl.buyer, NotAfter: dawn.Add(farAway).UnixMilli(), Identities: ids}
	cl.choose("key-" + strconv.Itoa(i))
	return cl
}

// choose fills in a new request.
func (cl *client) choose(key string) {
	cl.ask.Key, cl.ask.Repeat, cl.order = []byte(key), false, ""
	cl.ask.Body, cl.total = cl.shop.body(cl.basket, cl.prices)
}

// buy tries until it hears something final. It returns whether that was 202.
func (cl *client) buy() bool {
	w, a := cl.w, cl.a
	for try := range tries {
		said := cl.visit()
		switch {
		case said != nil && said.Status < 300:
			cl.later(said.Order)
			return true
		case said == nil, said.Status >= 500, said.Status == http.StatusTooManyRequests:
			cl.ask.Repeat = w.rng.IntN(3) > 0
			a.wait(w.between(200*time.Millisecond, 2*time.Second))
		case said.Type == "price-changed": // nothing was taken: another price is another order
			sale, _, _ := w.db.m.Sale(w.ctx, cl.shop.id)
			cl.prices = [2]int64{sale.Items[0].Price, sale.Items[1].Price}
			cl.choose(string(cl.ask.Key) + "-" + strconv.Itoa(try))
			a.wait(w.between(100*time.Millisecond, time.Second))
		case said.Status == http.StatusConflict && w.rng.IntN(2) == 0, said.Type == "not-open":
			a.wait(w.between(time.Second, 3*time.Second)) // a unit may return
		default:
			return false
		}
	}
	return false
}

// visit asks some door once, and returns what it said or nil.
func (cl *client) visit() *door.Said {
	w, a := cl.w, cl.a
	d := cl.shop.doors[w.rng.IntN(doors)]
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
	if w.story != nil {
		w.tell("%s hears %d %s %.6s", cl.buyer, v.said.Status, v.said.Type, v.said.Order)
	}
	w.laws.heard(cl, v.said)
	return v.said
}

// later is what a buyer does who has his order: begin to pay, ask once more, ask for
// something else under the same key, or cancel.
func (cl *client) later(id engine.OrderID) {
	w, a, c := cl.w, cl.a, conn{database: cl.w.db}
	if w.plan.checkout && (w.rushed || w.rng.IntN(3) > 0) {
		for range 8 {
			a.wait(w.between(100*time.Millisecond, 2*time.Second))
			if begun, err := c.checkout(w.ctx, cl.shop.id, id); err == nil && begun {
				break
			}
		}
	}
	if w.rushed {
		return
	}
	switch w.rng.IntN(7) {
	case 0, 1:
		a.wait(w.between(500*time.Millisecond, 8*time.Second))
		cl.ask.Repeat = true
		cl.visit()
	case 2:
		for range 3 {
			a.wait(w.between(100*time.Millisecond, 4*time.Second))
			if out, err := c.Cancel(w.ctx, cl.buyer, id); err == nil && out != orders.CancelPending {
				return
			}
		}
	case 3:
		a.wait(w.between(100*time.Millisecond, 3*time.Second))
		cl.ask.Repeat, cl.other = true, true
		cl.basket[0] += 2
		cl.ask.Body, _ = cl.shop.body(cl.basket, cl.prices)
		cl.visit()
	}
}
