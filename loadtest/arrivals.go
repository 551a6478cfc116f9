package loadtest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"time"
)

// maxArrivals bounds one schedule: each takes 100 bytes of what is remembered.
const maxArrivals = 5_000_000

// Pace is a stretch of time in which requests come at a rate.
type Pace struct {
	Rate  float64 // requests a second; 0 is none
	Lasts time.Duration
}

// Arrivals fixes when each request of such paces, one after another, is due, from the
// beginning of the first: a Poisson process, for buyers do not wait for one another.
// The same seed gives the same times.
func Arrivals(seed uint64, paces ...Pace) []time.Duration {
	dice := rand.New(rand.NewPCG(seed, 0))
	var due []time.Duration
	var began time.Duration
	for _, p := range paces {
		at := time.Duration(0)
		for p.Rate > 0 {
			at += time.Duration(dice.ExpFloat64() / p.Rate * float64(time.Second))
			if at >= p.Lasts {
				break
			}
			due = append(due, began+at)
		}
		began += p.Lasts
	}
	return due
}

// Sample is one request of RunArrivals, and what it heard.
type Sample struct {
	Due    time.Duration // from the start
	Sent   time.Duration // from Due
	Took   time.Duration // from Due to the answer
	Status int           // of HTTP; 0: none came
	Retry  time.Duration // Retry-After; 0: none
	Class  Class
	Type   string // of Verdict; "" if the answer is none of ours
}

// RunArrivals sends a request at each of the times due, which ascend, whatever the
// answers do, over the connection used last of those that are free, and returns a
// sample for each in the same order. If all Connections are busy it waits for one, and
// that counts: Took runs from when a request was due. It needs a ticket for each.
// Duration, Requests, Rate, Warm, First and Wrap of cfg are not used. When ctx ends it
// returns its error.
func RunArrivals(ctx context.Context, cfg PressConfig, due []time.Duration) ([]Sample, error) {
	if len(due) == 0 || len(due) > maxArrivals || !slices.IsSorted(due) {
		return nil, fmt.Errorf("arrivals: want 1 to %d, in order", maxArrivals)
	}
	if len(cfg.Tickets) < len(due) {
		return nil, fmt.Errorf("%w for %d arrivals: have %d", ErrNoTickets, len(due), len(cfg.Tickets))
	}
	cfg.Duration, cfg.First = due[len(due)-1]+time.Second, 0
	addrs, err := cfg.check()
	if err != nil {
		return nil, err
	}
	a := &arrivals{
		cfg: cfg, addrs: addrs, keys: randomKey() + "-", hash: cfg.Basket.hash(),
		form:    newForm(addrs[0], cfg.Sale, &cfg.Basket),
		samples: make([]Sample, len(due)), free: make(chan struct{}, cfg.Connections),
	}
	err = a.run(ctx, due)
	for _, l := range a.idle {
		l.conn.close()
	}
	return a.samples, err
}

// arrivals is one RunArrivals.
type arrivals struct {
	cfg     PressConfig
	addrs   []string
	keys    string
	hash    uint64
	form    form
	start   time.Time
	samples []Sample
	free    chan struct{} // as many as there are requests under way

	mu    sync.Mutex
	idle  []*line // the one used last at the end
	lines int
}

// line is a connection with its buffers.
type line struct {
	conn *conn
	req  []byte
	key  []byte
}

func (a *arrivals) run(ctx context.Context, due []time.Duration) error {
	var all sync.WaitGroup
	defer all.Wait() // each ends with its answer, or with the connection's patience
	a.start = time.Now()
	for n, at := range due {
		if !sleepUntil(ctx, a.start.Add(at)) {
			return ctx.Err()
		}
		select {
		case a.free <- struct{}{}:
		case <-ctx.Done():
			return ctx.Err()
		}
		all.Go(func() {
			l := a.take()
			a.samples[n] = a.ask(ctx, l, n, at)
			a.put(l)
			<-a.free
		})
	}
	return nil
}

func (a *arrivals) take() *line {
	a.mu.Lock()
	defer a.mu.Unlock()
	if n := len(a.idle); n > 0 {
		l := a.idle[n-1]
		a.idle = a.idle[:n-1]
		return l
	}
	a.lines++
	return &line{conn: newConn(a.addrs, a.lines)}
}

