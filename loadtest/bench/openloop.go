package bench

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/doorbuster/doorbuster/loadtest"
)

const (
	openConnections = 1024
	openRounds      = 3
	sandboxOrders   = 30_000
	sandboxRounds   = 3
)

// rounds is how often something without a partner is measured.
func (b *bench) rounds(full int) int {
	if b.cfg.Short {
		return 1
	}
	return full
}

// openLoops is (h): how long a 202 takes while requests come at a share of (b),
// every role at work.
func (b *bench) openLoops(ctx context.Context) error {
	var d doors
	var err error
	if d.back, err = b.serve(ctx, "back", "recovery,relay,status"); err != nil {
		return err
	}
	if d.door, err = b.serve(ctx, "door", "door"); err != nil {
		return err
	}
	if err := b.startWorker(ctx, &d); err != nil {
		return err
	}
	ceiling := Series{Values: b.values["(b)"]}
	if len(ceiling.Values) == 0 {
		if err := b.acceptedAndConfirmed(ctx, &d); err != nil {
			return err
		}
		ceiling.Values = b.values["(b)"]
	}
	for range b.rounds(openRounds) {
		for _, share := range b.plan.shares {
			if err := b.openLoop(ctx, &d, share, share*ceiling.Median()); err != nil {
				return err
			}
		}
	}
	return errors.Join(d.door.stop(), d.worker.stop(), d.back.stop())
}

func (b *bench) openLoop(ctx context.Context, d *doors, share, rate float64) error {
	sale, tickets, err := b.freshSale(ctx, d.door.urls[0], "instant")
	if err != nil {
		return err
	}
	res, err := loadtest.RunOpen(ctx, loadtest.PressConfig{
		URLs: d.door.urls[:1], Sale: sale, Basket: basket(), Tickets: tickets, Connections: openConnections,
		Duration: b.plan.open, Warm: b.plan.warm, Rate: rate,
	})
	if err != nil {
		return err
	}
	took := res.Outcomes[loadtest.Accepted.String()]
	if took.Count == 0 {
		return fmt.Errorf("%w: %v", errNothing, res.Outcomes)
	}
	name := fmt.Sprintf("(h) %d %%", int(share*100))
	for what, v := range map[string]time.Duration{"p50": took.P50, "p99": took.P99, "p99.9": took.P999, "lag p99": res.Lag.P99} {
		b.add(name+" "+what, v.Seconds()*1000)
	}
	b.add(name+" rate", rate)
	b.say("%-16s %9.0f/s  p50 %v p99 %v p99.9 %v, lag p99 %v, %v", name, rate, took.P50, took.P99, took.P999, res.Lag.P99, counts(&res))
	_, err = b.waitRest(ctx, sale, took.Count)
	return err
}

// sandboxRounds is (f2): as (f), with a provider that is a process of its own and
// is asked over HTTP for each order.
func (b *bench) sandboxRounds(ctx context.Context) error {
	provider, err := b.start(ctx, "sandbox", "sandbox", "--listen", "127.0.0.1:0", "--latency", "0s", "--ledger", filepath.Join(b.cfg.Dir, "bench-ledger"))
	if err != nil {
		return err
	}
	back, err := b.serve(ctx, "back", "recovery,relay,status")
	if err != nil {
		return err
	}
	door, err := b.serve(ctx, "door", "door")
	if err != nil {
		return err
	}
	worker, err := b.serve(ctx, "worker", "worker", "--sandbox", provider.urls[0])
	if err != nil {
		return err
	}
	for range b.rounds(sandboxRounds) {
		if err := b.sandboxRound(ctx, door.urls[0]); err != nil {
			return err
		}
	}
	return errors.Join(door.stop(), worker.stop(), back.stop(), provider.stop())
}

func (b *bench) sandboxRound(ctx context.Context, url string) error {
	sale, tickets, err := b.freshSale(ctx, url, "sandbox")
	if err != nil {
		return err
	}
	most := int64(sandboxOrders)
	if b.cfg.Short {
		most /= 10
	}
	start := time.Now()
	res, err := loadtest.RunClosed(ctx, loadtest.PressConfig{
		URLs: []string{url}, Sale: sale, Basket: basket(), Tickets: tickets, Connections: connections,
		Duration: b.plan.press, Requests: most,
	})
	if err != nil {
		return err
	}
	end, err := b.waitRest(ctx, sale, res.Outcomes.Count(loadtest.Accepted))
	if err != nil {
		return err
	}
	if end.Confirmed == 0 {
		return errNothing
	}
	rate := float64(end.Confirmed) / end.Last.Sub(start).Seconds()
	b.add("(f2)", rate)
	b.say("%-16s %9.0f/s  %d orders", "(f2)", rate, end.Confirmed)
	return nil
}
