package chaos

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/doorbuster/doorbuster/engine/audit"
	"github.com/doorbuster/doorbuster/loadtest"
	"github.com/doorbuster/doorbuster/loadtest/history"
	paying "github.com/doorbuster/doorbuster/payment/provider"
)

const (
	connections = 256
	quietAfter  = 20 * time.Second // without a sale, beside the time the fault holds
	restMost    = 60 * time.Second // after heal and crowd
	healMost    = 90 * time.Second
	closeMost   = 60 * time.Second
	runMost     = 4 * time.Minute
)

// Result is one run, as one line of JSON.
type Result struct {
	Seed    uint64 `json:"seed"` // of the whole plan: with cell and moment it repeats the run
	Commit  string `json:"commit"`
	Cell    string `json:"cell"`
	Moment  string `json:"moment"`
	Attempt int    `json:"attempt"` // from 1; a run that does not count is repeated

	Faults   int    `json:"faults"`             // proven: one in a run that counts, many in a lap of a soak
	Unproven int    `json:"unproven,omitempty"` // faults of a soak that left no trace
	Valid    bool   `json:"valid"`
	Why      string `json:"why,omitempty"` // it does not count
	Proof    string `json:"proof,omitempty"`

	Rate      float64 `json:"rate"`   // orders accepted a second before the fault
	At        int64   `json:"at"`     // accepts when the fault had struck
	LagMS     int64   `json:"lag_ms"` // from mark to strike
	HeldMS    int64   `json:"held_ms"`
	Acked     int64   `json:"acked"`
	Unknown   int64   `json:"unknown"` // answers that left it open
	Confirmed int64   `json:"confirmed"`

	Cancelled   audit.Reasons `json:"cancelled"`
	Units       int64         `json:"units"`
	Lost        int64         `json:"lost"`
	Oversold    int64         `json:"oversold"`
	Undersold   int64         `json:"undersold"`
	Double      int64         `json:"double_charged"`
	Stuck       int64         `json:"stuck"`
	Convergence int64         `json:"convergence_ms"` // from heal, or the last arrival if that was later, to rest; -1: never
	Seconds     float64       `json:"seconds"`
	Violations  []string      `json:"violations"`
	Excused     []string      `json:"excused,omitempty"` // laws that the fault itself breaks
}

// Name is the line by which people find it.
func (r *Result) Name() string { return r.Cell + " @ " + r.Moment }

// nemesis is what became of the fault.
type nemesis struct {
	marked, struck, healed time.Time
	at                     int64
	rate                   float64
	proof                  []string
	why                    string // it does not count
	broken                 error  // a promise that the fault itself saw broken
	lost                   error  // a server did not come back: nothing can be judged
}

// run is one run of a pair. The error is for what has nothing to do with the engine:
// servers that do not start, the end of ctx.
func run(ctx context.Context, cfg *Config, p Pair, attempt int) (r Result, err error) {
	ctx, cancel := context.WithTimeout(ctx, runMost)
	defer cancel()
	began := time.Now()
	seed := p.seed(cfg.Seed) + uint64(attempt-1)
	h := &house{
		cfg: cfg, cell: p.Cell, moment: p.Moment, seed: seed, dice: rand.New(rand.NewPCG(seed, 0)),
		name:  "chaos" + strconv.FormatUint(seed, 36) + "x" + strconv.FormatInt(began.UnixMilli(), 36),
		admin: cfg.Services.URLs(), proc: map[string]*process{}, memory: map[string]any{},
	}
	r = Result{Seed: cfg.Seed, Commit: cfg.Commit, Cell: p.Cell.Name(), Moment: p.Moment.Name, Attempt: attempt, Convergence: -1, Violations: []string{}}
	defer func() {
		end, stop := context.WithTimeout(context.WithoutCancel(ctx), closeMost)
		defer stop()
		err = errors.Join(err, h.close(end))
		r.Seconds = time.Since(began).Seconds()
	}()
	if err := h.open(ctx); err != nil {
		return r, fmt.Errorf("%s: %w", r.Name(), err)
	}
	logPath := filepath.Join(cfg.Dir, "answers")
	crowd, nem, err := h.storm(ctx, logPath)
	if err != nil {
		return r, fmt.Errorf("%s: %w", r.Name(), err)
	}
	r.fault(nem, crowd)
	if nem.lost != nil {
		return r, fmt.Errorf("%s: %w", r.Name(), nem.lost)
	}
	return r, h.judge(ctx, &r, nem, logPath)
}

