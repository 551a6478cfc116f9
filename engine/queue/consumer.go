package queue

import (
	"context"
	"errors"
)

// Delivery is a message to be acknowledged, with Ack or Nack, once.
type Delivery struct {
	Body        []byte // valid until and after Ack; never written again
	Redelivered bool   // was handed out before
}

// Ack tells the broker to forget the message. An error means that it will be
// delivered again: the channel it came from is gone.
func (d *Delivery) Ack() error { return errors.ErrUnsupported }

// Nack gives the message back: requeue puts it into the queue again and counts
// against the delivery limit, else it goes to the dead-letter queue.
func (d *Delivery) Nack(requeue bool) error { return errors.ErrUnsupported }

// ConsumeOptions bound what Consume holds.
type ConsumeOptions struct {
	Prefetch int // unacknowledged messages; default 32
	MaxBatch int // of them handed over at once; default 4
}

// Consume hands the messages of an ingest queue to handle until ctx ends: what
// is there, 1 to MaxBatch of them, without waiting for more. handle must Ack or
// Nack each, in its call or later. Consume connects by itself, and again when
// the connection was lost; unacknowledged messages are then delivered again. It
// returns nil when ctx has ended, or an error if the configuration is wrong.
func Consume(ctx context.Context, cfg Config, queue int, opt ConsumeOptions, handle func(context.Context, []*Delivery)) error {
	<-ctx.Done()
	return nil
}
