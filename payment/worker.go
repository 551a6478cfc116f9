package payment

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/doorbuster/doorbuster/engine"
	"github.com/doorbuster/doorbuster/engine/failpoint"
	"github.com/doorbuster/doorbuster/engine/orders"
	"github.com/doorbuster/doorbuster/engine/queue"
	"github.com/doorbuster/doorbuster/payment/ledger"
	"github.com/doorbuster/doorbuster/payment/provider"
	"github.com/doorbuster/doorbuster/stock"
)

// Orders are the transactions the worker needs (engine/orders).
type Orders interface {
	Ingest(ctx context.Context, sale engine.SaleID, arrivals []orders.Arrival) (orders.IngestReport, error)
	IngestAndClaim(ctx context.Context, sale engine.SaleID, arrivals []orders.Arrival, lease time.Duration) (orders.IngestReport, error)
	Reject(ctx context.Context, sale engine.SaleID, r orders.Rejected) error
	Claim(ctx context.Context, opt orders.ClaimOptions) ([]orders.Payable, error)
	Settle(ctx context.Context, sale engine.SaleID, payments []orders.Payment,
		also func(ctx context.Context, tx pgx.Tx, confirmed []orders.Payable) error) ([]orders.Settled, error)
	Defer(ctx context.Context, sale engine.SaleID, ids []engine.OrderID, next time.Duration) error
	Expire(ctx context.Context, limit int) (int, error)
	MarkMarker(ctx context.Context, nonce string) error
	Park(ctx context.Context, sale engine.SaleID, stale []engine.Order) error
	Parked(ctx context.Context, lease time.Duration, except []engine.SaleID) (p orders.Parked, ok bool, err error)
	Unpark(ctx context.Context, id int64) error
	ParkedOrders(ctx context.Context) (int64, error)
}

// Stock is where a stale order is taken again (stock).
type Stock interface {
	Watch(ctx context.Context, sale engine.SaleID, epoch int64) (stock.Watch, error)
	Retake(ctx context.Context, sale engine.SaleID, g stock.Grip, baskets []engine.Basket, d *stock.Decision) error
	Mark(ctx context.Context, sale engine.SaleID, epoch int64, entries []int64) error
	Record(ctx context.Context, sale engine.SaleID, order engine.OrderID) (engine.Record, bool, error)
}

// Books are the money's side (payment/ledger).
type Books interface {
	Book(ctx context.Context, sale engine.SaleID, provider, currency string) (ledger.Book, error)
	Authorise(ctx context.Context, tx pgx.Tx, book ledger.Book, charges []ledger.Charge, lease time.Duration) (ledger.Task, error)
	OweVoid(ctx context.Context, book ledger.Book, charges []ledger.Charge, due time.Duration) error
	Due(ctx context.Context, limit int, lease time.Duration) ([]ledger.Task, error)
	Finish(ctx context.Context, results []ledger.Result) (captured int, err error)
	Owed(ctx context.Context) (captures, voids int64, err error)
}

// Message is an unacknowledged message of an ingest queue.
type Message struct {
	Body []byte
	Ack  func() error // forget it
	Dead func() error // put it aside, among the dead letters
}

// Source hands the messages of one ingest queue to handle, some at a time, until
// ctx ends. Messages that were not acknowledged come again.
type Source func(ctx context.Context, queue int, handle func(context.Context, []Message)) error

// Config is what a worker needs. Orders, Stock, Ledger and Providers are required,
// and one of Queue.URL and Source.
type Config struct {
	Orders    Orders
	Stock     Stock
	Ledger    Books
	Providers map[string]provider.Provider // by engine.Sale.Provider

	Queue  queue.Config
	Source Source // nil: RabbitMQ as Queue says

	Logger     *slog.Logger
	Registerer prometheus.Registerer
	Now        func() time.Time // the local clock; nil is time.Now

	// Moved, if set, is called after a transaction that may have written release
	// rows of the sale: whoever applies them need not wait for his poll. It must
	// not block.
	Moved func(sale engine.SaleID)

	Envelopes int           // messages ingested together; 0 is DefaultEnvelopes
	Payers    int           // loops that pay; 0 is DefaultPayers
	Capturers int           // loops that capture and void; 0 is DefaultCapturers
	DrainFor  time.Duration // after ctx ended; 0 is DefaultDrainFor
	GiveWay   bool          // hold ingest back while a sale storms: a door needs this machine
}

