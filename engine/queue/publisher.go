package queue

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/doorbuster/doorbuster/engine"
	"github.com/doorbuster/doorbuster/engine/failpoint"
)

// MaxBody bounds a message, in bytes.
const MaxBody = 1 << 20

// blockedGrace is how long Publish still waits for the confirm of what it had
// sent when the broker blocked: it may have been read before the alarm.
const blockedGrace = 500 * time.Millisecond

// confirmMost is how long a message may stay unconfirmed, unless the broker
// blocks, before the session is given up: a queue whose members are gone never
// answers (seen on RabbitMQ 3.10 after a kill within seconds of its declaration),
// and its messages would fill the windows that all queues share.
const confirmMost = 10 * time.Second

// Mandatory makes the broker give back a message that no queue takes. Without it, it
// would confirm the message and throw it away.
const Mandatory = true

// Publisher publishes with confirms. Make it with NewPublisher; it is connected
// while Run runs.
//
// A window is a set of goroutines, one per message that may be unconfirmed: each
// takes a request, sends it, waits for its confirm, answers, takes the next. So
// Publish can leave when its ctx ends whatever the socket does, and a slot is
// free again only when the broker has answered.
type Publisher struct {
	cfg     Config
	invalid error
	meter   *publishMeter
	current atomic.Pointer[session]
}

// NewPublisher returns a publisher that is down until Run connects it.
func NewPublisher(cfg Config) *Publisher {
	cfg, err := cfg.withDefaults()
	return &Publisher{cfg: cfg, invalid: err, meter: newPublishMeter(cfg.Registerer)}
}

// Run connects, and connects again whenever the connection was lost, until ctx
// ends; messages in flight then get a second for their confirms. It returns an
// error only for an URL that cannot be used.
func (p *Publisher) Run(ctx context.Context) error {
	if p.invalid != nil {
		return p.invalid
	}
	persist(ctx, p.cfg.Logger.With("side", "publish"), p.session)
	return nil
}

// Publish sends an envelope to the ingest queue of its sale and waits for the
// confirm. It returns nil only if the broker has the message in a queue. It
// returns ErrDown or ErrBlocked at once, and never waits longer than ctx. The
// body may be reused after it returned. Publishing again is always safe.
func (p *Publisher) Publish(ctx context.Context, sale engine.SaleID, body []byte) error {
	return p.PublishTo(ctx, IngestQueue(sale), body)
}

// PublishTo is Publish to the ingest queue of that number.
func (p *Publisher) PublishTo(ctx context.Context, queue int, body []byte) error {
	start := time.Now()
	err := p.publish(ctx, queue, body)
	p.meter.observe(start, err)
	return err
}

// Blocked tells whether the broker has told us to stop publishing. It tells so
// only to connections that have published since it ran short.
func (p *Publisher) Blocked() bool {
	s := p.current.Load()
	return s != nil && s.valve.shut()
}

type request struct {
	queue int
	body  []byte
	done  chan error // buffered: who asked may have gone
}

var requests = sync.Pool{New: func() any { return &request{done: make(chan error, 1)} }}

func (p *Publisher) publish(ctx context.Context, queue int, body []byte) error {
	if queue < 0 || queue >= Queues || len(body) > MaxBody {
		return fmt.Errorf("publish %d bytes to queue %d: out of bounds", len(body), queue)
	}
	s := p.current.Load()
	if s == nil {
		return ErrDown
	}
	shut := s.valve.signal()
	if isClosed(shut) {
		return ErrBlocked
	}
	r := requests.Get().(*request)
	r.queue, r.body = queue, append(r.body[:0], body...)
	select {
	case s.requests <- r:
	case <-s.stop:
		requests.Put(r)
		return ErrDown
	case <-shut:
		requests.Put(r)
		return ErrBlocked
	case <-ctx.Done():
		requests.Put(r)
		return fmt.Errorf("publish: no place in the windows: %w", ctx.Err())
	}
	// From here on r belongs to the slot until it has answered.
	var grace <-chan time.Time
	for {
		select {
		case err := <-r.done:
			requests.Put(r)
			return err
		case <-ctx.Done():
			return fmt.Errorf("publish: no confirm: %w", ctx.Err())
		case <-shut:
			shut, grace = nil, time.After(blockedGrace)
		case <-grace:
			return fmt.Errorf("no confirm: %w", ErrBlocked)
		}
	}
}

