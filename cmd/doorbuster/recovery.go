package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/doorbuster/doorbuster/engine"
	"github.com/doorbuster/doorbuster/engine/orders"
	"github.com/doorbuster/doorbuster/engine/postgres"
	"github.com/doorbuster/doorbuster/engine/recovery"
	"github.com/doorbuster/doorbuster/stock"
)

// RecoveryCmd groups what an operator asks of recovery.
type RecoveryCmd struct {
	Status RecoveryStatusCmd `cmd:"" help:"Show who leads each sale, what recovery does with it, and why."`
}

// RecoveryStatusCmd shows it.
type RecoveryStatusCmd struct {
	JSON JSONFlag `help:"Print JSON." name:"json"`
	Sale string   `help:"Sale id; without it, every sale in use."`
}

// Run asks PostgreSQL and Redis; no server of ours need run.
func (c *RecoveryStatusCmd) Run(ctx context.Context, g *Globals) error {
	b, err := g.backends()
	if err != nil {
		return err
	}
	pool, err := postgres.Open(ctx, b.Postgres, postgres.Options{})
	if err != nil {
		return err
	}
	defer pool.Close()
	rdb, err := stock.Open(b.Redis)
	if err != nil {
		return err
	}
	defer func() { _ = rdb.Close() }()
	o := recovery.Observer{Orders: orders.New(pool), Stock: stock.New(rdb)}
	reports, err := o.Reports(ctx, engine.SaleID(c.Sale))
	if err != nil {
		return err
	}
	if g.JSON {
		return json.NewEncoder(g.Stdout).Encode(reports)
	}
	if len(reports) == 0 {
		_, err = fmt.Fprintln(g.Stdout, "no sale is in use")
	}
	for i := range reports {
		printRecovery(g.Stdout, &reports[i])
	}
	return err
}

// printRecovery prints a report for people.
func printRecovery(w io.Writer, r *recovery.Report) {
	state := string(r.State)
	if r.Frozen {
		state += ", frozen"
	}
	fmt.Fprintf(w, "sale %s: %s, epoch %d, incarnation %s\n", r.Sale, state, r.Epoch, count(r.Incarnation))
	if r.Safety != "" {
		fmt.Fprintf(w, "  durable: %s\n", describeSafety(r.Safety))
	}
	if l := r.Leader; l != nil {
		fmt.Fprintf(w, "  led by %s, lease %s left, number %d\n", l.Process, ms(l.LeftMS), l.Number)
	} else if r.State != engine.SaleSettled {
		fmt.Fprintln(w, "  led by nobody: start a server with the role recovery")
	}
	printRebuild(w, r.Rebuild)
	if h := r.Heartbeat; h != nil && !r.Frozen {
		says := "stands still: the doors close"
		if h.Rising {
			says = "rises"
		}
		fmt.Fprintf(w, "  heartbeat %d, %s, %s old\n", h.Number, says, ms(h.AgeMS))
	}
	fmt.Fprintf(w, "  outbox %s, release rows pending %d, orders parked %d, clock skew %s ms\n", count(r.Outbox), r.PendingRows, r.Parked, count(r.ClockSkewMS))
	if s := r.Sweep; s != nil {
		fmt.Fprintf(w, "  swept %s: %d records, %d held, %d unknown to PostgreSQL, %d published again, %d epochs dropped\n",
			s.At.Format(time.RFC3339), s.Records, s.Held, s.Unknown, s.Published, s.Dropped)
	}
	if r.Redis != "" {
		fmt.Fprintf(w, "  Redis: %s\n", r.Redis)
	}
}

func printRebuild(w io.Writer, b *recovery.RebuildReport) {
	if b == nil {
		return
	}
	steps := make([]string, len(b.Steps))
	for i, s := range b.Steps {
		steps[i] = fmt.Sprintf("%s %s", s.Phase, ms(s.TookMS))
	}
	took := strings.Join(steps, ", ")
	switch {
	case b.Running && b.Phase != recovery.NoPhase:
		fmt.Fprintf(w, "  being rebuilt (%s), frozen since %s: %s for %s; %s\n", b.Why, b.Began.Format(time.RFC3339), b.Phase, ms(b.PhaseMS), took)
	case b.Running:
		fmt.Fprintf(w, "  a rebuild (%s) stopped half-way, frozen since %s; %s\n", b.Why, b.Began.Format(time.RFC3339), took)
	default:
		fmt.Fprintf(w, "  last rebuilt %s (%s): %s\n", b.Began.Format(time.RFC3339), b.Why, took)
	}
	if b.Trouble != "" {
		fmt.Fprintf(w, "  trouble: %s\n", b.Trouble)
	}
}

// describeSafety spells out stock.Safety.
func describeSafety(letters string) string {
	says := "Redis writes to disk before it answers"
	if strings.Contains(letters, "a") {
		says += ", and is asked whether it did"
	}
	if strings.Contains(letters, "r") {
		says += "; a replica must have it too"
	}
	return says
}

func ms(n int64) string { return (time.Duration(n) * time.Millisecond).String() }
