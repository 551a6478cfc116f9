package queue

import (
	"context"
	"crypto/rand"
	"fmt"

	amqp "github.com/rabbitmq/amqp091-go"
)

// Delivery is a message to be acknowledged, with Ack or Nack, once.
type Delivery struct {
	Body        []byte // nobody writes it again
	Redelivered bool   // was handed out before
	tag         uint64
	ch          *amqp.Channel // of this delivery alone: a dead channel stays dead
	meter       *consumeMeter
}

// Ack tells the broker to forget the message. An error means that it will be
// delivered again: the channel it came from is gone.
func (d *Delivery) Ack() error {
	if err := d.ch.Ack(d.tag, false); err != nil {
		return fmt.Errorf("ack: %w: %w", ErrLost, err)
	}
	d.meter.acked.Inc()
	return nil
}

// Nack gives the message back: requeue puts it into the queue again and counts
// against the delivery limit, else it goes to the dead-letter queue.
func (d *Delivery) Nack(requeue bool) error {
	if err := d.ch.Nack(d.tag, false, requeue); err != nil {
		return fmt.Errorf("nack: %w: %w", ErrLost, err)
	}
	if requeue {
		d.meter.requeued.Inc()
	} else {
		d.meter.dead.Inc()
	}
	return nil
}

// ConsumeOptions bound what Consume holds.
type ConsumeOptions struct {
	Prefetch int // unacknowledged messages; default DefaultPrefetch
	MaxBatch int // of them handed over at once; default DefaultMaxBatch
}

// Consume hands the messages of an ingest queue to handle until ctx ends: what
// is there, 1 to MaxBatch of them, without waiting for more. handle must Ack or
// Nack each, in its call or later; the slice is reused, the deliveries are not.
// Consume connects by itself, and again when the connection was lost;
// unacknowledged messages are then delivered again. It returns nil when ctx has
// ended and handle has returned, or an error if its arguments are wrong.
func Consume(ctx context.Context, cfg Config, queue int, opt ConsumeOptions, handle func(context.Context, []*Delivery)) error {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return err
	}
	if queue < 0 || queue >= Queues {
		return fmt.Errorf("consume: no queue %d", queue)
	}
	if opt.Prefetch <= 0 {
		opt.Prefetch = DefaultPrefetch
	}
	if opt.MaxBatch <= 0 {
		opt.MaxBatch = DefaultMaxBatch
	}
	c := &consumer{cfg: cfg, queue: queue, opt: opt, handle: handle, meter: newConsumeMeter(cfg.Registerer)}
	persist(ctx, cfg.Logger.With("side", "consume", "queue", queue), c.session)
	return nil
}

type consumer struct {
	cfg    Config
	queue  int
	opt    ConsumeOptions
	handle func(context.Context, []*Delivery)
	meter  *consumeMeter
}

func (c *consumer) session(ctx context.Context, up func()) error {
	w, err := dial(ctx, c.cfg, "consume")
	if err != nil {
		return err
	}
	pumped := make(chan struct{})
	close(pumped)
	defer func() { w.close(); <-pumped }()
	done := w.guard(ctx)
	defer done()
	if err := tolerate(c.cfg, w); err != nil {
		return err
	}
	ch, err := w.conn.Channel()
	if err != nil {
		return fmt.Errorf("open channel: %w", err)
	}
	if err := ch.Qos(c.opt.Prefetch, 0, false); err != nil {
		return fmt.Errorf("prefetch: %w", err)
	}
	name := c.cfg.ingestName(c.queue)
	// The tag is new each time, so nothing meant for an older consumer fits.
	in, err := ch.Consume(name, name+"-"+rand.Text(), false, false, false, false, nil)
	if err != nil {
		return fmt.Errorf("consume %s: %w", name, err)
	}
	done()
	up()
	c.meter.consumers.Inc()
	defer c.meter.consumers.Dec()
	ready := make(chan amqp.Delivery, c.opt.Prefetch)
	pumped = make(chan struct{})
	go pump(in, ready, pumped)
	c.loop(ctx, ch, ready)
	if ctx.Err() == nil {
		w.cut() // the channel or the consumer ended, perhaps alone
		return w.err()
	}
	return nil
}

// pump moves messages to where their number can be seen. ready holds as many as
// the broker sends unacknowledged, so it never waits; it ends with the channel.
func pump(in <-chan amqp.Delivery, ready chan<- amqp.Delivery, pumped chan<- struct{}) {
	defer close(pumped)
	defer close(ready)
	for d := range in {
		ready <- d
	}
}

// loop ends with ctx or with the channel.
func (c *consumer) loop(ctx context.Context, ch *amqp.Channel, ready <-chan amqp.Delivery) {
	batch := make([]*Delivery, 0, c.opt.MaxBatch)
	for {
		batch = batch[:0]
		select {
		case <-ctx.Done():
			return
		case d, ok := <-ready:
			if !ok {
				return
			}
			batch = append(batch, c.delivery(ch, d))
		}
		for more := true; more && len(batch) < c.opt.MaxBatch; {
			select {
			case d, ok := <-ready:
				if more = ok; ok {
					batch = append(batch, c.delivery(ch, d))
				}
			default:
				more = false
			}
		}
		if ctx.Err() != nil || ch.IsClosed() {
			return // all of it comes again
		}
		c.meter.batch.Observe(float64(len(batch)))
		c.handle(ctx, batch)
	}
}

func (c *consumer) delivery(ch *amqp.Channel, d amqp.Delivery) *Delivery {
	return &Delivery{Body: d.Body, Redelivered: d.Redelivered, tag: d.DeliveryTag, ch: ch, meter: c.meter}
}
