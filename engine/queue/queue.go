package queue

import (
	"context"
	"errors"
	"log/slog"
	"net"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/doorbuster/doorbuster/engine"
)

// Queues is the number of ingest queues.
const Queues = 8

// DefaultPrefix begins the names of the exchange and queues.
const DefaultPrefix = "doorbuster."

// Failures of Publish. Other errors are possible too (the end of ctx, a channel
// that broke): after any error the message may or may not be in the queue.
var (
	ErrDown       = errors.New("queue: no connection to the broker")
	ErrBlocked    = errors.New("queue: the broker blocks publishers (memory or disk alarm)")
	ErrUnroutable = errors.New("queue: the broker found no queue for the message")
	ErrRefused    = errors.New("queue: the broker refused the message")
	ErrLost       = errors.New("queue: the connection ended before the confirm")
)

// Config says where the broker is. The zero value of everything but URL works.
type Config struct {
	URL        string // amqp://user:password@host:port/vhost
	Prefix     string // of all names; default DefaultPrefix
	Logger     *slog.Logger
	Registerer prometheus.Registerer

	Channels int // of a publisher; default 4
	Window   int // unconfirmed messages per channel of a publisher; default 16

	// Dial replaces net.Dialer.DialContext, in tests.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)
}

// IngestQueue returns the number of the ingest queue of a sale, in [0, Queues).
func IngestQueue(sale engine.SaleID) int {
	h := uint32(2166136261) // FNV-1a; must never change while messages are queued
	for i := range len(sale) {
		h = (h ^ uint32(sale[i])) * 16777619
	}
	return int(h % Queues)
}

// Declare makes the exchanges and queues. Calling it again changes nothing; it
// fails if they exist with other properties.
func Declare(ctx context.Context, cfg Config) error { return errors.ErrUnsupported }

// Delete deletes the exchanges and queues with everything in them.
func Delete(ctx context.Context, cfg Config) error { return errors.ErrUnsupported }

// Depths returns how many messages are ready (not those handed to a consumer
// and not acknowledged) in each ingest queue and in the dead-letter queue.
func Depths(ctx context.Context, cfg Config) (ingest []int, dead int, err error) {
	return nil, 0, errors.ErrUnsupported
}
