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
	soakArrivals = 300 // buyers a second
	soakUnits    = 1_500
	soakRestock  = 10 * time.Second // and then again, so that half of those who come are served
	soakAfter    = 3 * time.Minute  // for crowd and sale to come to an end
	soakQuiet    = 60 * time.Second
	soakHold     = 5 * time.Second // the longest fault of a soak
	soakMinimum  = 20 * time.Second
)

// soakPause is between two faults.
var soakPause = span{2 * time.Second, 5 * time.Second}

// Soak runs one sale for so long. It is restocked again and again, and a fault comes
// every 2 to 5 s: any cell without a link and without preparation, that holds 5 s at
// most. In the result Cell tells how many faults were proven. Errors as Run.
func Soak(ctx context.Context, cfg Config, long time.Duration) (*Summary, error) {
	if long < soakMinimum {
		return nil, fmt.Errorf("chaos: a soak takes %s at least", soakMinimum)
	}
	cfg.fill()
	began := time.Now()
	h := &house{
		cfg: &cfg, cell: &Cell{Component: "soak", Fault: "all", lossy: true}, seed: cfg.Seed, dice: rand.New(rand.NewPCG(cfg.Seed, 0)),
		moment: &Moment{Name: long.String(), units: soakUnits, rebuilds: true},
		name:   "soak" + strconv.FormatUint(cfg.Seed, 36) + "x" + strconv.FormatInt(began.UnixMilli(), 36),
		admin:  cfg.Services.URLs(), proc: map[string]*process{}, memory: map[string]any{},
	}
	r := Result{Seed: cfg.Seed, Commit: cfg.Commit, Moment: h.moment.Name, Attempt: 1, Convergence: -1, Violations: []string{}}
	err := h.soak(ctx, &r, long)
	end, stop := context.WithTimeout(context.WithoutCancel(ctx), closeMost)
	defer stop()
	err = errors.Join(err, h.close(end))
	r.Seconds = time.Since(began).Seconds()
	s := new(Summary)
	s.add(&r)
	s.Seconds = r.Seconds
	s.percentiles()
	if len(r.Violations) > 0 {
		cfg.keep(&r)
	}
	if err == nil && cfg.Out != nil {
		err = cfg.Out(&r)
	}
	return s, err
}

func (h *house) soak(ctx context.Context, r *Result, long time.Duration) error {
	if err := h.open(ctx); err != nil {
		return err
	}
	tickets, err := h.tickets("buyer-", int(long.Seconds())*soakArrivals)
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
	go func() { defer close(restocked); h.restock(work) }()
	go func() { nem <- h.torment(ctx, work, r) }()
	crowd, err := loadtest.RunCrowd(ctx, loadtest.CrowdConfig{
		URLs: []string{h.proc[door].url}, Sale: h.sale.ID, Basket: loadtest.Single(saleSKU, 1, price, currency),
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
	n.marked, n.struck, n.rate = n.healed, n.healed, float64(h.tally.accepts.load())/long.Seconds()
	r.Unknown, r.Rate, r.Valid, r.Why = crowd.Unknown, n.rate, n.why == "", n.why
	n.healed = time.Now() // what the crowd still wanted is no convergence
	return h.judge(ctx, r, n, logPath)
}

// restock adds units until ctx ends. While PostgreSQL is away there are none.
func (h *house) restock(ctx context.Context) {
	tick := time.NewTicker(soakRestock)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if err := h.ctl.Restock(ctx, h.sale.ID, saleSKU, soakUnits, control.Note{Who: "chaos", Why: "the soak goes on"}); err != nil {
			h.cfg.Logger.Info("no restock this time", "error", err)
		}
	}
}

// torment strikes and heals, again and again, until work ends.
func (h *house) torment(ctx, work context.Context, r *Result) (n *nemesis) {
	n = new(nemesis)
	var pool []*Cell
	for _, c := range Cells() {
		if c.arm == nil && c.link == (link{}) && c.hold.most <= soakHold {
			pool = append(pool, c)
		}
	}
	proven, unproven := 0, 0
	defer func() { r.Cell = fmt.Sprintf("soak/%d-faults (%d unproven)", proven, unproven) }()
	for {
		if !rest(work, h.within(soakPause)) {
			return n
		}
		c := pool[h.dice.IntN(len(pool))]
		h.memory = map[string]any{}
		before, err := c.strike(ctx, h)
		rest(ctx, h.within(c.hold))
		heal, stop := context.WithTimeout(context.WithoutCancel(ctx), healMost)
		after, herr := c.heal(heal, h)
		stop()
		n.healed = time.Now()
		if err := errors.Join(err, herr); err != nil || before+after == "" {
			unproven++
			h.cfg.Logger.Warn("a fault of the soak", "cell", c.Name(), "error", err)
			if herr != nil && !errors.Is(herr, errUnproven) {
				n.why = c.Name() + ": " + herr.Error()
				return n
			}
			continue
		}
		proven++
		fmt.Fprintf(h.cfg.Progress, "%6.1f s  %-28s accepted %7d  %s %s\n", time.Since(h.sale.Opens).Seconds(), c.Name(), h.tally.accepts.load(), before, after)
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
