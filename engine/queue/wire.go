package queue

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"sync"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

const (
	heartbeat      = 4 * time.Second  // a silent broker is given up after 6 s
	dialTimeout    = 5 * time.Second  // TCP and AMQP handshake
	setupTimeout   = 20 * time.Second // declaring, opening channels, beginning to consume
	closeTimeout   = time.Second      // of the closing handshake
	firstBackoff   = 20 * time.Millisecond
	longestBackoff = time.Second
)

// wire is one connection. It keeps the socket as well: amqp091's shutdown waits
// for locks that a writer stuck in a full socket holds, so when the library says
// that the connection is over, the socket is closed here and the writer comes
// free.
type wire struct {
	conn  *amqp.Connection
	raw   net.Conn
	down  chan struct{} // closed when the connection is over
	cause *amqp.Error   // read after down; nil if we closed it
	once  sync.Once
}

// dial connects. The end of ctx ends the attempt, not the connection.
func dial(ctx context.Context, cfg Config, purpose string) (*wire, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	w := &wire{down: make(chan struct{})}
	stop := func() bool { return true }
	props := amqp.NewConnectionProperties()
	props.SetClientConnectionName("doorbuster " + cfg.Prefix + " " + purpose)
	conn, err := amqp.DialConfig(cfg.URL, amqp.Config{
		Heartbeat:  heartbeat,
		Properties: props,
		Dial: func(network, addr string) (net.Conn, error) {
			raw, err := (&net.Dialer{}).DialContext(ctx, network, addr)
			if err != nil {
				return nil, err
			}
			w.raw = raw
			stop = context.AfterFunc(ctx, w.cut)
			return raw, nil
		},
	})
	stop()
	if err != nil {
		if w.raw != nil {
			w.cut()
		}
		return nil, fmt.Errorf("connect to the broker: %w", err)
	}
	w.conn = conn
	go w.watch(conn.NotifyClose(make(chan *amqp.Error, 1)))
	return w, nil
}

// watch ends with the connection: the library closes the channel in any case.
func (w *wire) watch(closed <-chan *amqp.Error) {
	w.cause = <-closed
	w.cut()
	close(w.down)
}

// cut closes the socket, whatever hangs on it.
func (w *wire) cut() { w.once.Do(func() { _ = w.raw.Close() }) }

// guard cuts the connection if it is not set up in time: the library's calls wait
// for their answers without bound. Call the returned function when it is.
func (w *wire) guard(ctx context.Context) (done func()) {
	ctx, cancel := context.WithTimeout(ctx, setupTimeout)
	stop := context.AfterFunc(ctx, w.cut)
	return func() { stop(); cancel() }
}

// close says goodbye to the broker, for closeTimeout at most, and returns when
// the connection is over.
func (w *wire) close() {
	_ = w.conn.CloseDeadline(time.Now().Add(closeTimeout))
	w.cut()
	<-w.down
}

// err says why the connection is over.
func (w *wire) err() error {
	<-w.down
	if w.cause == nil {
		return ErrLost
	}
	return fmt.Errorf("%w: %w", ErrLost, w.cause)
}

// persist runs session after session until ctx ends. A session that ends is
// begun again after a jittered pause, which grows while sessions fail to come
// up. What happens is logged once per change.
func persist(ctx context.Context, log *slog.Logger, session func(ctx context.Context, up func()) error) {
	pause, told := firstBackoff, false
	for ctx.Err() == nil {
		err := session(ctx, func() {
			pause, told = firstBackoff, false
			log.Info("connected to the broker")
		})
		if ctx.Err() != nil {
			return
		}
		if !told {
			log.Warn("no connection to the broker, trying again", "err", err)
			told = true
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause/2 + rand.N(pause)):
		}
		pause = min(2*pause, longestBackoff)
	}
}

// tolerate declares, and lets a topology pass that exists with other properties:
// an operator's change must not stop the sale.
func tolerate(cfg Config, w *wire) error {
	err := declare(cfg, w.conn)
	var reply *amqp.Error
	if errors.As(err, &reply) && reply.Code == amqp.PreconditionFailed {
		cfg.Logger.Warn("queues exist with other properties than ours", "err", err)
		return nil
	}
	return err
}
