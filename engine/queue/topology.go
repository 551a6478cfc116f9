package queue

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	amqp "github.com/rabbitmq/amqp091-go"
)

// DeliveryLimit is how often a message may come back before it goes to the
// dead-letter queue. RabbitMQ 4 has 20 by default and then drops, 3.10 has none.
// The end of a consumer's channel counts too, so it must not be small.
const DeliveryLimit = 20

const (
	ingestExchange = "ingest"
	deadExchange   = "dead"
	deadQueue      = "dead"
)

func (c Config) ingestName(queue int) string {
	return c.Prefix + "ingest." + strconv.Itoa(queue)
}

// Declare makes the exchanges and queues. Calling it again changes nothing; it
// fails if they exist with other properties.
func Declare(ctx context.Context, cfg Config) error {
	return onConnection(ctx, cfg, declare)
}

// Delete deletes the exchanges and queues with everything in them.
func Delete(ctx context.Context, cfg Config) error {
	return onConnection(ctx, cfg, func(cfg Config, conn *amqp.Connection) error {
		ch, err := conn.Channel()
		if err != nil {
			return err
		}
		for i := range Queues {
			if _, err := ch.QueueDelete(cfg.ingestName(i), false, false, false); err != nil {
				return fmt.Errorf("delete %s: %w", cfg.ingestName(i), err)
			}
		}
		if _, err := ch.QueueDelete(cfg.Prefix+deadQueue, false, false, false); err != nil {
			return err
		}
		return errors.Join(ch.ExchangeDelete(cfg.Prefix+ingestExchange, false, false),
			ch.ExchangeDelete(cfg.Prefix+deadExchange, false, false))
	})
}

// declare is what every new connection begins with. It costs one round trip per
// name, and makes a broker that came back empty whole again.
func declare(cfg Config, conn *amqp.Connection) error {
	ch, err := conn.Channel()
	if err != nil {
		return fmt.Errorf("declare: %w", err)
	}
	defer func() { _ = ch.Close() }()
	for _, name := range []string{cfg.Prefix + ingestExchange, cfg.Prefix + deadExchange} {
		if err := ch.ExchangeDeclare(name, amqp.ExchangeDirect, true, false, false, false, nil); err != nil {
			return fmt.Errorf("declare exchange %s: %w", name, err)
		}
	}
	quorum := amqp.Table{amqp.QueueTypeArg: amqp.QueueTypeQuorum}
	if _, err := ch.QueueDeclare(cfg.Prefix+deadQueue, true, false, false, false, quorum); err != nil {
		return fmt.Errorf("declare queue %s: %w", cfg.Prefix+deadQueue, err)
	}
	if err := ch.QueueBind(cfg.Prefix+deadQueue, deadQueue, cfg.Prefix+deadExchange, false, nil); err != nil {
		return fmt.Errorf("bind queue %s: %w", cfg.Prefix+deadQueue, err)
	}
	for i := range Queues {
		if err := declareIngest(cfg, ch, i); err != nil {
			return err
		}
	}
	return nil
}

func declareIngest(cfg Config, ch *amqp.Channel, queue int) error {
	name := cfg.ingestName(queue)
	args := amqp.Table{
		amqp.QueueTypeArg:           amqp.QueueTypeQuorum,
		"x-delivery-limit":          int64(DeliveryLimit),
		"x-dead-letter-exchange":    cfg.Prefix + deadExchange,
		"x-dead-letter-routing-key": deadQueue,
		"x-dead-letter-strategy":    "at-least-once",
		// At-least-once needs it: a full queue refuses, it never drops its head.
		amqp.QueueOverflowArg: amqp.QueueOverflowRejectPublish,
	}
	if _, err := ch.QueueDeclare(name, true, false, false, false, args); err != nil {
		return fmt.Errorf("declare queue %s: %w", name, err)
	}
	if err := ch.QueueBind(name, strconv.Itoa(queue), cfg.Prefix+ingestExchange, false, nil); err != nil {
		return fmt.Errorf("bind queue %s: %w", name, err)
	}
	return nil
}

func onConnection(ctx context.Context, cfg Config, do func(Config, *amqp.Connection) error) error {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return err
	}
	w, err := dial(ctx, cfg, "admin")
	if err != nil {
		return err
	}
	defer w.close()
	stop := context.AfterFunc(ctx, w.cut)
	defer stop()
	return do(cfg, w.conn)
}
