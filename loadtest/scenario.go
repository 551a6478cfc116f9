package loadtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"sync/atomic"
	"time"

	vegeta "github.com/tsenart/vegeta/v12/lib"

	"github.com/doorbuster/doorbuster/engine"
)

// Bounds of a scenario.
const (
	DefaultWorkers = 512 // requests under way at once, and connections
	MaxWorkers     = 4096
	maxPhases      = 16
	maxScenario    = 20_000_000 // requests
	maxAnswer      = 16 << 10   // bytes read of an answer
)

// Phase is a stretch of a scenario at one rate.
type Phase struct {
	Name string        `json:"name"`
	Rate float64       `json:"rate_per_s"`
	For  time.Duration `json:"for_ns"`
}

// FlashSale returns the phases of a sale that opens idle later: hardly anybody
// before, then the spike, a plateau at a third of it, and for half as long as
// that the trickle after the sell-out.
func FlashSale(peak float64, idle, spike, plateau time.Duration) []Phase {
	const few, plateauShare, trickleShare = 20, 1.0 / 3, 1.0 / 10
	return []Phase{
		{"idle", min(few, peak), idle},
		{"spike", peak, spike},
		{"plateau", peak * plateauShare, plateau},
		{"sell-out", peak * trickleShare, plateau / 2},
	}
}

// Schedule paces requests through phases. It is a vegeta.Pacer.
type Schedule []Phase

func (s Schedule) validate() error {
	if len(s) == 0 || len(s) > maxPhases {
		return fmt.Errorf("%d phases, want 1 to %d", len(s), maxPhases)
	}
	for _, p := range s {
		if p.Rate < 0 || p.For <= 0 || p.For > maxDuration {
			return fmt.Errorf("phase %q: rate %v for %v", p.Name, p.Rate, p.For)
		}
	}
	if n := s.requests(); n < 1 || n > maxScenario {
		return fmt.Errorf("%d requests, want 1 to %d", n, maxScenario)
	}
	return nil
}

// requests is how many requests all phases make.
func (s Schedule) requests() int {
	n := 0.0
	for _, p := range s {
		n += p.Rate * p.For.Seconds()
	}
	return int(n)
}

// due returns when request n (from 0) is due after the start, and in which phase.
func (s Schedule) due(n uint64) (at time.Duration, phase int) {
	left := float64(n)
	for i, p := range s {
		inPhase := p.Rate * p.For.Seconds()
		if left < inPhase {
			return at + time.Duration(left/p.Rate*float64(time.Second)), i
		}
		left -= inPhase
		at += p.For
	}
	return at, len(s) - 1
}

// Pace tells vegeta how long to wait before the next request.
func (s Schedule) Pace(elapsed time.Duration, hits uint64) (wait time.Duration, stop bool) {
	if hits >= uint64(s.requests()) {
		return 0, true
	}
	at, _ := s.due(hits)
	return max(0, at-elapsed), false
}

// Rate returns the rate at a time, in requests per second.
func (s Schedule) Rate(elapsed time.Duration) float64 {
	for _, p := range s {
		if elapsed < p.For {
			return p.Rate
		}
		elapsed -= p.For
	}
	return 0
}

// ScenarioConfig says what RunScenario sends.
type ScenarioConfig struct {
	URLs    []string // http://host:port
	Sale    engine.SaleID
	Basket  Basket
	Tickets []Ticket // begun again when they run out: a buyer then presses twice, under the same key
	Phases  []Phase
	Workers int // requests under way at once; 0 is DefaultWorkers
	Log     Log // nil: none
}

// PhaseReport is what one phase heard.
type PhaseReport struct {
	Phase
	Requests int64     `json:"requests"`
	Outcomes Outcomes  `json:"outcomes"`
	Lag      Quantiles `json:"lag"`
}

// scenario is one run.
type scenario struct {
	cfg    ScenarioConfig
	hash   uint64
	keys   string
	urls   []string
	body   []byte
	asked  atomic.Uint64
	phases []phaseSeen
	all    byClass
	lag    times
	errors int64
	first  string
}

type phaseSeen struct {
	seen byClass
	lag  times
}

