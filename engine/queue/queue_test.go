package queue_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	"go.uber.org/goleak"

	"github.com/doorbuster/doorbuster/engine"
	"github.com/doorbuster/doorbuster/engine/backing/backingtest"
	"github.com/doorbuster/doorbuster/engine/queue"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	sale        = engine.SaleID("drop-7") // of queue 4
	warmUpQueue = 7
)

// bench is a set of queues of the test's own, behind a proxy.
type bench struct {
	cfg    queue.Config // through the proxy
	direct queue.Config
	proxy  *proxy
}

func setup(t testing.TB) *bench {
	t.Helper()
	b := &bench{direct: queue.Config{URL: backingtest.AMQP(t), Prefix: backingtest.QueuePrefix(t)}}
	b.cfg = b.direct
	b.proxy, b.cfg.URL = newProxy(t, b.direct.URL)
	if err := queue.Declare(t.Context(), b.direct); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := queue.Delete(context.Background(), b.direct); err != nil {
			t.Error(err)
		}
	})
	return b
}

// publisher runs one until the test ends, and waits until it is connected.
func (b *bench) publisher(t testing.TB, cfg queue.Config) *queue.Publisher {
	t.Helper()
	p := queue.NewPublisher(cfg)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := p.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() { cancel(); wg.Wait() })
	backingtest.Eventually(t, "connected", func() bool { return !errors.Is(p.PublishTo(t.Context(), warmUpQueue, []byte("x")), queue.ErrDown) })
	return p
}

func brief(t testing.TB, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// collect consumes a queue until n different bodies came, acknowledging all.
func collect(t testing.TB, cfg queue.Config, n int) map[string]int {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	got := map[string]int{}
	err := queue.Consume(ctx, cfg, queue.IngestQueue(sale), queue.ConsumeOptions{}, func(_ context.Context, batch []*queue.Delivery) {
		for _, d := range batch {
			if d.Ack() == nil {
				got[string(d.Body)]++
			}
		}
		if len(got) >= n {
			cancel()
		}
	})
	if err != nil || len(got) < n {
		t.Fatalf("got %d of %d bodies, err %v", len(got), n, err)
	}
	return got
}

func TestPublishConsumeAck(t *testing.T) {
	t.Parallel()
	b := setup(t)
	p := b.publisher(t, b.cfg)
	const n = 200
	body := []byte(strings.Repeat("x", 20<<10))
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			mine := append(fmt.Appendf(nil, "%03d|", i), body...)
			if err := p.Publish(brief(t, 10*time.Second), sale, mine); err != nil {
				t.Errorf("publish %d: %v", i, err)
			}
			clear(mine) // the caller's to reuse
		})
	}
	wg.Wait()
	for text := range collect(t, b.cfg, n) {
		if len(text) != 4+len(body) || !strings.HasSuffix(text, string(body)) {
			t.Fatalf("a body was changed: %.20q…", text)
		}
	}
	backingtest.Eventually(t, "queue empty", func() bool {
		depths, _, err := queue.Depths(t.Context(), b.direct)
		return err == nil && depths[queue.IngestQueue(sale)] == 0
	})
}

