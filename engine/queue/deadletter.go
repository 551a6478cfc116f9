package queue

import (
	"context"
	"fmt"
	"strings"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/doorbuster/doorbuster/engine"
)

// MaxDeadLetters bounds one look at the dead-letter queue.
const MaxDeadLetters = 10_000

// DeadLetter is a message that was put aside: no worker could read it, or it was
// handed out too often.
type DeadLetter struct {
	Body   []byte
	Sale   engine.SaleID // empty if the body does not say
	Orders int           // that can be read
	From   int           // the ingest queue it came from or belongs to; -1 if nobody knows
	Cause  string        // RabbitMQ's: "rejected" by a worker, or "delivery_limit"
	Moved  bool          // it is in its ingest queue again
}

// DeadLetters lists what is in the dead-letter queue, at most limit messages. With
// redrive they go back to their ingest queues, each acknowledged only after the broker
// confirmed it there; one whose queue nobody knows stays. Ingest meets orders it knows
// and changes nothing, so redriving is always safe, also after a crash in the middle.
//
// Listing takes each message and puts it at the end: giving it back would count as a
// delivery, and RabbitMQ 4 drops a dead letter after 20 of them.
func DeadLetters(ctx context.Context, cfg Config, limit int, redrive bool) (letters []DeadLetter, err error) {
	err = onConnection(ctx, cfg, func(cfg Config, conn *amqp.Connection) error {
		if err := declare(cfg, conn); err != nil {
			return err
		}
		ch, err := conn.Channel()
		if err != nil {
			return err
		}
		defer func() { _ = ch.Close() }()
		if err := ch.Confirm(false); err != nil {
			return fmt.Errorf("confirms: %w", err)
		}
		m := mover{cfg: cfg, ch: ch, returned: ch.NotifyReturn(make(chan amqp.Return, 1))}
		q, err := ch.QueueDeclarePassive(cfg.Prefix+deadQueue, true, false, false, false, nil)
		if err != nil {
			return fmt.Errorf("depth of %s: %w", cfg.Prefix+deadQueue, err)
		}
		for range min(q.Messages, limit, MaxDeadLetters) { // not until empty: what stays comes again
			l, ok, err := m.next(ctx, redrive)
			if err != nil {
				return err
			}
			if !ok {
				break
			}
			letters = append(letters, l)
		}
		return nil
	})
	if err != nil {
		return letters, fmt.Errorf("dead letters: %w", err)
	}
	return letters, nil
}

type mover struct {
	cfg      Config
	ch       *amqp.Channel
	returned <-chan amqp.Return
}

// next moves one message on. False if there is none.
func (m *mover) next(ctx context.Context, redrive bool) (DeadLetter, bool, error) {
	d, ok, err := m.ch.Get(m.cfg.Prefix+deadQueue, false)
	if err != nil || !ok {
		return DeadLetter{}, false, err
	}
	l := m.read(&d)
	exchange, key, headers := m.cfg.Prefix+deadExchange, deadQueue, d.Headers
	if l.Moved = redrive && l.From >= 0; l.Moved {
		exchange, key, headers = m.cfg.Prefix+ingestExchange, fmt.Sprint(l.From), nil
	}
	confirm, err := m.ch.PublishWithDeferredConfirmWithContext(ctx, exchange, key, true, false, amqp.Publishing{
		Body: d.Body, Headers: headers, DeliveryMode: amqp.Persistent, ContentType: d.ContentType,
	})
	if err != nil {
		return l, false, fmt.Errorf("publish: %w", err)
	}
	switch confirmed, err := confirm.WaitContext(ctx); {
	case err != nil:
		return l, false, fmt.Errorf("no confirm: %w", err)
	case !confirmed:
		return l, false, fmt.Errorf("the broker refused a message of %d bytes for %s %s", len(d.Body), exchange, key)
	}
	select { // a return comes before its confirm
	case r := <-m.returned:
		return l, false, fmt.Errorf("no queue for %s %s: %s", exchange, key, r.ReplyText)
	default:
	}
	return l, true, d.Ack(false)
}

// read finds out what the message is and where it belongs: by the broker's word, else
// by the sale in its head.
func (m *mover) read(d *amqp.Delivery) DeadLetter {
	l := DeadLetter{Body: d.Body, From: -1}
	l.Cause, _ = d.Headers["x-first-death-reason"].(string)
	if env, _, err := engine.ParseEnvelope(d.Body); err == nil {
		l.Sale, l.Orders = env.Sale, len(env.Orders)
		l.From = IngestQueue(env.Sale)
	}
	from, _ := d.Headers["x-first-death-queue"].(string)
	for i := range Queues {
		if strings.EqualFold(from, m.cfg.ingestName(i)) {
			l.From = i
		}
	}
	return l
}
