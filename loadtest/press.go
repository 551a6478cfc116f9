package loadtest

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/doorbuster/doorbuster/engine"
)

// Bounds of a run.
const (
	DefaultConnections = 256
	MaxConnections     = 20_000
	maxDuration        = time.Hour
)

// ErrNoTickets says that there is no ticket to begin with.
var ErrNoTickets = errors.New("no tickets")

// PressConfig says what RunClosed and RunOpen send: every request with the next
// ticket and a key of its own.
type PressConfig struct {
	URLs        []string // http://host:port, spread over the connections
	Sale        engine.SaleID
	Basket      Basket
	Tickets     []Ticket
	First       int           // ticket to begin with
	Wrap        bool          // begin again with ticket First when they run out; else the run ends
	Connections int           // 0 is DefaultConnections
	Duration    time.Duration // how long requests are sent
	Requests    int64         // how many are sent at most; 0 is no bound
	Rate        float64       // requests a second (RunOpen only)
	Warm        time.Duration // from the start, in which answers are not counted
	Log         Log           // nil: none
}

// PressResult is what the answers were.
type PressResult struct {
	Requests  int64     `json:"requests"` // answered, without the warm-up
	Seconds   float64   `json:"seconds"`  // from the first counted send to the last answer
	PerSecond float64   `json:"per_s"`
	Accepted  float64   `json:"accepted_per_s"`
	Next      int       `json:"next"` // first ticket not used
	Outcomes  Outcomes  `json:"outcomes"`
	Lag       Quantiles `json:"lag"` // RunOpen: from when a request was due to when it was sent
	Errors    int64     `json:"errors"`
	Error     string    `json:"error,omitempty"` // the first one
}

// Rate returns answers of a class per second.
func (r *PressResult) Rate(c Class) float64 { return float64(r.Outcomes.Count(c)) / r.Seconds }

// RunClosed sends as many requests as the connections carry, each as soon as the
// last one of its connection was answered, until Duration is over, the tickets
// or Requests are used up, or ctx ends. Refusals are counted, and neither are
// broken connections an error: see PressResult.Errors.
func RunClosed(ctx context.Context, cfg PressConfig) (PressResult, error) {
	cfg.Rate = 0
	return press(ctx, cfg)
}

// RunOpen sends at a fixed rate whatever the answers do, as far as there are
// connections free. Latency runs from when the request was due.
func RunOpen(ctx context.Context, cfg PressConfig) (PressResult, error) {
	if cfg.Rate <= 0 {
		return PressResult{}, errors.New("open loop: rate must be above 0")
	}
	return press(ctx, cfg)
}

// run is what the workers of one press share.
type run struct {
	cfg   PressConfig
	hash  uint64
	keys  string // what every key begins with
	addrs []string
	start time.Time
	end   time.Time
	next  atomic.Int64 // request number
	first atomic.Pointer[error]
}

func press(ctx context.Context, cfg PressConfig) (PressResult, error) {
	addrs, err := cfg.check()
	if err != nil {
		return PressResult{}, err
	}
	r := &run{cfg: cfg, addrs: addrs, keys: randomKey() + "-", hash: cfg.Basket.hash()}
	ctx, cancel := context.WithTimeout(ctx, cfg.Duration+replyTimeout)
	defer cancel()
	r.start = time.Now()
	r.end = r.start.Add(cfg.Duration)
	workers := make([]worker, cfg.Connections)
	var all sync.WaitGroup
	for i := range workers {
		workers[i] = worker{run: r, conn: newConn(addrs, i), form: newForm(addrs[i%len(addrs)], cfg.Sale, &cfg.Basket)}
		all.Go(func() { workers[i].work(ctx) })
	}
	all.Wait()
	return r.result(workers), nil
}

// check fills what is left open, and tells what is wrong; it returns the addresses of
// URLs.
func (c *PressConfig) check() ([]string, error) {
	if c.Connections == 0 {
		c.Connections = DefaultConnections
	}
	addrs, err := hosts(c.URLs)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(c.Sale.Validate(), c.Basket.validate()); err != nil {
		return nil, err
	}
	if c.Connections < 0 || c.Connections > MaxConnections {
		return nil, fmt.Errorf("connections: want 1 to %d", MaxConnections)
	}
	if c.Duration <= 0 || c.Duration > maxDuration {
		return nil, fmt.Errorf("duration: want above 0, to %v", maxDuration)
	}
	if c.First < 0 || c.First >= len(c.Tickets) {
		return nil, ErrNoTickets
	}
	return addrs, nil
}

