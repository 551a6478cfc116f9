package chaos

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/doorbuster/doorbuster/engine/audit"
	"github.com/doorbuster/doorbuster/engine/control"
	"github.com/doorbuster/doorbuster/loadtest"
)

// The soak.
const (
	soakArrivals = 600              // buyers a second
	soakRestock  = 10 * time.Second // and then again
	soakUnits    = 5_000            // a time, so that five of six who come are served at once
	soakAfter    = 3 * time.Minute  // for crowd and sale to come to an end
	soakQuiet    = 60 * time.Second
	soakHold     = 5 * time.Second // the longest fault of a soak
	soakTries    = 500 * time.Millisecond
	soakMinimum  = 20 * time.Second
	soakLap      = 2 * time.Minute

	// soakApart is the least time between faults of which one takes away Redis' copy of
	// accepted orders, and the other the broker's. Nearer than the sweep needs to bring
	// back what a queue lost (records of 30 s and more, every 10 s), the two together
	// destroy orders that PostgreSQL has not seen: that is beyond what a 202 promises.
	soakApart = time.Minute
)

// soakPause is from one strike to the next, if healing does not take longer.
var soakPause = span{2 * time.Second, 5 * time.Second}

// Soak runs sales for so long, one after another on the same servers, each for a lap
// and judged as a run is. Each is restocked again and again, and at the end for all
// who still wait. A fault comes every 2 to 5 s: any cell without preparation that
// holds 5 s at most, of the links those of one, another for each lap.
// Result.Faults tells how many were proven. lap 0 is two minutes. Errors as Run.
func Soak(ctx context.Context, cfg Config, long, lap time.Duration) (*Summary, error) {
	if lap == 0 {
		lap = soakLap
	}
	if lap = min(lap, long); lap < soakMinimum {
		return nil, fmt.Errorf("chaos: a soak and its laps take %s at least", soakMinimum)
	}
	cfg.fill()
	s, began := new(Summary), time.Now()
	defer func() {
		s.Seconds = time.Since(began).Seconds()
		s.percentiles()
	}()
	for n := 0; time.Since(began)+soakMinimum <= long; n++ {
		r, err := soakOne(ctx, &cfg, n, min(lap, long-time.Since(began)))
		if err != nil && ctx.Err() != nil {
			return s, fmt.Errorf("chaos: %w", err)
		}
		if err != nil { // the bench broke, not the engine: say so, and go on
			r.Valid, r.Why = false, err.Error()
			if err := errors.Join(heal(ctx, &cfg), cfg.restartBroker(ctx)); err != nil {
				return s, fmt.Errorf("chaos: %w", err)
			}
		}
		s.add(&r)
		if len(r.Violations) > 0 {
			cfg.keep(&r)
		}
		if cfg.Out != nil {
			if err := cfg.Out(&r); err != nil {
				return s, err
			}
		}
		fmt.Fprintf(cfg.Progress, "%6.0f s  %d faults  %s\n", time.Since(began).Seconds(), r.Faults, r.Line())
	}
	return s, nil
}

// soakOne is one lap.
func soakOne(ctx context.Context, cfg *Config, n int, long time.Duration) (r Result, err error) {
	began, seed := time.Now(), cfg.Seed+uint64(n)
	dice := rand.New(rand.NewPCG(seed, 0))
	h := &house{
		cfg: cfg, seed: seed, dice: dice,
		cell:   &Cell{Component: "soak", Fault: "all", link: links[seed%uint64(len(links))], lossy: true},
		moment: &Moment{Name: long.Round(time.Second).String(), units: soakUnits, rebuilds: true},
		name:   "soak" + strconv.FormatUint(seed, 36) + "x" + strconv.FormatInt(began.UnixMilli(), 36),
		admin:  cfg.Services.URLs(), proc: map[string]*process{}, memory: map[string]any{},
	}
	r = Result{
		Seed: seed, Commit: cfg.Commit, Cell: "soak/" + h.cell.link.String(), Moment: h.moment.Name, Attempt: 1,
		Convergence: -1, Violations: []string{},
	}
	defer func() {
		end, stop := context.WithTimeout(context.WithoutCancel(ctx), closeMost)
		defer stop()
		err = errors.Join(err, h.close(end))
		r.Seconds = time.Since(began).Seconds()
	}()
	return r, h.soak(ctx, &r, long)
}

