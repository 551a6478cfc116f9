package payment_test

import (
	"testing"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/doorbuster/doorbuster/engine/queue"
	"github.com/doorbuster/doorbuster/payment/provider"
)

// putAside publishes bodies as dead letters.
func (r *site) putAside(t testing.TB, bodies ...[]byte) {
	t.Helper()
	conn, err := amqp.Dial(r.queue.URL)
	must(t, err)
	defer func() { must(t, conn.Close()) }()
	ch, err := conn.Channel()
	must(t, err)
	must(t, ch.Confirm(false))
	for _, b := range bodies {
		c, err := ch.PublishWithDeferredConfirm(r.queue.Prefix+"dead", "dead", true, false, amqp.Publishing{Body: b, DeliveryMode: amqp.Persistent})
		must(t, err)
		if ok, err := c.WaitContext(t.Context()); !ok || err != nil {
			t.Fatalf("confirm: %v, %v", ok, err)
		}
	}
}

// Dead letters are listed without being lost, and sent back: what was ingested before
// does not change, what was not is confirmed, and what nobody can read or place stays.
func TestRealDeadLettersComeBack(t *testing.T) {
	t.Parallel()
	p := provider.NewInstant()
	r := newSite(t, "instant", p)
	known, lost := r.envelopes(1, 50), r.envelopes(1001, 30)
	stop := r.start(t)
	r.publish(t, known)
	before := r.atRest(t, 50)
	stop()
	r.putAside(t, known[0], lost[0], []byte("9E|of a newer version"), known[0])
	for range 2 { // listing changes nothing
		got, err := queue.DeadLetters(t.Context(), r.queue, 100, false)
		must(t, err)
		if len(got) != 4 || got[0].Orders != 50 || got[1].Orders != 30 || got[0].Sale != r.sale || got[2].From != -1 || got[0].Moved {
			t.Fatalf("listed %+v", got)
		}
	}
	got, err := queue.DeadLetters(t.Context(), r.queue, 100, true)
	must(t, err)
	if len(got) != 4 || !got[0].Moved || !got[1].Moved || got[2].Moved || !got[3].Moved {
		t.Errorf("sent back %+v", got)
	}
	r.start(t)
	f := r.atRest(t, 80)
	if f.confirmed != before.confirmed+30 {
		t.Errorf("%+v after %+v", f, before)
	}
	r.lawSix(t, p, f)
	until(t, "queues empty", func() bool {
		ready, dead, err := queue.Depths(t.Context(), r.queue)
		must(t, err)
		for _, n := range ready {
			dead += n
		}
		return dead == 1
	})
}
