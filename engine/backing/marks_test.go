package backing_test

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5"
	amqp "github.com/rabbitmq/amqp091-go"
	"github.com/redis/go-redis/v9"

	"github.com/doorbuster/doorbuster/engine/backing"
)

// notes leave a mark in a server, and find it again.
var notes = map[backing.Name]struct {
	note func(context.Context, backing.URLs) error
	read func(context.Context, backing.URLs) (bool, error)
}{
	backing.Redis: {
		func(ctx context.Context, u backing.URLs) error {
			return withRedis(u, func(rdb *redis.Client) error { return rdb.Set(ctx, "mark", "1", 0).Err() })
		},
		func(ctx context.Context, u backing.URLs) (there bool, err error) {
			return there, withRedis(u, func(rdb *redis.Client) error {
				n, err := rdb.Exists(ctx, "mark").Result()
				there = n == 1
				return err
			})
		},
	},
	backing.RabbitMQ: {
		func(ctx context.Context, u backing.URLs) error {
			return withChannel(u, func(ch *amqp.Channel) error {
				args := amqp.Table{"x-queue-type": "quorum"}
				if _, err := ch.QueueDeclare("mark", true, false, false, false, args); err != nil {
					return err
				}
				if err := ch.Confirm(false); err != nil {
					return err
				}
				c, err := ch.PublishWithDeferredConfirmWithContext(ctx, "", "mark", true, false, amqp.Publishing{DeliveryMode: amqp.Persistent, Body: []byte("1")})
				if err != nil {
					return err
				}
				acked, err := c.WaitContext(ctx)
				if err == nil && !acked {
					err = errors.New("not confirmed")
				}
				return err
			})
		},
		func(_ context.Context, u backing.URLs) (there bool, err error) {
			return there, withChannel(u, func(ch *amqp.Channel) error {
				m, ok, err := ch.Get("mark", false)
				if refused := new(amqp.Error); errors.As(err, &refused) && refused.Code == amqp.NotFound {
					return nil
				}
				if there = ok; ok {
					err = m.Nack(false, true)
				}
				return err
			})
		},
	},
	backing.PostgreSQL: {
		func(ctx context.Context, u backing.URLs) error {
			return withPostgres(ctx, u, func(c *pgx.Conn) error {
				_, err := c.Exec(ctx, "CREATE TABLE mark ()")
				return err
			})
		},
		func(ctx context.Context, u backing.URLs) (there bool, err error) {
			return there, withPostgres(ctx, u, func(c *pgx.Conn) error {
				return c.QueryRow(ctx, "SELECT to_regclass('mark') IS NOT NULL").Scan(&there)
			})
		},
	},
}

func withRedis(u backing.URLs, do func(*redis.Client) error) error {
	opt, err := redis.ParseURL(u.Redis)
	if err != nil {
		return err
	}
	rdb := redis.NewClient(opt)
	return errors.Join(do(rdb), rdb.Close())
}

func withChannel(u backing.URLs, do func(*amqp.Channel) error) error {
	conn, err := amqp.Dial(u.AMQP)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	ch, err := conn.Channel()
	if err != nil {
		return err
	}
	return do(ch)
}

func withPostgres(ctx context.Context, u backing.URLs, do func(*pgx.Conn) error) error {
	c, err := pgx.Connect(ctx, u.Database)
	if err != nil {
		return err
	}
	return errors.Join(do(c), c.Close(ctx))
}