// RunScenario sends the phases' requests, each when it is due, whatever the
// answers do, and returns what they were. The number of workers bounds what is
// under way: a server that cannot keep up shows as lag, which is counted into
// the latency as well. It ends early with ctx, without an error.
func RunScenario(ctx context.Context, cfg ScenarioConfig) (Report, error) {
	if cfg.Workers == 0 {
		cfg.Workers = DefaultWorkers
	}
	if _, err := hosts(cfg.URLs); err != nil {
		return Report{}, fmt.Errorf("scenario: %w", err)
	}
	plan := Schedule(cfg.Phases)
	if err := errors.Join(cfg.Sale.Validate(), cfg.Basket.validate(), plan.validate()); err != nil {
		return Report{}, fmt.Errorf("scenario: %w", err)
	}
	if len(cfg.Tickets) == 0 {
		return Report{}, fmt.Errorf("scenario: %w", ErrNoTickets)
	}
	if cfg.Workers < 1 || cfg.Workers > MaxWorkers {
		return Report{}, fmt.Errorf("scenario: workers: want 1 to %d", MaxWorkers)
	}
	s := &scenario{cfg: cfg, hash: cfg.Basket.hash(), keys: randomKey() + "-", body: cfg.Basket.JSON(), lag: newTimes()}
	for _, u := range cfg.URLs {
		s.urls = append(s.urls, u+"/v1/sales/"+string(cfg.Sale)+"/orders")
	}
	s.phases = make([]phaseSeen, len(plan))
	for i := range s.phases {
		s.phases[i].lag = newTimes()
	}
	began, took := s.attack(ctx, plan)
	return s.report(began, took), nil
}

func (s *scenario) attack(ctx context.Context, plan Schedule) (began time.Time, took time.Duration) {
	transport := &http.Transport{
		MaxIdleConnsPerHost: s.cfg.Workers, MaxConnsPerHost: s.cfg.Workers,
		IdleConnTimeout: idleLimit, DisableCompression: true,
	}
	defer transport.CloseIdleConnections()
	// An attacker serves one attack only.
	attacker := vegeta.NewAttacker(
		vegeta.Client(&http.Client{Timeout: replyTimeout, Transport: &witness{s, transport}}),
		vegeta.Workers(uint64(min(s.cfg.Workers, vegeta.DefaultWorkers))), vegeta.MaxWorkers(uint64(s.cfg.Workers)),
		vegeta.MaxBody(maxAnswer),
	)
	stop := context.AfterFunc(ctx, func() { attacker.Stop() })
	defer stop()
	began = time.Now()
	for hit := range attacker.Attack(s.target, plan, 0, "") {
		s.hit(plan, began, hit)
	}
	return began, time.Since(began)
}

// target fills in the next request. Vegeta calls it from many workers.
func (s *scenario) target(t *vegeta.Target) error {
	n := s.asked.Add(1) - 1
	i := int(n % uint64(len(s.cfg.Tickets)))
	t.Method = http.MethodPost
	t.URL = s.urls[n%uint64(len(s.urls))]
	t.Body = s.body
	t.Header = http.Header{
		"Content-Type":    {"application/json"},
		"Authorization":   {"Ticket " + s.cfg.Tickets[i].Token},
		"Idempotency-Key": {s.keys + strconv.Itoa(i)},
	}
	return nil
}

// hit counts one result.
func (s *scenario) hit(plan Schedule, began time.Time, r *vegeta.Result) {
	due, phase := plan.due(r.Seq)
	lag := max(0, r.Timestamp.Sub(began)-due)
	class := Unknown
	if r.Code != 0 {
		class = classOf(int(r.Code), r.Body)
	} else {
		s.errors++
		if s.first == "" {
			s.first = r.Error
		}
	}
	took := r.Latency + lag
	s.all.add(class, took)
	s.lag.add(lag)
	s.phases[phase].seen.add(class, took)
	s.phases[phase].lag.add(lag)
}

// witness stands between vegeta and the connections. It writes the client log,
// because a vegeta result does not say whose it is and the request does. And it
// keeps net/http from sending a request twice behind our back: it repeats a POST
// that has an Idempotency-Key when its connection breaks, but not as a repeat, so
// that the holder of the last unit could hear that it is sold out.
type witness struct {
	s       *scenario
	through http.RoundTripper
}

// RoundTrip sends the request, once, and logs what came back.
func (w *witness) RoundTrip(req *http.Request) (*http.Response, error) {
	once := req.WithContext(req.Context())
	once.GetBody = nil
	if w.s.cfg.Log == nil {
		return w.through.RoundTrip(once)
	}
	return w.logged(once)
}

func (w *witness) logged(req *http.Request) (*http.Response, error) {
	key := req.Header.Get("Idempotency-Key")
	buyer, err := strconv.Atoi(key[len(w.s.keys):])
	if err != nil {
		return nil, fmt.Errorf("scenario: key %q is not one of this run", key)
	}
	resp, body, err := w.exchange(req)
	a := answer{
		ticket: &w.s.cfg.Tickets[buyer], key: []byte(key), basket: &w.s.cfg.Basket,
		hash: w.s.hash, at: time.Now(), err: err,
	}
	var r reply
	if err == nil {
		r.status, r.body = resp.StatusCode, body
	}
	_ = a.write(w.s.cfg.Log, &r) // the writer keeps its first error for Flush
	return resp, err
}

func (w *witness) exchange(req *http.Request) (*http.Response, []byte, error) {
	resp, err := w.through.RoundTrip(req)
	if err != nil {
		return nil, nil, err
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err := errors.Join(err, resp.Body.Close()); err != nil {
		return nil, nil, err
	}
	resp.Body = io.NopCloser(bytes.NewReader(body))
	return resp, body, nil
}