// session is one connection with its channels and windows.
type session struct {
	requests chan *request
	stop     chan struct{} // closed: no more requests
	valve    valve

	waits []atomic.Int64 // per slot: since when its message waits, Unix ms; 0: it has none
}

var errSilent = fmt.Errorf("%w: the broker has not confirmed a message for %v", ErrLost, confirmMost)

// stuck tells whether a message has waited for its confirm for too long. While
// the broker blocks all of them wait, and a new connection would not help.
func (s *session) stuck(now time.Time) bool {
	if s.valve.shut() {
		return false
	}
	for i := range s.waits {
		if since := s.waits[i].Load(); since != 0 && now.UnixMilli()-since > confirmMost.Milliseconds() {
			return true
		}
	}
	return false
}

func (p *Publisher) session(ctx context.Context, up func()) error {
	w, err := dial(ctx, p.cfg, "publish")
	if err != nil {
		return err
	}
	var slots, watchers sync.WaitGroup
	s := &session{
		requests: make(chan *request), stop: make(chan struct{}),
		waits: make([]atomic.Int64, p.cfg.Channels*p.cfg.Window),
	}
	s.valve.open()
	blocks := w.conn.NotifyBlocked(make(chan amqp.Blocking, 16))
	defer func() {
		p.current.CompareAndSwap(s, nil)
		close(s.stop)
		p.meter.connected.Set(0)
		waitAtMost(&slots, closeTimeout, w.down)
		w.close()
		slots.Wait()
		watchers.Wait()
		p.meter.blocked.Set(0)
	}()
	done := w.guard(ctx)
	defer done()
	if err := tolerate(p.cfg, w); err != nil {
		return err
	}
	broken := make(chan error, p.cfg.Channels)
	for i := range p.cfg.Channels {
		l, err := p.openLink(w.conn)
		if err != nil {
			return err
		}
		watchers.Go(func() { // a channel dies alone, for instance when the exchange is gone
			if e := <-l.closed; e != nil {
				broken <- fmt.Errorf("%w: %w", ErrLost, e)
			}
		})
		for j := range p.cfg.Window {
			slots.Go(func() { l.slot(s, &s.waits[i*p.cfg.Window+j]) })
		}
	}
	done()
	up()
	p.meter.connected.Set(1)
	p.current.Store(s)
	return p.serve(ctx, s, trouble{down: w.down, broken: broken, blocks: blocks}, w.err)
}

// trouble is what can happen to a session.
type trouble struct {
	down   <-chan struct{}
	broken <-chan error
	blocks <-chan amqp.Blocking
}

// serve waits for the end of a session and says why it came.
func (p *Publisher) serve(ctx context.Context, s *session, t trouble, why func() error) error {
	watch := time.NewTicker(confirmMost / 10)
	defer watch.Stop()
	for {
		select {
		case now := <-watch.C:
			if s.stuck(now) {
				return errSilent
			}
		case <-ctx.Done():
			return nil
		case <-t.down:
			return why()
		case err := <-t.broken:
			return err
		case b, ok := <-t.blocks:
			if ok {
				p.block(s, b)
			} else {
				t.blocks = nil
			}
		}
	}
}

func (p *Publisher) block(s *session, b amqp.Blocking) {
	if b.Active {
		s.valve.close()
		p.meter.blocked.Set(1)
		p.cfg.Logger.Warn("the broker blocks publishers", "reason", b.Reason)
		return
	}
	s.valve.open()
	p.meter.blocked.Set(0)
	p.cfg.Logger.Info("the broker takes messages again")
}

// waitAtMost waits for the slots to get their confirms, unless the connection
// that would bring them is gone.
func waitAtMost(slots *sync.WaitGroup, most time.Duration, down <-chan struct{}) {
	done := make(chan struct{})
	go func() { slots.Wait(); close(done) }()
	select {
	case <-done:
	case <-down:
	case <-time.After(most):
	}
}