func TestBatchesHoldWhatIsThere(t *testing.T) {
	t.Parallel()
	b := setup(t)
	p := b.publisher(t, b.cfg)
	for i := range 40 {
		if err := p.Publish(t.Context(), sale, fmt.Append(nil, i)); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	seen, most := 0, 0
	opt := queue.ConsumeOptions{Prefetch: 16, MaxBatch: 8}
	if err := queue.Consume(ctx, b.cfg, queue.IngestQueue(sale), opt, func(_ context.Context, batch []*queue.Delivery) {
		seen, most = seen+len(batch), max(most, len(batch))
		for _, d := range batch {
			if err := d.Ack(); err != nil {
				t.Error(err)
			}
		}
		if seen == 40 {
			cancel()
		}
	}); err != nil {
		t.Fatal(err)
	}
	if seen != 40 || most < 2 || most > 8 {
		t.Errorf("%d messages, at most %d at once; want 40, 2 to 8 at once", seen, most)
	}
}

func TestUnroutableIsAnError(t *testing.T) {
	t.Parallel()
	b := setup(t)
	p := b.publisher(t, b.cfg)
	unbind(t, b.direct, queue.IngestQueue(sale))
	for range 3 {
		if err := p.Publish(brief(t, 5*time.Second), sale, []byte("nowhere")); !errors.Is(err, queue.ErrUnroutable) {
			t.Fatalf("a message no queue took: %v", err)
		}
	}
	var other engine.SaleID = "drop-8"
	if queue.IngestQueue(other) == queue.IngestQueue(sale) {
		t.Fatal("want a sale of another queue")
	}
	var wg sync.WaitGroup // returned and routed ones mixed on the same channels
	for i := range 60 {
		wg.Go(func() {
			id, want := other, error(nil)
			if i%2 == 0 {
				id, want = sale, queue.ErrUnroutable
			}
			if err := p.Publish(brief(t, 10*time.Second), id, []byte("x")); !errors.Is(err, want) {
				t.Errorf("sale %s: %v, want %v", id, err, want)
			}
		})
	}
	wg.Wait()
}

func unbind(t testing.TB, cfg queue.Config, n int) {
	t.Helper()
	conn, err := amqp.Dial(cfg.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	ch, err := conn.Channel()
	if err != nil {
		t.Fatal(err)
	}
	if err := ch.QueueUnbind(fmt.Sprintf("%singest.%d", cfg.Prefix, n), fmt.Sprint(n), cfg.Prefix+"ingest", nil); err != nil {
		t.Fatal(err)
	}
}

func TestMissingTopologyIsMadeAgain(t *testing.T) {
	t.Parallel()
	b := setup(t)
	p := b.publisher(t, b.cfg)
	if err := queue.Delete(t.Context(), b.direct); err != nil { // a broker that came back empty
		t.Fatal(err)
	}
	backingtest.Eventually(t, "published again", func() bool { return p.Publish(brief(t, 5*time.Second), sale, []byte("back")) == nil })
	collect(t, b.cfg, 1)
}

// What was confirmed is there, whatever happened to the connections meanwhile,
// and a cut connection comes back by itself.
func TestCutConnections(t *testing.T) {
	t.Parallel()
	b := setup(t)
	p := b.publisher(t, b.cfg)
	const n = 300
	var wg sync.WaitGroup
	var mu sync.Mutex
	lost := 0
	next := make(chan int)
	for range 16 {
		wg.Go(func() {
			for i := range next {
				for p.Publish(brief(t, 2*time.Second), sale, fmt.Append(nil, i)) != nil {
					mu.Lock()
					lost++
					mu.Unlock()
					time.Sleep(time.Millisecond)
				}
			}
		})
	}
	for i := range n {
		if i%100 == 50 {
			b.proxy.cut()
		}
		next <- i
	}
	close(next)
	wg.Wait()
	if got := collect(t, b.cfg, n); len(got) != n {
		t.Errorf("%d bodies, want %d", len(got), n)
	}
	if lost == 0 {
		t.Error("three cuts and no publish failed: the test cut nothing")
	}
}

// A delivery of a dead channel must not acknowledge one of the new channel,
// where tags begin at 1 again.
func TestOldDeliveryCannotAck(t *testing.T) {
	t.Parallel()
	b := setup(t)
	p := b.publisher(t, b.cfg)
	if err := p.Publish(t.Context(), sale, []byte("one")); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	var first *queue.Delivery
	cutDone := make(chan struct{})
	if err := queue.Consume(ctx, b.cfg, queue.IngestQueue(sale), queue.ConsumeOptions{}, func(_ context.Context, batch []*queue.Delivery) {
		if first == nil {
			first = batch[0]
			b.proxy.cut()
			close(cutDone)
			return
		}
		<-cutDone
		if !batch[0].Redelivered {
			t.Error("not marked as redelivered")
		}
		if err := first.Ack(); !errors.Is(err, queue.ErrLost) {
			t.Errorf("ack of a delivery of the dead channel: %v", err)
		}
		cancel() // and the second is not acknowledged either
	}); err != nil {
		t.Fatal(err)
	}
	if got := collect(t, b.direct, 1); got["one"] != 1 {
		t.Errorf("the message is gone: %v", got)
	}
}

func TestDeadLetterAfterTheLimit(t *testing.T) {
	t.Parallel()
	b := setup(t)
	p := b.publisher(t, b.cfg)
	for _, body := range []string{"poison", "good"} {
		if err := p.Publish(t.Context(), sale, []byte(body)); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	tries, good := 0, false
	var wg sync.WaitGroup
	wg.Go(func() {
		backingtest.Eventually(t, "in the dead-letter queue", func() bool {
			_, dead, err := queue.Depths(t.Context(), b.direct)
			return err == nil && dead == 1
		})
		cancel()
	})
	if err := queue.Consume(ctx, b.cfg, queue.IngestQueue(sale), queue.ConsumeOptions{}, func(_ context.Context, batch []*queue.Delivery) {
		for _, d := range batch {
			if bytes.Equal(d.Body, []byte("poison")) {
				tries++
				_ = d.Nack(true)
				continue
			}
			good = d.Ack() == nil
		}
	}); err != nil {
		t.Fatal(err)
	}
	wg.Wait()
	if tries != 21 || !good { // the limit and the first delivery
		t.Errorf("the poisoned one was delivered %d times, the good one acknowledged %v; want 21, true", tries, good)
	}
}

func TestDownAtOnce(t *testing.T) {
	t.Parallel()
	b := setup(t)
	p := b.publisher(t, b.cfg)
	b.proxy.setRefuse(true)
	b.proxy.cut()
	backingtest.Eventually(t, "seen as down", func() bool { return errors.Is(p.Publish(brief(t, 5*time.Second), sale, []byte("x")), queue.ErrDown) })
	b.proxy.setRefuse(false)
	backingtest.Eventually(t, "up again", func() bool { return p.Publish(brief(t, 5*time.Second), sale, []byte("x")) == nil })
}

// Under an alarm the broker stops reading. Publish leaves with its ctx while the
// socket hangs, says ErrBlocked at once when it was told, and works again after.
func TestBlockedBroker(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.cfg.Channels, b.cfg.Window = 1, 64
	p := b.publisher(t, b.cfg)
	b.proxy.stick(true)
	big := bytes.Repeat([]byte("x"), queue.MaxBody) // together more than the socket takes
	var wg sync.WaitGroup
	for range 100 { // more than the window
		wg.Go(func() {
			start := time.Now()
			if err := p.Publish(brief(t, 300*time.Millisecond), sale, big); err == nil {
				t.Error("confirmed by a broker that reads nothing")
			}
			if took := time.Since(start); took > 2*time.Second {
				t.Errorf("hung for %v past its ctx", took)
			}
		})
	}
	wg.Wait()
	noDeadline := make(chan error, 1)
	b.proxy.blocked(true)
	backingtest.Eventually(t, "blocked", p.Blocked)
	go func() { noDeadline <- p.Publish(context.Background(), sale, big) }()
	if err := <-noDeadline; !errors.Is(err, queue.ErrBlocked) {
		t.Errorf("under an alarm: %v", err)
	}
	b.proxy.blocked(false)
	b.proxy.stick(false)
	backingtest.Eventually(t, "works again", func() bool { return p.Publish(brief(t, 5*time.Second), sale, []byte("x")) == nil })
	if p.Blocked() {
		t.Error("still blocked")
	}
}

// A queue that never answers must not keep the windows that all queues share.
func TestUnconfirmedForTooLong(t *testing.T) {
	t.Parallel()
	if queue.Stuck(false) || queue.Stuck(false, time.Second, 9*time.Second) {
		t.Error("a session is given up too soon")
	}
	if !queue.Stuck(false, time.Second, 11*time.Second) {
		t.Error("a session is kept whose broker does not answer")
	}
	if queue.Stuck(true, 11*time.Second) {
		t.Error("a new connection does not end an alarm")
	}
}

// Run must end soon even though the socket hangs.
func TestStopWhileTheSocketHangs(t *testing.T) {
	t.Parallel()
	b := setup(t)
	p := queue.NewPublisher(b.cfg)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- p.Run(ctx) }()
	backingtest.Eventually(t, "connected", func() bool { return p.Publish(t.Context(), sale, []byte("x")) == nil })
	b.proxy.stick(true)
	var wg sync.WaitGroup
	for range 64 {
		wg.Go(func() { _ = p.Publish(brief(t, 200*time.Millisecond), sale, make([]byte, queue.MaxBody)) })
	}
	wg.Wait()
	start := time.Now()
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("Run took %v to end", took)
	}
}

func TestBadArguments(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	bad := queue.Config{URL: "http://nowhere"}
	if queue.NewPublisher(bad).Run(ctx) == nil || queue.Consume(ctx, bad, 0, queue.ConsumeOptions{}, nil) == nil || queue.Declare(ctx, bad) == nil {
		t.Error("an URL of another scheme was accepted")
	}
	good := queue.Config{URL: "amqp://127.0.0.1:1/"}
	if queue.Consume(ctx, good, queue.Queues, queue.ConsumeOptions{}, nil) == nil {
		t.Error("a queue that does not exist was accepted")
	}
	if err := queue.NewPublisher(good).Publish(ctx, sale, nil); !errors.Is(err, queue.ErrDown) {
		t.Errorf("before Run: %v", err)
	}
	if err := queue.NewPublisher(good).PublishTo(ctx, -1, nil); err == nil || errors.Is(err, queue.ErrDown) {
		t.Errorf("queue -1: %v", err)
	}
}

// The number must stay for as long as messages are queued.
func TestIngestQueueIsStable(t *testing.T) {
	t.Parallel()
	for id, want := range map[engine.SaleID]int{"drop-7": 4, "a": 4, "summer-2026": 5} {
		if got := queue.IngestQueue(id); got != want {
			t.Errorf("sale %s: queue %d, want %d", id, got, want)
		}
	}
}

// BenchmarkPublish measures confirmed publishes of full envelopes by how many
// are in flight.
func BenchmarkPublish(b *testing.B) {
	for _, inFlight := range []int{1, 4, 8, 16, 32} {
		b.Run(fmt.Sprint(inFlight), func(b *testing.B) {
			w := setup(b)
			p := w.publisher(b, w.direct)
			body := bytes.Repeat([]byte("x"), 20<<10)
			work := make(chan struct{})
			var wg sync.WaitGroup
			b.ResetTimer()
			for i := range inFlight {
				to := engine.SaleID(fmt.Sprintf("sale-%d", i%2))
				wg.Go(func() {
					for range work {
						if err := p.Publish(context.Background(), to, body); err != nil {
							b.Error(err)
						}
					}
				})
			}
			for range b.N {
				work <- struct{}{}
			}
			close(work)
			wg.Wait()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "confirms/s")
		})
	}
}
