package queue

import (
	"errors"
	"fmt"
	"log/slog"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/doorbuster/doorbuster/engine"
)

// Queues is the number of ingest queues.
const Queues = 8

// Defaults of Config and ConsumeOptions.
const (
	DefaultPrefix   = "doorbuster."
	DefaultChannels = 4  // of a publisher
	DefaultWindow   = 16 // unconfirmed messages per channel
	DefaultPrefetch = 32 // unacknowledged messages per consumer
	DefaultMaxBatch = 4  // of them handed over at once
)

// Failures of Publish. The end of ctx is one too. After ErrDown the message was
// never sent; after any other error it may or may not be in the queue.
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
	Prefix     string // of the names of exchanges and queues; default DefaultPrefix
	Logger     *slog.Logger
	Registerer prometheus.Registerer

	Channels int // of a publisher; default DefaultChannels
	Window   int // unconfirmed messages per channel; default DefaultWindow
}

func (c Config) withDefaults() (Config, error) {
	if c.Prefix == "" {
		c.Prefix = DefaultPrefix
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Registerer == nil {
		c.Registerer = prometheus.NewRegistry()
	}
	if c.Channels <= 0 {
		c.Channels = DefaultChannels
	}
	if c.Window <= 0 {
		c.Window = DefaultWindow
	}
	if _, err := amqp.ParseURI(c.URL); err != nil {
		return c, fmt.Errorf("queue: URL of the broker: %w", err) // says nothing of the password
	}
	return c, nil
}

// IngestQueue returns the number of the ingest queue of a sale, in [0, Queues):
// its FNV-1a hash. It must never change while messages are queued.
func IngestQueue(sale engine.SaleID) int {
	h := uint32(2166136261)
	for i := range len(sale) {
		h = (h ^ uint32(sale[i])) * 16777619
	}
	return int(h % Queues)
}