// storm lets the crowd in and the nemesis loose, and returns when both are done.
func (h *house) storm(ctx context.Context, logPath string) (crowd loadtest.CrowdResult, nem *nemesis, err error) {
	tickets, err := h.tickets("buyer-", buyers)
	if err != nil {
		return crowd, nil, err
	}
	f, err := os.Create(logPath)
	if err != nil {
		return crowd, nil, err
	}
	log := audit.NewLogWriter(f)
	h.tally = &tally{Log: log}
	over, end := context.WithCancelCause(ctx)
	done := make(chan *nemesis, 1)
	go func() { done <- h.strike(ctx, over) }()
	at := h.proc[door].url
	crowd, err = loadtest.RunCrowd(ctx, loadtest.CrowdConfig{
		URLs: []string{h.through(crowdLink, at)}, Sale: h.sale.ID, Basket: loadtest.Single(saleSKU, 1, price, currency),
		Tickets: tickets, Connections: connections, RepeatPerMille: 50, ChangePerMille: 10, Arrive: h.arrive,
		Quiet: h.cell.hold.most + quietAfter, Log: h.tally, Logger: h.cfg.Logger,
	})
	end(errNever)
	nem = <-done
	return crowd, nem, errors.Join(err, log.Flush(), f.Close())
}

// arrive is the open loop: so many a second, whatever they hear. Before the last
// units they wait for the nemesis, which takes a few milliseconds.
func (h *house) arrive(since time.Duration) int {
	n := int(since.Seconds() * arrivals)
	if h.moment.keep > 0 && !h.struck.Load() {
		n = min(n, int(h.moment.units-h.moment.keep))
	}
	return n
}

// strike waits for the moment, harms, holds and heals. over ends when the crowd is
// done: the mark cannot be reached any more.
func (h *house) strike(ctx, over context.Context) (n *nemesis) {
	n = new(nemesis)
	defer func() {
		h.struck.Store(true)
		heal, stop := context.WithTimeout(context.WithoutCancel(ctx), healMost)
		defer stop()
		proof, err := h.cell.heal(heal, h)
		n.healed = time.Now()
		n.note(proof, err)
	}()
	if err := h.moment.wait(over, h); err != nil {
		n.why = err.Error()
		return n
	}
	n.marked = time.Now()
	h.measure()
	n.rate = h.rate
	proof, err := h.cell.strike(ctx, h)
	n.struck, n.at = time.Now(), h.tally.accepts.load()
	h.struck.Store(true)
	n.note(proof, err)
	if n.why == "" {
		n.why = h.moment.missed(h, n.struck)
	}
	if lag := n.struck.Sub(n.marked); n.why == "" && lag > promptly {
		n.why = fmt.Sprintf("it took %d ms from the mark", lag.Milliseconds())
	}
	timer := time.NewTimer(h.within(h.cell.hold))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
	return n
}

// note keeps a proof, or why there is none.
func (n *nemesis) note(proof string, err error) {
	switch {
	case errors.Is(err, errBench):
		n.lost = err
	case errors.Is(err, errBroken):
		n.broken = errors.Join(n.broken, err)
	case err != nil && n.why == "":
		n.why = err.Error()
	case err == nil && proof != "":
		n.proof = append(n.proof, proof)
	}
}

// fault writes down what became of it, and whether the run counts.
func (r *Result) fault(n *nemesis, crowd loadtest.CrowdResult) {
	r.Unknown, r.At, r.Rate = crowd.Unknown, n.at, float64(int64(n.rate))
	for i, p := range n.proof {
		if i > 0 {
			r.Proof += "; "
		}
		r.Proof += p
	}
	if !n.struck.IsZero() {
		r.LagMS, r.HeldMS = n.struck.Sub(n.marked).Milliseconds(), n.healed.Sub(n.struck).Milliseconds()
	}
	switch {
	case n.why != "":
		r.Why = n.why
	case r.Proof == "":
		r.Why = "nothing proves that the fault happened"
	case r.Moment != Moments[0].Name && n.rate < MinRate:
		r.Why = fmt.Sprintf("%.0f orders/s before the fault, want %.0f", n.rate, MinRate)
	}
	if r.Valid = r.Why == ""; r.Valid {
		r.Faults = 1
	}
	if n.broken != nil {
		r.Violations = append(r.Violations, n.broken.Error())
	}
}

