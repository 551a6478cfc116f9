package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/doorbuster/doorbuster/engine/backing"
	"github.com/doorbuster/doorbuster/loadtest/chaos"
)

// ChaosCmd breaks real servers and asks whether a law was broken.
type ChaosCmd struct {
	Cells   string        `help:"What to break: globs over component/fault, with commas between." placeholder:"GLOB"`
	Moments string        `help:"When: globs over moments." placeholder:"GLOB"`
	Seed    uint64        `help:"Chooses pairs, their order, and all that a run leaves to chance." default:"1"`
	Pairs   string        `help:"pairwise: every cell once, every component and shared fault at every moment. all: every cell at every moment. each: every cell once, at any moment." enum:"pairwise,all,each" default:"pairwise"`
	From    int           `help:"Leave out so many pairs of the plan."`
	Runs    int           `help:"And take so many; 0 takes all."`
	For     time.Duration `help:"Begin no run after this; 0 is no limit."`
	JSON    string        `help:"Write a line of JSON for every run to this file; - for standard output." name:"json" placeholder:"FILE"`
	Record  string        `help:"Append what was seen to this page." placeholder:"FILE" type:"path"`
	Soak    time.Duration `help:"Instead of the plan: restocking sales for this long, and a fault every 2 to 5 s."`
	Lap     time.Duration `help:"How long each sale of a soak takes." default:"2m"`
	Shifted string        `help:"This program as tools/shifted builds it, for the cells of a wrong clock; beside this one unless said." placeholder:"FILE" type:"path"`
	List    bool          `help:"Print the plan and end."`
	Keep    bool          `help:"Leave the servers up afterwards."`
}

// Run runs the plan on private servers of the state directory; errVerdict if a law
// was broken or a pair has no run that counts.
func (c *ChaosCmd) Run(ctx context.Context, g *Globals) (err error) {
	cfg := chaos.Config{
		Seed: c.Seed, Cells: c.Cells, Moments: c.Moments, Pairs: c.Pairs, From: c.From, Runs: c.Runs, For: c.For,
		Progress: g.Stderr, Logger: g.Logger(),
	}
	if c.List {
		return list(g.Stdout, &cfg)
	}
	services, err := backing.Up(ctx, backing.Config{Dir: g.Dir, Progress: g.Stderr})
	if err != nil {
		return err
	}
	if !c.Keep {
		defer func() {
			down, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
			defer cancel()
			err = errors.Join(err, services.Down(down))
		}()
	}
	if err := c.wire(ctx, g, &cfg, services); err != nil {
		return err
	}
	out, done, err := c.lines(g)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, done()) }()
	cfg.Out = func(r *chaos.Result) error { return json.NewEncoder(out).Encode(r) }
	began := time.Now().UTC()
	s, err := c.begin(ctx, cfg)
	if s != nil && c.Record != "" && len(s.Results) > 0 {
		err = errors.Join(err, chaos.Record(c.Record, chaos.Session{Began: began, Command: c.command(), Commit: cfg.Commit, Summary: s}))
	}
	if err != nil {
		return err
	}
	fmt.Fprintln(g.Stderr, s.String())
	if !s.Pass() {
		return errVerdict
	}
	return nil
}

func (c *ChaosCmd) begin(ctx context.Context, cfg chaos.Config) (*chaos.Summary, error) {
	if c.Soak > 0 {
		return chaos.Soak(ctx, cfg, c.Soak, c.Lap)
	}
	return chaos.Run(ctx, cfg)
}

// wire gives the runs their program, keys and servers.
func (c *ChaosCmd) wire(ctx context.Context, g *Globals, cfg *chaos.Config, services *backing.Services) (err error) {
	if cfg.Exe, err = os.Executable(); err != nil {
		return err
	}
	if cfg.Tickets, err = g.ticketKeys(); err != nil {
		return err
	}
	cfg.Shifted = c.Shifted
	if cfg.Shifted == "" {
		cfg.Shifted = filepath.Join(filepath.Dir(cfg.Exe), "doorbuster-shifted")
	}
	cfg.Dir = filepath.Join(g.Dir, "chaos")
	cfg.Args = []string{"--dir", g.Dir, "--log-level", "info"}
	cfg.Env, cfg.Services, cfg.Commit = os.Environ(), services, commit(ctx)
	return os.MkdirAll(cfg.Dir, 0o755)
}

// lines opens what takes the lines of JSON.
func (c *ChaosCmd) lines(g *Globals) (io.Writer, func() error, error) {
	switch c.JSON {
	case "":
		return io.Discard, func() error { return nil }, nil
	case "-":
		return g.Stdout, func() error { return nil }, nil
	}
	f, err := os.OpenFile(c.JSON, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return nil, nil, err
	}
	return f, f.Close, nil
}

// command is how to do it again.
func (c *ChaosCmd) command() string {
	words := []string{"bin/doorbuster chaos", fmt.Sprintf("--seed %d", c.Seed)}
	if c.Soak > 0 {
		return strings.Join(append(words, "--soak "+c.Soak.String(), "--lap "+c.Lap.String()), " ")
	}
	for _, f := range []struct{ flag, value string }{{"--cells", c.Cells}, {"--moments", c.Moments}} {
		if f.value != "" {
			words = append(words, fmt.Sprintf("%s '%s'", f.flag, f.value))
		}
	}
	words = append(words, "--pairs "+c.Pairs)
	if c.From > 0 {
		words = append(words, fmt.Sprintf("--from %d", c.From))
	}
	if c.Runs > 0 {
		words = append(words, fmt.Sprintf("--runs %d", c.Runs))
	}
	return strings.Join(words, " ")
}

// commit names what the program was built from, as far as the directory tells.
func commit(ctx context.Context) string {
	out, err := exec.CommandContext(ctx, "git", "describe", "--always", "--dirty", "--exclude=*").Output()
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(out))
}

func list(w io.Writer, cfg *chaos.Config) error {
	plan, err := chaos.Plan(cfg)
	if err != nil {
		return err
	}
	for _, p := range plan {
		fmt.Fprintln(w, p.Name())
	}
	all, err := chaos.Plan(&chaos.Config{Pairs: chaos.All})
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(w, "%d runs; %d cells at %d moments are %d pairs\n", len(plan), len(chaos.Cells()), len(chaos.Moments), len(all))
	return err
}
