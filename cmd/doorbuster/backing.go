package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"text/tabwriter"

	"github.com/doorbuster/doorbuster/dashboards"
	"github.com/doorbuster/doorbuster/engine/backing"
)

// UpCmd brings up the servers a sale stands on.
type UpCmd struct {
	JSON           JSONFlag `help:"Print JSON." name:"json"`
	Env            bool     `help:"Print the URLs as shell export lines, for eval."`
	WithMonitoring bool     `help:"Start Prometheus too."`
	Fsync          string   `help:"Redis' appendfsync: everysec, always or no." enum:",everysec,always,no" default:""`
	NoInstall      bool     `help:"Never install packages."`
}

// Run brings the servers up; doing it twice is harmless. Progress goes to
// standard error, so that standard output can be evaluated.
func (c *UpCmd) Run(ctx context.Context, g *Globals) error {
	s, err := backing.Up(ctx, c.config(g))
	if err != nil {
		return fmt.Errorf("up: %w", err)
	}
	switch u := s.URLs(); {
	case g.JSON:
		return json.NewEncoder(g.Stdout).Encode(u)
	case c.Env:
		fmt.Fprint(g.Stdout, exports(u))
	default:
		fmt.Fprintf(g.Stdout, "All servers are up. To use them: eval \"$(doorbuster up --dir %s --env)\"\n", g.Dir)
	}
	return nil
}

func (c *UpCmd) config(g *Globals) backing.Config {
	env := environment()
	return backing.Config{
		Dir:        g.Dir,
		URLs:       backing.URLs{Redis: env.Redis, AMQP: env.AMQP, Database: env.Postgres},
		Monitoring: c.WithMonitoring,
		Dashboards: dashboards.FS,
		Fsync:      c.Fsync,
		NoInstall:  c.NoInstall,
		Progress:   g.Stderr,
	}
}

// exports returns lines that a shell evaluates.
func exports(u backing.URLs) string {
	var b strings.Builder
	for _, v := range []struct{ name, value string }{
		{"REDIS_URL", u.Redis}, {"AMQP_URL", u.AMQP}, {"DATABASE_URL", u.Database}, {"PROMETHEUS_URL", u.Prometheus},
	} {
		if v.value != "" {
			fmt.Fprintf(&b, "export %s='%s'\n", v.name, strings.ReplaceAll(v.value, "'", `'\''`))
		}
	}
	return b.String()
}

// DownCmd stops the servers that up started.
type DownCmd struct {
	Wipe bool `help:"Delete their data too."`
}

// Run stops them and returns when no process of theirs is left. Where there
// never was an up there is nothing to do.
func (c *DownCmd) Run(ctx context.Context, g *Globals) error {
	s, err := backing.Open(backing.Config{Dir: g.Dir, Progress: g.Stderr})
	if errors.Is(err, backing.ErrNotUp) {
		fmt.Fprintf(g.Stderr, "Nothing is up in %s.\n", g.Dir)
		return nil
	}
	if err == nil && c.Wipe {
		err = s.Remove(ctx)
	} else if err == nil {
		err = s.Down(ctx)
	}
	if err != nil {
		return fmt.Errorf("down: %w", err)
	}
	return nil
}

// StatusCmd says how the servers are.
type StatusCmd struct {
	JSON JSONFlag `help:"Print JSON." name:"json"`
}

// Run prints one line a server; it fails if one of them is down.
func (c *StatusCmd) Run(ctx context.Context, g *Globals) error {
	s, err := backing.Open(backing.Config{Dir: g.Dir})
	if err != nil {
		return fmt.Errorf("status: %w: run `doorbuster up` first, or name its directory with --dir", err)
	}
	list := s.Status(ctx)
	if g.JSON {
		err = json.NewEncoder(g.Stdout).Encode(list)
	} else {
		err = printStatus(g, list)
	}
	if err != nil {
		return err
	}
	for _, st := range list {
		if !st.Up {
			return errVerdict
		}
	}
	return nil
}

func printStatus(g *Globals, list []backing.ServiceStatus) error {
	w := tabwriter.NewWriter(g.Stdout, 0, 0, 2, ' ', 0)
	for _, st := range list {
		how := "up"
		if !st.Up {
			how = "down: " + st.Problem
		}
		pid := ""
		if st.PID != 0 {
			pid = fmt.Sprintf("pid %d", st.PID)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", st.Name, st.Address, st.Mode, pid, how)
	}
	return w.Flush()
}