func (h *house) soak(ctx context.Context, r *Result, long time.Duration) error {
	if err := h.open(ctx); err != nil {
		return err
	}
	tickets, err := h.tickets("buyer-", int(long.Seconds()*soakArrivals))
	if err != nil {
		return err
	}
	logPath := filepath.Join(h.cfg.Dir, "answers")
	f, err := os.Create(logPath)
	if err != nil {
		return err
	}
	log := audit.NewLogWriter(f)
	h.tally = &tally{Log: log}
	work, stop := context.WithDeadline(ctx, h.sale.Opens.Add(long))
	defer stop()
	restocked, nem := make(chan struct{}), make(chan *nemesis, 1)
	go func() { defer close(restocked); h.restock(ctx, work, int64(len(tickets))) }()
	go func() { nem <- h.torment(ctx, work, r) }()
	crowd, err := loadtest.RunCrowd(ctx, loadtest.CrowdConfig{
		URLs: []string{h.through(crowdLink, h.proc[door].url)}, Sale: h.sale.ID, Basket: loadtest.Single(saleSKU, 1, price, currency),
		Tickets: tickets, Connections: connections, RepeatPerMille: 50, ChangePerMille: 10,
		Arrive: func(since time.Duration) int { return int(since.Seconds() * soakArrivals) },
		Quiet:  soakQuiet, Longest: long + soakAfter, Log: h.tally, Logger: h.cfg.Logger,
	})
	stop()
	<-restocked
	n := <-nem
	if err := errors.Join(err, log.Flush(), f.Close()); err != nil {
		return err
	}
	n.rate = float64(h.tally.accepts.load()) / time.Since(h.sale.Opens).Seconds()
	if n.why == "" && n.rate < MinRate {
		n.why = fmt.Sprintf("%.0f orders/s, want %.0f", n.rate, MinRate)
	}
	r.Unknown, r.Rate, r.Valid, r.Why = crowd.Unknown, float64(int64(n.rate)), n.why == "", n.why
	r.Proof = fmt.Sprintf("%d faults proven, %d not", r.Faults, r.Unproven)
	n.healed = time.Now() // what the crowd still wanted is no convergence
	return h.judge(ctx, r, n, logPath)
}

// restock adds units again and again until work ends, and then once for everybody.
// While PostgreSQL is away there are none.
func (h *house) restock(ctx, work context.Context, everybody int64) {
	tick := time.NewTicker(soakRestock)
	defer tick.Stop()
	for {
		select {
		case <-work.Done():
			for h.add(ctx, everybody) != nil && rest(ctx, soakTries) {
			}
			return
		case <-tick.C:
		}
		if err := h.add(ctx, soakUnits); err != nil {
			h.cfg.Logger.Info("no restock this time", "error", err)
		}
	}
}

func (h *house) add(ctx context.Context, units int64) error {
	return h.ctl.Restock(ctx, h.sale.ID, saleSKU, units, control.Note{Who: "chaos", Why: "the soak goes on"})
}

// torment strikes and heals, again and again, until work ends.
func (h *house) torment(ctx, work context.Context, r *Result) (n *nemesis) {
	n = new(nemesis)
	var pool []*Cell
	for _, c := range Cells() {
		if c.arm == nil && c.own == nil && (c.link == (link{}) || c.link == h.cell.link) && c.hold.most <= soakHold {
			pool = append(pool, c)
		}
	}
	var last drops
	for next := time.Now(); ; {
		next = next.Add(h.within(soakPause))
		if now := time.Now(); next.Before(now) {
			next = now
		}
		if !rest(work, time.Until(next)) {
			return n
		}
		c := last.choose(h.dice, pool, time.Now())
		h.memory = map[string]any{}
		before, err := c.strike(ctx, h)
		rest(ctx, h.within(c.hold))
		heal, stop := context.WithTimeout(context.WithoutCancel(ctx), healMost)
		after, herr := c.heal(heal, h)
		stop()
		if err := errors.Join(err, herr); err != nil || before+after == "" {
			r.Unproven++
			h.cfg.Logger.Warn("a fault of the soak", "cell", c.Name(), "error", err)
			if herr != nil && !errors.Is(herr, errUnproven) {
				n.why = c.Name() + ": " + herr.Error()
				return n
			}
			continue
		}
		r.Faults++
		fmt.Fprintf(h.cfg.Progress, "%6.1f s  %-28s accepted %7d  %s %s\n", time.Since(h.sale.Opens).Seconds(), c.Name(), h.tally.accepts.load(), before, after)
	}
}

// drops is when accepted orders were last taken away from a store.
type drops [inQueue + 1]time.Time

// choose chooses a fault that does not come too soon after one that dropped the other
// copy of orders.
func (d *drops) choose(dice *rand.Rand, pool []*Cell, now time.Time) *Cell {
	for {
		c := pool[dice.IntN(len(pool))]
		switch c.drops {
		case none:
			return c
		case inRedis:
			if now.Sub(d[inQueue]) < soakApart {
				continue
			}
		case inQueue:
			if now.Sub(d[inRedis]) < soakApart {
				continue
			}
		}
		d[c.drops] = now
		return c
	}
}

// rest waits; false if ctx ended first.
func rest(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
