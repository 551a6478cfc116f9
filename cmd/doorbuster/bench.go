package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/doorbuster/doorbuster/engine/backing"
	"github.com/doorbuster/doorbuster/loadtest/bench"
)

// BenchCmd measures what docs/BENCHMARKS.md says.
type BenchCmd struct {
	JSON  JSONFlag `help:"Print JSON." name:"json"`
	Out   string   `help:"Page to write; empty for none." default:"docs/BENCHMARKS.md"`
	Only  []string `help:"Steps: door, stock, sandbox, percentiles, memory, durable, overload." placeholder:"STEP"`
	Pairs int      `help:"Rounds of what is compared; 0 is the usual number."`
	Short bool     `help:"Seconds instead of minutes, for development: the figures mean little."`
}

// Run measures on private servers of the state directory, which it brings up and
// stops: it changes how Redis writes to disk, so it never uses servers that are
// given.
func (c *BenchCmd) Run(ctx context.Context, g *Globals) (err error) {
	services, err := backing.Up(ctx, backing.Config{Dir: g.Dir, Progress: g.Stderr})
	if err != nil {
		return err
	}
	defer func() {
		down, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
		defer cancel()
		err = errors.Join(err, services.Down(down))
	}()
	u := services.URLs()
	b := Backends{Redis: u.Redis, AMQP: u.AMQP, Postgres: u.Database}
	if err := migrate(ctx, b); err != nil {
		return err
	}
	keys, err := g.ticketKeys()
	if err != nil {
		return err
	}
	dir := filepath.Join(g.Dir, "bench")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	res, err := bench.Run(ctx, bench.Config{
		Args:  []string{"--dir", g.Dir, "--log-level", "warn"},
		Env:   append(os.Environ(), "REDIS_URL="+b.Redis, "AMQP_URL="+b.AMQP, "DATABASE_URL="+b.Postgres),
		Redis: b.Redis, AMQP: b.AMQP, Database: b.Postgres, Tickets: keys,
		Dir: dir, Out: c.Out, Only: c.Only, Pairs: c.Pairs, Short: c.Short,
		Command: "make bench", Progress: g.Stderr, Logger: g.Logger(),
	})
	if err != nil {
		return err
	}
	if g.JSON {
		return json.NewEncoder(g.Stdout).Encode(res)
	}
	if missed := res.Missed(); len(missed) > 0 {
		_, err = fmt.Fprintf(g.Stdout, "below their targets: %s\n", strings.Join(missed, ", "))
	}
	return err
}

// BenchChildCmd is a server of the bench's own.
type BenchChildCmd struct {
	What string `arg:""`
}

// Run serves until ctx ends.
func (c *BenchChildCmd) Run(ctx context.Context, g *Globals) error {
	return bench.Child(ctx, []string{c.What}, g.Stdout)
}
