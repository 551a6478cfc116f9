package chaos

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/doorbuster/doorbuster/engine/backing"
	"github.com/doorbuster/doorbuster/engine/ticket"
)

// Attempts is how often a pair is tried until a run of it counts.
const Attempts = 4

// Config says what to break and with what. Exe, Services, Tickets and Dir are needed.
type Config struct {
	Shifted  string   // the same, built by tools/shifted; empty: cells of a role's clock do not count
	Exe      string   // the program, whose roles are started as children
	Args     []string // before the command, as "--dir"
	Env      []string // of the children; URLs of the run's own servers are added
	Services *backing.Services
	Tickets  *ticket.Keys
	Dir      string // for logs and the provider's books
	Commit   string // of the program

	Seed    uint64
	Cells   string        // globs over component/fault, with commas between; empty: all
	Moments string        // globs over moments; empty: all
	Pairs   string        // Pairwise (the default), All or Each
	From    int           // leave out so many pairs of the plan
	Runs    int           // and take so many; 0: all
	For     time.Duration // begin no run after this; 0: no limit

	Out      func(*Result) error // hears of every run, at its end; nil: nobody
	Progress io.Writer           // nil: silence
	Logger   *slog.Logger

	annex *annex
}

func (c *Config) fill() {
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Progress == nil {
		c.Progress = io.Discard
	}
	c.annex = &annex{made: map[string]*backing.Services{}}
}

// Summary is what all runs came to.
type Summary struct {
	Runs    int `json:"runs"`    // that count
	Faults  int `json:"faults"`  // proven, in these
	Invalid int `json:"invalid"` // that do not
	Missing int `json:"missing"` // pairs of which no run counts
	Left    int `json:"left"`    // pairs that there was no time for

	Acked      int64    `json:"acked"`
	Confirmed  int64    `json:"confirmed"`
	Unknown    int64    `json:"unknown"`
	Violations int      `json:"violations"` // runs with one or more, whether they count or not
	P50        int64    `json:"convergence_p50_ms"`
	P99        int64    `json:"convergence_p99_ms"`
	Seconds    float64  `json:"seconds"`
	Results    []Result `json:"-"`
}

// Pass tells whether nothing was broken and every pair has a run that counts.
func (s *Summary) Pass() bool { return s.Violations == 0 && s.Missing == 0 && s.Runs > 0 }

// Run runs the plan, one pair after another. The error is for what has nothing to do
// with the engine: servers that do not start, a configuration that is wrong, the end
// of ctx. What was found is in the summary.
func Run(ctx context.Context, cfg Config) (s *Summary, err error) {
	cfg.fill()
	defer func() {
		end, stop := context.WithTimeout(context.WithoutCancel(ctx), closeMost)
		defer stop()
		err = errors.Join(err, cfg.annex.close(end))
	}()
	plan, err := Plan(&cfg)
	if err != nil {
		return nil, fmt.Errorf("chaos: %w", err)
	}
	began := time.Now()
	s = new(Summary)
	for i, p := range plan {
		if cfg.For > 0 && time.Since(began) > cfg.For {
			s.Left = len(plan) - i
			break
		}
		if err := s.pair(ctx, &cfg, p, fmt.Sprintf("%3d of %d", i+1, len(plan))); err != nil {
			return s, fmt.Errorf("chaos: %w", err)
		}
	}
	s.Seconds = time.Since(began).Seconds()
	s.percentiles()
	return s, nil
}

// pair runs one pair until a run of it counts.
func (s *Summary) pair(ctx context.Context, cfg *Config, p Pair, which string) error {
	for attempt := 1; attempt <= Attempts; attempt++ {
		r, err := run(ctx, cfg, p, attempt)
		if err != nil && ctx.Err() != nil {
			return err
		}
		if err != nil { // the bench broke, not the engine: say so, and try again
			r.Valid, r.Why = false, err.Error()
			if err := heal(ctx, cfg); err != nil {
				return err
			}
		}
		s.add(&r)
		if len(r.Violations) > 0 {
			cfg.keep(&r)
		}
		if cfg.Out != nil {
			if err := cfg.Out(&r); err != nil {
				return err
			}
		}
		fmt.Fprintf(cfg.Progress, "%s  %s\n", which, r.Line())
		if r.Valid {
			return nil
		}
	}
	s.Missing++
	return nil
}

// heal makes sure that every server is up again, whatever a run left behind.
func heal(ctx context.Context, cfg *Config) error {
	for _, name := range []backing.Name{backing.Redis, backing.RabbitMQ, backing.PostgreSQL} {
		_, err := cfg.Services.Resume(ctx, name)
		if err = errors.Join(err, cfg.Services.Start(ctx, name)); err != nil {
			return err
		}
	}
	return nil
}

// keep keeps the logs of a run that broke something.
func (c *Config) keep(r *Result) {
	to := filepath.Join(c.Dir, "red", strings.NewReplacer("/", "-", " @ ", "-").Replace(r.Name())+fmt.Sprintf("-%d-%d", r.Seed, r.Attempt))
	if os.MkdirAll(to, 0o755) != nil {
		return
	}
	for _, name := range []string{"answers", "door.log", "relay.log", "worker.log", "recovery.log", "provider.log"} {
		if b, err := os.ReadFile(filepath.Join(c.Dir, name)); err == nil {
			_ = os.WriteFile(filepath.Join(to, name), b, 0o644)
		}
	}
	fmt.Fprintf(c.Progress, "         logs and answers are in %s\n", to)
}

func (s *Summary) add(r *Result) {
	if r.Valid {
		s.Runs++
		s.Faults += r.Faults
	} else {
		s.Invalid++
	}
	if len(r.Violations) > 0 {
		s.Violations++
	}
	s.Acked += r.Acked
	s.Confirmed += r.Confirmed
	s.Unknown += r.Unknown
	s.Results = append(s.Results, *r)
}

func (s *Summary) percentiles() {
	var all []int64
	for i := range s.Results {
		if r := &s.Results[i]; r.Valid && r.Convergence >= 0 {
			all = append(all, r.Convergence)
		}
	}
	slices.Sort(all)
	if n := len(all); n > 0 {
		s.P50, s.P99 = all[n/2], all[min(n-1, n*99/100)]
	}
}

// Line tells of a run in a line for people.
func (r *Result) Line() string {
	verdict := "ok"
	switch {
	case len(r.Violations) > 0:
		verdict = "BROKEN " + cell(strings.Join(r.Violations, "; "))
	case !r.Valid:
		verdict = "does not count: " + cell(r.Why)
	}
	return fmt.Sprintf("%-44s accepted %5d  confirmed %5d  unknown %4d  %4.0f/s  struck at %4d (+%d ms)  held %5d ms  rest after %5d ms  %4.1f s  %s",
		r.Name(), r.Acked, r.Confirmed, r.Unknown, r.Rate, r.At, r.LagMS, r.HeldMS, r.Convergence, r.Seconds, verdict)
}