func (a *arrivals) put(l *line) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.idle = append(a.idle, l)
}

// ask sends request n and hears its answer.
func (a *arrivals) ask(ctx context.Context, l *line, n int, due time.Duration) Sample {
	t := &a.cfg.Tickets[n]
	l.key = strconv.AppendInt(append(l.key[:0], a.keys...), int64(n), 36)
	l.req = a.form.append(l.req[:0], t.Token, l.key, false)
	sent := time.Now()
	var rep reply
	err := l.conn.do(ctx, sent, l.req, &rep)
	done := time.Now()
	s := Sample{Due: due, Sent: sent.Sub(a.start) - due, Took: done.Sub(a.start) - due, Class: Unknown}
	if err == nil {
		v := Judge(rep.status, rep.body)
		s.Status, s.Retry, s.Class, s.Type = rep.status, rep.retryAfter, v.Class, v.Type
	}
	if a.cfg.Log != nil {
		said := answer{ticket: t, key: l.key, basket: &a.cfg.Basket, hash: a.hash, at: done, err: err}
		_ = said.write(a.cfg.Log, &rep) // the writer keeps its first error for Flush
	}
	return s
}

// Stretch sums up the requests that were due in a part of a run.
type Stretch struct {
	Offered   float64        // requests a second
	Accepted  float64        // of them
	Share     float64        // accepted of offered
	P50, P99  time.Duration  // of a 202, from when it was due
	Refused   time.Duration  // p99 of a 429 or 503, likewise
	Lag       time.Duration  // p99 of all, from when they were due to when they were sent
	Heard     map[string]int // answers by type; those of no type by their class
	Untimed   int            // 429 and 503 without Retry-After
	Unheard   int            // without an answer
	Broken    int            // answers of no known type
	Throttled int            // 429
}

// Sum sums up the samples due from one time to another. It sorts nothing in place.
func Sum(samples []Sample, from, to time.Duration) Stretch {
	begin, _ := slices.BinarySearchFunc(samples, from, func(s Sample, at time.Duration) int { return int(s.Due - at) })
	end, _ := slices.BinarySearchFunc(samples, to, func(s Sample, at time.Duration) int { return int(s.Due - at) })
	out := Stretch{Heard: map[string]int{}}
	var took, refused, lag []time.Duration
	for i := range samples[begin:end] {
		s := &samples[begin+i]
		lag = append(lag, s.Sent)
		switch {
		case s.Class == Accepted:
			took = append(took, s.Took)
		case s.Status == 0:
			out.Unheard++
		case s.Type == "":
			out.Broken++
		}
		if s.Status == 429 {
			out.Throttled++
		}
		if s.Status == 429 || s.Status == 503 {
			refused = append(refused, s.Took)
			if s.Retry == 0 {
				out.Untimed++
			}
		}
		name := s.Type
		if name == "" {
			name = s.Class.String()
		}
		out.Heard[name]++
	}
	seconds := (to - from).Seconds()
	out.Offered, out.Accepted = float64(end-begin)/seconds, float64(len(took))/seconds
	if end > begin {
		out.Share = float64(len(took)) / float64(end-begin)
	}
	out.P50, out.P99, out.Refused, out.Lag = rank(took, 50), rank(took, 99), rank(refused, 99), rank(lag, 99)
	return out
}

// rank is the smallest value that so many hundredths do not exceed; 0 of none. It
// sorts all.
func rank(all []time.Duration, hundredths int) time.Duration {
	if len(all) == 0 {
		return 0
	}
	slices.Sort(all)
	return all[(len(all)*hundredths+99)/100-1]
}

// Normal is how long after end the samples were as they had been before: the first
// second from then on in which so many of those who asked were accepted as in a second
// of before, to nine tenths, and their p99 was at most twice that of before. Seconds are
// tried at every 50 ms; last is when the run ended. It is false if there was none.
func Normal(samples []Sample, before Stretch, end, last time.Duration) (time.Duration, bool) {
	const (
		window = time.Second
		step   = 50 * time.Millisecond
	)
	for at := end; at+window <= last; at += step {
		s := Sum(samples, at, at+window)
		if s.Share >= 0.9*before.Share && s.Accepted > 0 && s.P99 <= 2*before.P99 {
			return at - end, true
		}
	}
	return 0, false
}