// Defaults of Config.
const (
	DefaultEnvelopes = 24
	DefaultPayers    = 2
	DefaultCapturers = 2
	DefaultDrainFor  = 5 * time.Second
)

// Limits.
const (
	// MaxEnvelopes bounds what a lane has in hand: 16,384 orders, in transactions
	// of orders.MaxBatch at most.
	MaxEnvelopes = 64
	// MaxCalls is how many calls to a provider a loop has in flight.
	MaxCalls = 32
	// batchesInHand is how many batches wait in memory between two stages.
	batchesInHand = 4
	// tasksInHand is how many tasks wait for a capturer. Above half of it the
	// payers hand over none, but let them come due.
	tasksInHand = 64
	// prefetchFactor times Envelopes messages are fetched ahead of the one batch
	// that is worked on.
	prefetchFactor = 3

	// Leases are what a sale waits for when a worker dies: all must be at its end within
	// 10 s (with 20 s for captures, a worker killed at half stock cost 18.6 s: `doorbuster
	// chaos --cells worker/kill --moments half-stock --pairs all --seed 5`).
	payLease     = 6 * time.Second        // of a claimed batch; whoever works on it holds it for longer
	captureLease = 8 * time.Second        // within which a confirmed batch should be captured; later another tries too
	pollEvery    = 250 * time.Millisecond // of rows that came due
	expireEvery  = 500 * time.Millisecond
	countEvery   = 2 * time.Second       // what is owed, for the metrics
	firstPause   = 20 * time.Millisecond // of a stage whose service is down
	maxPause     = time.Second
	firstLimit   = 4 * time.Second // of one transaction: a PostgreSQL that is silent is one that is down
	maxLimit     = 20 * time.Second
	writeMost    = 2 * maxLimit // for what is known to be written down, in several tries
)

// Worker runs all stages. Make it with New, run it once.
type Worker struct {
	cfg       Config
	log       *slog.Logger
	m         *metrics
	gateways  map[string]*gateway
	slots     chan struct{} // a batch in toPay, or being paid, that ingest claimed
	toPay     chan claimed
	toCapture chan ledger.Task
	wakePay   chan struct{} // rows came due that were not handed over
	forgetful sync.Map      // sales that were warned of: engine.SaleID → true
	told      struct {
		sync.Mutex
		orders map[engine.OrderID]bool // overdue ones
	}
	giveWay *giveWay // nil: it does not
	steps   *Clock   // nil: the real clock, and goroutines
}

// New checks the configuration. It starts nothing.
func New(cfg Config) (*Worker, error) { return newWorker(cfg, nil) }

