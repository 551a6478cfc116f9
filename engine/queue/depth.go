package queue

import (
	"context"
	"fmt"
	"strconv"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// MeasureEvery is how often Measure looks. A look is one round trip per queue.
const MeasureEvery = 2 * time.Second

// lookTimeout is how long the broker has for a look before the connection is given
// up.
const lookTimeout = 5 * time.Second

// Depths returns how many messages are ready (not those handed to a consumer
// and not acknowledged yet) in each ingest queue and in the dead-letter queue.
func Depths(ctx context.Context, cfg Config) (ingest []int, dead int, err error) {
	err = onConnection(ctx, cfg, func(cfg Config, conn *amqp.Connection) error {
		ch, err := conn.Channel()
		if err != nil {
			return err
		}
		ingest, dead, err = depths(ch, cfg)
		return err
	})
	return ingest, dead, err
}

func depths(ch *amqp.Channel, cfg Config) (ingest []int, dead int, err error) {
	for i := range Queues + 1 {
		name := cfg.Prefix + deadQueue
		if i < Queues {
			name = cfg.ingestName(i)
		}
		q, err := ch.QueueDeclarePassive(name, true, false, false, false, nil)
		if err != nil {
			return nil, 0, fmt.Errorf("depth of %s: %w", name, err)
		}
		if i == Queues {
			return ingest, q.Messages, nil
		}
		ingest = append(ingest, q.Messages)
	}
	return nil, 0, nil
}

// Measure publishes the depths of the queues as metrics, every MeasureEvery, over a
// connection of its own, until ctx ends. While the broker cannot be asked there are
// no figures. Several processes may measure: they see the same. It returns an error
// only for an URL that cannot be used.
func Measure(ctx context.Context, cfg Config) error {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return err
	}
	m := &measuring{cfg: cfg, meter: newDepthMeter(cfg.Registerer)}
	persist(ctx, cfg.Logger.With("side", "measure"), m.session)
	return nil
}

type measuring struct {
	cfg   Config
	meter *depthMeter
	empty [Queues]time.Time // when each was last seen so; zero: not yet, or never
}

func (m *measuring) session(ctx context.Context, up func()) error {
	defer m.meter.unknown()
	w, err := dial(ctx, m.cfg, "measure")
	if err != nil {
		return err
	}
	defer w.close()
	done := w.guard(ctx)
	defer done()
	if err := tolerate(m.cfg, w); err != nil {
		return err
	}
	ch, err := w.conn.Channel()
	if err != nil {
		return fmt.Errorf("open channel: %w", err)
	}
	done()
	up()
	for tick := time.NewTicker(MeasureEvery); ; {
		if err := m.look(w, ch); err != nil {
			tick.Stop()
			return err
		}
		select {
		case <-tick.C:
		case <-w.down:
			tick.Stop()
			return w.err()
		case <-ctx.Done():
			tick.Stop()
			return nil
		}
	}
}

func (m *measuring) look(w *wire, ch *amqp.Channel) error {
	late := time.AfterFunc(lookTimeout, w.cut)
	defer late.Stop()
	ingest, dead, err := depths(ch, m.cfg)
	if err != nil {
		return err
	}
	now := time.Now()
	for i, n := range ingest {
		if n == 0 || m.empty[i].IsZero() {
			m.empty[i] = now
		}
		name := strconv.Itoa(i)
		m.meter.ready.WithLabelValues(name).Set(float64(n))
		m.meter.waiting.WithLabelValues(name).Set(now.Sub(m.empty[i]).Seconds())
	}
	m.meter.dead.WithLabelValues().Set(float64(dead))
	return nil
}