// link is one channel in confirm mode.
type link struct {
	ch       *amqp.Channel
	exchange string
	closed   <-chan *amqp.Error
	sent     atomic.Uint64
	returns  <-chan amqp.Return
	mu       sync.Mutex
	returned map[string]amqp.Return // by message id; without body
}

func (p *Publisher) openLink(conn *amqp.Connection) (*link, error) {
	ch, err := conn.Channel()
	if err != nil {
		return nil, fmt.Errorf("open channel: %w", err)
	}
	if err := ch.Confirm(false); err != nil {
		return nil, fmt.Errorf("open channel: %w", err)
	}
	return &link{
		ch: ch, exchange: p.cfg.Prefix + ingestExchange,
		closed: ch.NotifyClose(make(chan *amqp.Error, 1)),
		// Room for every message that can be unconfirmed: the library's reader
		// never waits for us.
		returns:  ch.NotifyReturn(make(chan amqp.Return, p.cfg.Window)),
		returned: map[string]amqp.Return{},
	}, nil
}

func (l *link) slot(s *session, since *atomic.Int64) {
	for {
		select {
		case <-s.stop:
			return
		case r := <-s.requests:
			since.Store(time.Now().UnixMilli())
			err := l.send(r)
			since.Store(0)
			r.done <- err
		}
	}
}

// send returns when the broker has answered or the channel is dead.
func (l *link) send(r *request) error {
	id := strconv.FormatUint(l.sent.Add(1), 36)
	confirm, err := l.ch.PublishWithDeferredConfirm(l.exchange, queueKeys[r.queue], Mandatory, false, amqp.Publishing{
		DeliveryMode: amqp.Persistent, MessageId: id, Body: r.body,
	})
	if err != nil {
		return fmt.Errorf("%w: %w", ErrLost, err)
	}
	failpoint.Hit("door/after-publish")
	acked := confirm.Wait()
	if ret, ok := l.wasReturned(id); ok {
		return fmt.Errorf("%w: %s to %s with key %s", ErrUnroutable, ret.ReplyText, ret.Exchange, ret.RoutingKey)
	}
	switch {
	case acked:
		return nil
	case l.ch.IsClosed():
		return ErrLost
	default:
		return ErrRefused
	}
}

// wasReturned looks whether the message was unroutable. The broker sends the
// return before the ack, and the library's reader passes both on in that order,
// so a return of this message is in the channel by now.
func (l *link) wasReturned(id string) (amqp.Return, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for {
		select {
		case ret, ok := <-l.returns:
			if ok {
				ret.Body = nil
				l.returned[ret.MessageId] = ret
				continue
			}
			// Closed with the channel. Another publish may have drained this one's
			// return before, so look among those too.
		default:
		}
		ret, ok := l.returned[id]
		delete(l.returned, id)
		return ret, ok
	}
}

var queueKeys = func() (keys [Queues]string) {
	for i := range keys {
		keys[i] = strconv.Itoa(i)
	}
	return keys
}()

// valve is open or shut, and tells those who wait when it shuts.
type valve struct {
	mu   sync.Mutex
	sign chan struct{} // closed while shut
}

func (v *valve) open() {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.sign == nil || isClosed(v.sign) {
		v.sign = make(chan struct{})
	}
}

func (v *valve) close() {
	v.mu.Lock()
	defer v.mu.Unlock()
	if !isClosed(v.sign) {
		close(v.sign)
	}
}

func (v *valve) signal() <-chan struct{} {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.sign
}

func (v *valve) shut() bool { return isClosed(v.signal()) }

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// resultOf names what became of a message, for the metrics.
func resultOf(err error) string {
	switch {
	case err == nil:
		return "confirmed"
	case errors.Is(err, ErrDown):
		return "down"
	case errors.Is(err, ErrBlocked):
		return "blocked"
	case errors.Is(err, ErrUnroutable):
		return "unroutable"
	case errors.Is(err, ErrRefused):
		return "refused"
	case errors.Is(err, ErrLost):
		return "lost"
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return "timeout"
	}
	return "invalid"
}