// newWorker is New with metrics that are there already, or nil.
func newWorker(cfg Config, m *metrics) (*Worker, error) {
	if cfg.Orders == nil || cfg.Stock == nil || cfg.Ledger == nil || len(cfg.Providers) == 0 {
		return nil, errors.New("payment: Orders, Stock, Ledger and a provider are required")
	}
	if cfg.Source == nil && cfg.Queue.URL == "" {
		return nil, errors.New("payment: Queue.URL or Source is required")
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Registerer == nil {
		cfg.Registerer = prometheus.NewRegistry()
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	for _, d := range []struct {
		v *int
		d int
	}{{&cfg.Envelopes, DefaultEnvelopes}, {&cfg.Payers, DefaultPayers}, {&cfg.Capturers, DefaultCapturers}} {
		if *d.v <= 0 {
			*d.v = d.d
		}
	}
	if cfg.DrainFor <= 0 {
		cfg.DrainFor = DefaultDrainFor
	}
	if cfg.Envelopes > MaxEnvelopes {
		return nil, fmt.Errorf("payment: %d envelopes together, at most %d", cfg.Envelopes, MaxEnvelopes)
	}
	w := &Worker{
		cfg: cfg, log: cfg.Logger,
		slots: make(chan struct{}, batchesInHand), toPay: make(chan claimed, batchesInHand),
		toCapture: make(chan ledger.Task, tasksInHand), wakePay: make(chan struct{}, 1),
	}
	w.told.orders = make(map[engine.OrderID]bool)
	if w.cfg.Source == nil {
		w.cfg.Source = w.rabbit
	}
	if cfg.GiveWay {
		w.giveWay = newGiveWay(cfg.Stock)
	}
	if w.m = m; m == nil {
		var err error
		if w.m, err = newMetrics(cfg.Registerer); err != nil {
			return nil, fmt.Errorf("payment: %w", err)
		}
	}
	w.gateways = make(map[string]*gateway, len(cfg.Providers))
	for name, p := range cfg.Providers {
		w.gateways[name] = newGateway(name, p, w.m)
	}
	return w, nil
}

// Run works until ctx ends and everything it started has ended. Services that are
// down are waited for. The error is for a configuration that cannot work.
func (w *Worker) Run(ctx context.Context) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	work, cut := context.WithCancel(context.WithoutCancel(ctx))
	defer cut()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(w.cfg.DrainFor, cut) })()

	var ingest, pay, capture sync.WaitGroup
	for range w.cfg.Capturers {
		capture.Go(func() { w.captureLoop(ctx, work) })
	}
	for range w.cfg.Payers {
		pay.Go(func() { w.payLoop(ctx, work) })
	}
	failed := make(chan error, queue.Queues)
	for q := range queue.Queues {
		ingest.Go(func() {
			in := w.newIntake(ctx, work)
			defer in.busy.Wait()
			if err := w.cfg.Source(ctx, q, in.handle); err != nil && ctx.Err() == nil {
				failed <- fmt.Errorf("consume ingest queue %d: %w", q, err)
				stop()
			}
		})
	}
	ingest.Go(func() { w.newTakers(ctx, work).loop() })
	ingest.Go(func() { w.expireLoop(ctx, work) })
	ingest.Go(func() { w.countLoop(ctx) })

	ingest.Wait()
	close(w.toPay)
	pay.Wait()
	close(w.toCapture)
	capture.Wait()
	select {
	case err := <-failed:
		return err
	default:
		return nil
	}
}

// rabbit is the Source that consumes from RabbitMQ.
func (w *Worker) rabbit(ctx context.Context, q int, handle func(context.Context, []Message)) error {
	opt := queue.ConsumeOptions{Prefetch: w.cfg.Envelopes * prefetchFactor, MaxBatch: w.cfg.Envelopes}
	return queue.Consume(ctx, w.cfg.Queue, q, opt, func(ctx context.Context, ds []*queue.Delivery) {
		msgs := make([]Message, len(ds))
		for i, d := range ds {
			msgs[i] = Message{Body: d.Body, Ack: d.Ack, Dead: func() error { return d.Nack(false) }}
		}
		handle(ctx, msgs)
	})
}

// expireLoop cancels reserved orders whose deadline has passed.
func (w *Worker) expireLoop(ctx, work context.Context) {
	p := w.pace("expire")
	for p.sleep(ctx, expireEvery) {
		for ctx.Err() == nil {
			n, err := w.expireOnce(work, p.limit())
			if p.met(ctx, err); err != nil || n < orders.MaxBatch {
				break
			}
		}
	}
}

func (w *Worker) expireOnce(ctx context.Context, limit time.Duration) (n int, err error) {
	done := w.m.stage("expire")
	asking, cancel := w.within(ctx, limit)
	n, err = w.cfg.Orders.Expire(asking, orders.MaxBatch)
	cancel()
	done(err)
	if n > 0 {
		failpoint.Hit("expiry/after-commit")
	}
	w.m.expired.Add(float64(n))
	return n, err
}

// countLoop keeps the gauges of what is owed to the providers and what is set aside.
func (w *Worker) countLoop(ctx context.Context) {
	p := w.pace("count")
	for p.sleep(ctx, countEvery) {
		p.met(ctx, w.count(ctx, p.limit()))
	}
}

func (w *Worker) count(ctx context.Context, limit time.Duration) error {
	ctx, cancel := w.within(ctx, limit)
	defer cancel()
	captures, voids, err := w.cfg.Ledger.Owed(ctx)
	if err == nil {
		w.m.owedCaptures.Set(float64(captures))
		w.m.owedVoids.Set(float64(voids))
	}
	parked, perr := w.cfg.Orders.ParkedOrders(ctx)
	if perr == nil {
		w.m.parkedNow.Set(float64(parked))
	}
	return errors.Join(err, perr)
}
