package simulate

import (
	"context"
	"slices"
	"time"

	"github.com/doorbuster/doorbuster/engine"
	"github.com/doorbuster/doorbuster/engine/queue"
	"github.com/doorbuster/doorbuster/payment"
)

// broker is the simulated RabbitMQ: one ingest queue, at least once, in any order.
type broker struct {
	service
	queue   []*message
	unacked []*message
	waiting []*actor                // consumers without work
	purged  map[engine.OrderID]bool // and not seen since
	held    int64                   // nothing is delivered until then
	missing int64                   // there is no queue until then
	sent    [][]byte                // all there ever was, to be sent again
}

type message struct {
	body []byte
	to   *process // who has it
}

func newBroker(w *world) *broker {
	return &broker{
		service: service{w: w, name: "broker", odds: odds{.01, .05, .02, .015}},
		purged:  map[engine.OrderID]bool{},
	}
}

// put is what a publish does.
func (b *broker) put(body []byte) error {
	if b.w.now < b.missing {
		b.w.count("message without a queue")
		if queue.Mandatory {
			return queue.ErrUnroutable
		}
		return nil
	}
	b.deliver(body)
	return nil
}

func (b *broker) deliver(body []byte) {
	if b.w.plan.replays && !b.w.replayed {
		b.sent = append(b.sent, body)
	}
	b.queue = append(b.queue, &message{body: body})
	if b.w.chance(.06) {
		b.w.count("message twice")
		b.queue = append(b.queue, &message{body: body})
	}
	for _, a := range b.waiting {
		b.w.wake(a, b.w.between(time.Millisecond, 150*time.Millisecond))
	}
	b.waiting = b.waiting[:0]
}

// Publish returns when the message is confirmed.
func (b *broker) Publish(ctx context.Context, _ engine.SaleID, body []byte) error {
	body = slices.Clone(body)
	return b.call(ctx, "publish", writes, func() error { return b.put(body) })
}

// PublishMarker sends the message that queue.MarkerNonce reads.
func (b *broker) PublishMarker(ctx context.Context, _ int, nonce string) error {
	body := []byte("1M|" + nonce)
	if _, ok := queue.MarkerNonce(body); !ok {
		panic("simulate: a marker is written in another way now")
	}
	return b.call(ctx, "publish marker", writes, func() error { return b.put(body) })
}

// Blocked tells whether the broker has said that it takes nothing.
func (b *broker) Blocked() bool { return false }

// take hands some messages to a process, in any order.
func (b *broker) take(p *process) (msgs []payment.Message) {
	w := b.w
	if w.now < b.down || w.now < b.held || w.now < b.missing {
		return nil
	}
	for n := 1 + w.rng.IntN(4); n > 0 && len(b.queue) > 0; n-- {
		i := 0
		if w.chance(.3) {
			i = w.rng.IntN(len(b.queue))
		}
		m := b.queue[i]
		b.queue = slices.Delete(b.queue, i, i+1)
		m.to = p
		b.unacked = append(b.unacked, m)
		msgs = append(msgs, payment.Message{Body: m.body, Ack: func() error { return b.ack(m, p) }, Dead: func() error { return b.dead(m, p) }})
	}
	return msgs
}

// ack forgets a message. It is sent and not answered; on a channel that is gone it is
// an error, and the message comes again.
func (b *broker) ack(m *message, p *process) error {
	w := b.w
	w.cur.wait(w.between(0, time.Millisecond))
	if w.chance(.01) {
		w.die()
	}
	if m.to != p || w.chance(.02) {
		w.count("ack lost")
		b.gone(p)
		return errTimeout
	}
	b.unacked = slices.DeleteFunc(b.unacked, func(o *message) bool { return o == m })
	w.tell("ack")
	return nil
}

func (b *broker) dead(m *message, p *process) error {
	b.w.laws.breaks("law 9: a message nobody can read: %q", m.body)
	return b.ack(m, p)
}

// gone gives back what a consumer had.
func (b *broker) gone(p *process) {
	b.unacked = slices.DeleteFunc(b.unacked, func(m *message) bool {
		if m.to != p {
			return false
		}
		m.to = nil
		b.queue = append(b.queue, m)
		return true
	})
	for _, a := range b.waiting {
		b.w.wake(a, b.w.between(time.Millisecond, 50*time.Millisecond))
	}
	b.waiting = b.waiting[:0]
}

// hold delivers nothing for a while.
func (b *broker) hold(d time.Duration) {
	b.held = b.w.now + int64(d)
	b.w.count("delivery delayed")
	b.w.tell("nothing is delivered for %s", d.Round(time.Millisecond))
	b.w.after(d, func() { b.gone(nil) })
}

// orders are those in the queue.
func (b *broker) orders() (ids []engine.OrderID) {
	for _, m := range b.queue {
		env, _, err := engine.ParseEnvelope(m.body)
		if err != nil {
			continue // a marker
		}
		for i := range env.Orders {
			ids = append(ids, env.Orders[i].Order)
		}
	}
	return ids
}

// safe tells whether Redis may lose something: not while a purged order is nowhere else,
// for that is both copies gone.
func (b *broker) safe() bool {
	for id := range b.purged {
		if b.w.db.knows(id) {
			delete(b.purged, id)
		}
	}
	return len(b.purged) == 0
}

// vanish deletes the queue. Its consumers declare it again when they have noticed.
func (b *broker) vanish() {
	if b.purge() {
		b.missing = b.w.now + int64(b.w.between(100*time.Millisecond, 3*time.Second))
		b.w.count("queue deleted")
	}
}

// purge empties the queue, if Redis still has every order in it.
func (b *broker) purge() bool {
	ids := b.orders()
	for _, id := range ids {
		if !b.w.db.knows(id) && !b.w.redis.holds(id) {
			return false
		}
	}
	if b.w.healed {
		return false
	}
	for _, id := range ids {
		if !b.w.db.knows(id) {
			b.purged[id] = true
		}
	}
	b.queue = nil
	if len(ids) > 0 {
		b.w.count("queue purged")
		b.w.tell("the queue is purged of %d orders", len(ids))
	}
	return true
}
