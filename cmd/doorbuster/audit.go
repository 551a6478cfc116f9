package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/doorbuster/doorbuster/engine"
	"github.com/doorbuster/doorbuster/engine/audit"
	"github.com/doorbuster/doorbuster/payment/provider"
)

// AuditCmd checks the laws.
type AuditCmd struct {
	JSON      JSONFlag      `help:"Print JSON." name:"json"`
	Sale      string        `required:"" help:"Sale id."`
	ClientLog string        `help:"Log of every answer that buyers heard, as the load generator writes it: checks laws 8, 11 and 12 too." placeholder:"FILE" type:"existingfile"`
	Watch     bool          `help:"Check what can be checked while the sale runs, again and again, until SIGINT."`
	Every     time.Duration `help:"With --watch: how often." default:"1s"`
	Metrics   string        `help:"With --watch: serve what is found to Prometheus at this address; empty for no metrics." default:"127.0.0.1:9091"`
	Wait      time.Duration `help:"Wait this long at most for the sale to come to rest." default:"30s"`
	Sandbox   string        `help:"URL of the sandbox provider whose ledger to compare." env:"SANDBOX_URL" placeholder:"URL"`
}

// Run audits.
func (c *AuditCmd) Run(ctx context.Context, g *Globals) error {
	b, err := g.backends()
	if err != nil {
		return err
	}
	id := engine.SaleID(c.Sale)
	if err := g.exists(ctx, b, id); err != nil {
		return fmt.Errorf("audit: %w", err)
	}
	a, err := newAuditor(b, c.Sandbox, g)
	if err != nil {
		return err
	}
	defer a.Close()
	if c.Watch {
		return c.watch(ctx, g, a)
	}
	var log io.Reader
	if c.ClientLog != "" {
		f, err := os.Open(c.ClientLog)
		if err != nil {
			return err
		}
		defer func() { _ = f.Close() }()
		log = f
	}
	rest, cancel := context.WithTimeout(ctx, c.Wait)
	waiting, err := a.WaitForRest(rest, id)
	cancel()
	tellUnrest(g.Stderr, c.Wait, waiting, err)
	r, err := a.AtRest(ctx, id, log)
	if err != nil {
		return err
	}
	return g.verdict(&r)
}

// tellUnrest says what a sale that did not come to rest was waiting for.
func tellUnrest(w io.Writer, after time.Duration, waiting string, err error) {
	switch {
	case waiting != "":
		fmt.Fprintf(w, "Not at rest after %s: %s.\n", after, waiting)
	case err != nil:
		fmt.Fprintf(w, "Not at rest after %s: %v.\n", after, err)
	}
}

// watch prints a line per look, and ends with errVerdict if a law broke.
func (c *AuditCmd) watch(ctx context.Context, g *Globals, a *audit.Auditor) error {
	broken := false
	reg := prometheus.NewRegistry()
	meter, err := audit.NewMeter(reg, nil)
	if err != nil {
		return err
	}
	stop, err := serveRegistry(ctx, reg, c.Metrics)
	if err != nil {
		return err
	}
	defer stop()
	err = a.Watch(ctx, engine.SaleID(c.Sale), c.Every, func(r audit.Report) {
		meter.Observe(&r)
		broken = broken || len(r.Broken()) > 0
		if g.JSON {
			_ = json.NewEncoder(g.Stdout).Encode(r)
			return
		}
		fmt.Fprintf(g.Stdout, "%s  confirmed %d  cancelled %d  stuck %d  broken laws %v  unchecked %v\n",
			r.At.Format(time.TimeOnly), r.Confirmed, r.Cancelled, r.Stuck, r.Broken(), r.Unchecked())
	})
	if broken {
		return errVerdict
	}
	return err
}

// exists tells whether there is such a sale: of one that there is not, no law
// could be checked.
func (g *Globals) exists(ctx context.Context, b Backends, id engine.SaleID) error {
	ctl, done, err := openController(ctx, b, g)
	if err != nil {
		return err
	}
	defer done()
	_, err = ctl.Show(ctx, id)
	return err
}

// newAuditor opens an auditor of these servers. sandbox may be empty.
func newAuditor(b Backends, sandbox string, g *Globals) (*audit.Auditor, error) {
	cfg := audit.Config{
		DatabaseURL: b.Postgres, RedisURL: b.Redis, Queue: b.queue(nil), Logger: g.Logger(),
		Ledgers: map[string]audit.Ledger{},
	}
	if sandbox != "" {
		cfg.Ledgers[sandboxProvider] = provider.NewHTTP(sandbox)
	}
	return audit.Open(cfg)
}

// verdict prints a report; errVerdict unless it is a pass.
func (g *Globals) verdict(r *audit.Report) error {
	if g.JSON {
		if err := json.NewEncoder(g.Stdout).Encode(r); err != nil {
			return err
		}
	} else {
		printReport(g.Stdout, r)
	}
	if r.Verdict != audit.Pass {
		return errVerdict
	}
	return nil
}

// printReport prints the laws, a line each, and the verdict.
func printReport(w io.Writer, r *audit.Report) {
	for i := range r.Laws {
		l := &r.Laws[i]
		mark := map[audit.Finding]string{audit.Holds: "holds    ", audit.Broken: "BROKEN   ", audit.Unchecked: "unchecked"}[l.Holds]
		fmt.Fprintf(w, "  law %2d  %s  %s: %s\n", l.Number, mark, l.Name, l.Detail)
	}
	fmt.Fprintf(w, "  verdict: %s\n", r.Verdict)
}
