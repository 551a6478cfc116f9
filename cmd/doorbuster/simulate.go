package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"runtime/debug"
	"slices"
	"time"

	"github.com/doorbuster/doorbuster/loadtest/simulate"
)

const gcPercent = 600

// SimulateCmd runs the engine against simulated services that fail.
type SimulateCmd struct {
	Seeds   int      `help:"How many stories." default:"1000"`
	From    uint64   `help:"The first seed." default:"1"`
	Workers int      `help:"Stories at once; 0 is one for each processor."`
	Most    int      `help:"Stop when a law was broken in so many stories; 0 is never."`
	Tell    bool     `help:"Print each step of the story of --from, instead."`
	JSON    JSONFlag `help:"Print JSON." name:"json"`
}

// Run tells the stories. It ends with an error if a law was broken in one of them.
func (c *SimulateCmd) Run(ctx context.Context, g *Globals) error {
	if c.Tell {
		broken, err := simulate.Tell(g.Stdout, c.From)
		if err == nil && len(broken) > 0 {
			err = errVerdict
		}
		return err
	}
	// A story is garbage when it is told: collect less often.
	defer debug.SetGCPercent(debug.SetGCPercent(gcPercent))
	began := time.Now()
	report, err := simulate.Run(ctx, simulate.Config{Seeds: c.Seeds, From: c.From, Workers: c.Workers, Most: c.Most, Progress: func(done int) {
		if !g.JSON && done%20_000 == 0 {
			fmt.Fprintf(g.Stderr, "%d stories\n", done)
		}
	}})
	if err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	if g.JSON {
		if err := json.NewEncoder(g.Stdout).Encode(report); err != nil {
			return err
		}
	} else {
		c.print(g, &report, time.Since(began))
	}
	if report.Violations > 0 || report.Seeds < c.Seeds {
		return errVerdict
	}
	return nil
}

func (c *SimulateCmd) print(g *Globals, r *simulate.Report, took time.Duration) {
	fmt.Fprintf(g.Stdout, "%d stories from seed %d in %s: %d orders acknowledged, %d confirmed, %d stories with a law broken\n",
		r.Seeds, c.From, took.Round(time.Millisecond), r.Acknowledged, r.Confirmed, r.Violations)
	for _, name := range slices.Sorted(maps.Keys(r.Faults)) {
		fmt.Fprintf(g.Stdout, "  %8d %s\n", r.Faults[name], name)
	}
	for _, f := range r.Failing {
		fmt.Fprintf(g.Stdout, "seed %d: %q\n  its story: doorbuster simulate --tell --from %d\n", f.Seed, f.Broken, f.Seed)
	}
}