// judge waits for rest and asks the laws and the history.
func (h *house) judge(ctx context.Context, r *Result, n *nemesis, logPath string) error {
	a, err := audit.Open(audit.Config{
		DatabaseURL: h.urls.Database, RedisURL: h.admin.Redis, Queue: h.queue(), Logger: h.cfg.Logger,
		Ledgers: map[string]audit.Ledger{h.sale.Provider: paying.NewHTTP(h.proc[provider].url)},
	})
	if err != nil {
		return err
	}
	defer a.Close()
	from := h.sale.Opens.Add(buyers * time.Second / arrivals) // a soak heals later
	if n.healed.After(from) {
		from = n.healed
	}
	rest, stop := context.WithTimeout(ctx, restMost)
	waiting, err := a.WaitForRest(rest, h.sale.ID)
	stop()
	if err == nil {
		r.Convergence = time.Since(from).Milliseconds()
	} else {
		r.Violations = append(r.Violations, fmt.Sprintf("not at rest %s after heal and crowd: %s", restMost, waiting))
	}
	f, err := os.Open(logPath)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	report, err := a.AtRest(ctx, h.sale.ID, f)
	if err != nil {
		return err
	}
	r.laws(&report, h.cell.excuses)
	h.ends(r)
	return h.history(r, logPath)
}

// laws writes down what the audit says.
func (r *Result) laws(a *audit.Report, excused int) {
	r.Acked, r.Confirmed, r.Cancelled = a.Accepted, a.Confirmed, a.CancelReasons
	r.Units, r.Oversold, r.Stuck = a.Units, a.Oversold, a.Stuck
	for _, f := range []struct {
		to   *int64
		from *int64
	}{{&r.Lost, a.Lost}, {&r.Undersold, a.Undersold}, {&r.Double, a.DoubleCharged}} {
		if f.from != nil {
			*f.to = *f.from
		}
	}
	for i := range a.Laws {
		l := &a.Laws[i]
		if l.Holds != audit.Broken && (l.Holds != audit.Unchecked || l.Excused) {
			continue
		}
		to := &r.Violations
		if l.Number == excused && l.Holds == audit.Broken {
			to = &r.Excused
		}
		*to = append(*to, fmt.Sprintf("law %d %s: %s", l.Number, l.Holds, l.Detail))
	}
}

// ends looks for roles that ended by themselves: nothing that happens to others may
// end one.
func (h *house) ends(r *Result) {
	for name, p := range h.proc {
		if how, yes := p.byItself(); yes {
			r.Violations = append(r.Violations, fmt.Sprintf("%s ended by itself: %s", name, ended(how)))
		}
	}
}

// history checks what single buyers heard.
func (h *house) history(r *Result, logPath string) error {
	f, err := os.Open(logPath)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	ops, err := history.FromLog(h.sale.ID, f)
	if err != nil {
		return err
	}
	if s, ok := h.memory["strangers"].(*strangers); ok {
		ops = append(withoutStrangers(ops, s), telling(s.rec.Ops())...) // theirs overlap: the recorder knows when
	}
	_, err = history.Check(history.Rules{Limit: 1, Ends: true, Lossy: h.cell.lossy || h.moment.rebuilds}, ops)
	switch {
	case errors.Is(err, history.ErrRefused):
		r.Violations = append(r.Violations, "history: "+err.Error())
	case err != nil && r.Valid: // not decided in time: neither right nor wrong
		r.Valid, r.Why = false, "history: "+err.Error()
	}
	return nil
}

// telling leaves out requests that were told to slow down: they say nothing of any
// order, and fifty of them at once are more orders to try than anybody can.
func telling(ops []history.Op) []history.Op {
	return slices.DeleteFunc(ops, func(o history.Op) bool { return o.Output.Type == "throttled" })
}

// withoutStrangers leaves out who asked several things at once: a log says only when
// answers came.
func withoutStrangers(ops []history.Op, s *strangers) (out []history.Op) {
	theirs := make(map[string]bool, len(s.tickets))
	for _, t := range s.tickets {
		theirs[string(t.Buyer)] = true
	}
	for i := range ops {
		if !theirs[string(ops[i].Who.Buyer)] {
			out = append(out, ops[i])
		}
	}
	return out
}