func (r *run) result(workers []worker) PressResult {
	var sum byClass
	lag, last := newTimes(), r.start
	out := PressResult{}
	for i := range workers {
		w := &workers[i]
		sum.merge(&w.seen)
		if w.lag.h != nil {
			lag.merge(w.lag)
		}
		out.Errors += w.errors
		if w.last.After(last) {
			last = w.last
		}
	}
	for _, n := range sum.count {
		out.Requests += n
	}
	out.Seconds = max(last.Sub(r.start.Add(r.cfg.Warm)).Seconds(), time.Microsecond.Seconds())
	out.PerSecond = float64(out.Requests) / out.Seconds
	out.Accepted = float64(sum.count[Accepted]) / out.Seconds
	out.Outcomes, out.Lag = sum.outcomes(), lag.quantiles()
	out.Next = r.cfg.First + int(r.next.Load())
	if err := r.first.Load(); err != nil {
		out.Error = (*err).Error()
	}
	return out
}

// worker drives one connection.
type worker struct {
	run    *run
	conn   *conn
	form   form
	req    []byte
	key    []byte
	seen   byClass
	lag    times
	last   time.Time // last counted answer
	errors int64
}

func (w *worker) work(ctx context.Context) {
	defer w.conn.close()
	r := w.run
	for ctx.Err() == nil {
		n := r.next.Add(1) - 1
		if r.cfg.Requests > 0 && n >= r.cfg.Requests {
			r.next.Add(-1)
			return
		}
		ticket := r.ticket(n)
		if ticket == nil {
			r.next.Add(-1)
			return
		}
		due := time.Now()
		if r.cfg.Rate > 0 {
			if due = r.start.Add(time.Duration(float64(n) / r.cfg.Rate * float64(time.Second))); !sleepUntil(ctx, due) {
				return
			}
		}
		if due.After(r.end) {
			return
		}
		w.send(ctx, n, due, ticket)
	}
}

// ticket returns the ticket of request n, nil when there are no more.
func (r *run) ticket(n int64) *Ticket {
	rest := r.cfg.Tickets[r.cfg.First:]
	switch {
	case n < int64(len(rest)):
		return &rest[n]
	case r.cfg.Wrap:
		return &rest[n%int64(len(rest))]
	}
	return nil
}

// send sends one request and counts the answer.
func (w *worker) send(ctx context.Context, n int64, due time.Time, t *Ticket) {
	r := w.run
	w.key = strconv.AppendInt(append(w.key[:0], r.keys...), n, 36)
	w.req = w.form.append(w.req[:0], t.Token, w.key, false)
	sent := time.Now()
	var rep reply
	err := w.conn.do(ctx, sent, w.req, &rep)
	done := time.Now()
	if err != nil && ctx.Err() != nil {
		return
	}
	class := Unknown
	if err != nil {
		w.errors++
		r.first.CompareAndSwap(nil, &err)
	} else {
		class = classOf(rep.status, rep.body)
	}
	if r.cfg.Log != nil {
		a := answer{ticket: t, key: w.key, basket: &r.cfg.Basket, hash: r.hash, at: done, err: err}
		_ = a.write(r.cfg.Log, &rep) // the writer keeps its first error for Flush
	}
	if due.Before(r.start.Add(r.cfg.Warm)) {
		return
	}
	w.seen.add(class, done.Sub(due))
	if r.cfg.Rate > 0 {
		if w.lag.h == nil {
			w.lag = newTimes()
		}
		w.lag.add(sent.Sub(due))
	}
	w.last = done
}

// sleepUntil waits, and tells whether ctx lasted until then.
func sleepUntil(ctx context.Context, at time.Time) bool {
	wait := time.Until(at)
	if wait <= 0 {
		return ctx.Err() == nil
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// randomKey begins the Idempotency-Keys of one run.
func randomKey() string { return strings.ToLower(rand.Text()[:8]) }
