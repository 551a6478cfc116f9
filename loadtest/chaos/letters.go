package chaos

import (
	"context"
	"errors"
	"fmt"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/doorbuster/doorbuster/engine/queue"
)

const (
	lettersMost = 3                // messages that are handed back until they are dead
	lettersWait = 10 * time.Second // for a message that the worker does not hold, and for dead ones to arrive
)

// bounce begins to hand messages back again and again, as a worker does that dies of
// them each time, until the broker puts them aside. The worker stands still meanwhile,
// or it would take them.
func bounce(ctx context.Context, h *house) (string, error) {
	proof, err := stopRole(worker)(ctx, h)
	if err != nil {
		return "", err
	}
	done := make(chan error, 1)
	h.memory["bouncing"] = done
	own, stop := context.WithTimeout(context.WithoutCancel(ctx), lettersWait)
	go func() {
		defer stop()
		done <- h.handBack(own)
	}()
	return proof, nil
}

// handBack takes messages of the sale's queue one at a time and gives each back until
// it does not come again.
func (h *house) handBack(ctx context.Context) error {
	return h.atQueue(func(ch *amqp.Channel, name string) error {
		for n := 0; n < lettersMost && ctx.Err() == nil; {
			d, ok, err := ch.Get(name, false)
			if err != nil {
				return err
			}
			if !ok {
				rest(ctx, poll)
				continue
			}
			if last, _ := d.Headers["x-delivery-count"].(int64); last >= queue.DeliveryLimit {
				n++
			}
			if err := d.Nack(false, true); err != nil {
				return err
			}
		}
		return nil
	})
}

// redrive lets the worker go on and does what an operator does: he sends the dead
// letters back.
func redrive(ctx context.Context, h *house) (string, error) {
	done, ok := h.memory["bouncing"].(chan error)
	if !ok {
		return "", nil
	}
	bounced := <-done
	if _, err := contRole(worker)(ctx, h); err != nil {
		return "", err
	}
	if bounced != nil {
		return "", fmt.Errorf("hand messages back: %w", bounced)
	}
	ctx, stop := context.WithTimeoutCause(ctx, lettersWait, unproven("no message reached its limit"))
	defer stop()
	letters, orders := 0, 0
	var failed error
	err := until(ctx, func() bool {
		list, err := queue.DeadLetters(ctx, h.queue(), queue.MaxDeadLetters, true)
		for _, l := range list {
			if l.Cause == "delivery_limit" && l.Moved {
				letters, orders = letters+1, orders+l.Orders
			}
		}
		failed = err
		return err != nil || letters >= lettersMost
	})
	if letters > 0 { // the others were never to be had
		err = nil
	}
	return fmt.Sprintf("%d messages with %d orders died of the delivery limit, and were sent back", letters, orders), errors.Join(err, failed)
}
