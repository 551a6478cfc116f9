package bench

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/doorbuster/doorbuster/engine"
	"github.com/doorbuster/doorbuster/loadtest"
)

// errNothing says that a press measured nothing.
var errNothing = errors.New("no request was answered as it should be")

// doors are the children that (a) to (d), (f) and (g) compare. Each has its own
// process; worker is started and stopped within a round.
type doors struct {
	bare, door, single, back *child
	worker                   *child
}

func (b *bench) startDoors(ctx context.Context) (d doors, err error) {
	if d.bare, err = b.start(ctx, "bare", "bench-child", "bare"); err != nil {
		return d, err
	}
	// Recovery first: the others wait for it.
	if d.back, err = b.serve(ctx, "back", "recovery,relay,status"); err != nil {
		return d, err
	}
	if d.door, err = b.serve(ctx, "door", "door"); err != nil {
		return d, err
	}
	d.single, err = b.serve(ctx, "single", "door", "--group-of-one")
	return d, err
}

// serve starts `doorbuster serve` on free ports.
func (b *bench) serve(ctx context.Context, name, roles string, more ...string) (*child, error) {
	return b.start(ctx, name, serving(roles, more...)...)
}

func serving(roles string, more ...string) []string {
	return append([]string{"serve", "--roles", roles, "--listen", "127.0.0.1:0", "--metrics", "127.0.0.1:0"}, more...)
}

// round measures every figure of the door once, side by side.
func (b *bench) round(ctx context.Context, d *doors) error {
	for _, one := range []struct {
		name string
		do   func(context.Context, *doors) error
	}{
		{"a", b.bareReplies},
		{"b, worker stopped", b.acceptedAlone},
		{"b and f", b.acceptedAndConfirmed},
		{"g", b.barePipeline},
		{"c", b.acceptedSingly},
		{"b, greedy worker", b.acceptedGreedily},
		{"d", b.soldOut},
	} {
		if err := one.do(ctx, d); err != nil {
			return fmt.Errorf("(%s): %w", one.name, err)
		}
		if !pause(ctx, b.plan.settling) {
			return ctx.Err()
		}
	}
	return nil
}

// press sends what a sale's buyers send, as fast as the connections carry it.
func (b *bench) press(ctx context.Context, url string, sale engine.SaleID, tickets []loadtest.Ticket) (loadtest.PressResult, error) {
	return loadtest.RunClosed(ctx, loadtest.PressConfig{
		URLs: []string{url}, Sale: sale, Basket: basket(), Tickets: tickets, Connections: connections,
		Duration: b.plan.press, Warm: b.plan.warm, Wrap: len(tickets) < b.plan.tickets,
	})
}

// bareReplies is (a): the same requests to a server that does nothing.
func (b *bench) bareReplies(ctx context.Context, d *doors) error {
	const sale, few = "bench-bare", 10_000
	tickets, err := b.mint(sale, few)
	if err != nil {
		return err
	}
	res, err := b.press(ctx, d.bare.urls[0], sale, tickets)
	if err != nil {
		return err
	}
	return b.note("(a)", res.PerSecond, &res)
}

// acceptedAlone is (b) without the worker: the door, the broker and Redis have
// the machine for themselves. What was accepted is ingested afterwards.
func (b *bench) acceptedAlone(ctx context.Context, d *doors) error {
	sale, tickets, err := b.freshSale(ctx, d.door.urls[0], "instant")
	if err != nil {
		return err
	}
	before, err := b.redisMemory(ctx)
	if err != nil {
		return err
	}
	res, err := b.press(ctx, d.door.urls[0], sale, tickets)
	if err != nil {
		return err
	}
	if err := b.note("(b) door alone", res.Rate(loadtest.Accepted), &res); err != nil {
		return err
	}
	if err := b.bytesPerOrder(ctx, sale, before); err != nil {
		return err
	}
	if err := b.startWorker(ctx, d); err != nil {
		return err
	}
	_, err = b.waitRest(ctx, sale, res.Outcomes.Count(loadtest.Accepted))
	return err
}

// startWorker starts a worker that gives way to the door on this machine, if none runs.
func (b *bench) startWorker(ctx context.Context, d *doors) (err error) {
	if d.worker == nil {
		d.worker, err = b.serve(ctx, "worker", "worker", "--give-way")
	}
	return err
}

func (b *bench) stopWorker(d *doors) error {
	err := d.worker.stop()
	d.worker = nil
	return err
}

// acceptedAndConfirmed is (b) with every role at work, and (f): the same orders
// from the first request to the last confirmation.
func (b *bench) acceptedAndConfirmed(ctx context.Context, d *doors) error {
	sale, tickets, err := b.freshSale(ctx, d.door.urls[0], "instant")
	if err != nil {
		return err
	}
	sent := messagesSent(ctx, d.door)
	start := time.Now()
	res, err := b.press(ctx, d.door.urls[0], sale, tickets)
	if err != nil {
		return err
	}
	if err := b.note("(b)", res.Rate(loadtest.Accepted), &res); err != nil {
		return err
	}
	end, err := b.waitRest(ctx, sale, res.Outcomes.Count(loadtest.Accepted))
	if err != nil {
		return err
	}
	b.lastOrders = end.Orders
	if n := messagesSent(ctx, d.door) - sent; n > 0 {
		b.lastGroup = max(1, int(float64(end.Orders)/n+0.5))
		b.add("group", float64(end.Orders)/n)
	}
	b.add("(f)", float64(end.Confirmed)/end.Last.Sub(start).Seconds())
	b.say("%-16s %9.0f/s  %d confirmed", "(f)", float64(end.Confirmed)/end.Last.Sub(start).Seconds(), end.Confirmed)
	return nil
}

// acceptedSingly is (c): a call and a message per request, every role at work.
func (b *bench) acceptedSingly(ctx context.Context, d *doors) error {
	sale, tickets, err := b.freshSale(ctx, d.single.urls[0], "instant")
	if err != nil {
		return err
	}
	res, err := b.press(ctx, d.single.urls[0], sale, tickets)
	if err != nil {
		return err
	}
	if err := b.note("(c)", res.Rate(loadtest.Accepted), &res); err != nil {
		return err
	}
	if _, err := b.waitRest(ctx, sale, res.Outcomes.Count(loadtest.Accepted)); err != nil {
		return err
	}
	return b.stopWorker(d)
}

// acceptedGreedily is (b) with a worker that takes all it can get meanwhile. It
// leaves no worker: the next round begins without one.
func (b *bench) acceptedGreedily(ctx context.Context, d *doors) (err error) {
	if d.worker, err = b.serve(ctx, "worker", "worker"); err != nil {
		return err
	}
	sale, tickets, err := b.freshSale(ctx, d.door.urls[0], "instant")
	if err != nil {
		return err
	}
	res, err := b.press(ctx, d.door.urls[0], sale, tickets)
	if err != nil {
		return err
	}
	if err := b.note("(b) greedy", res.Rate(loadtest.Accepted), &res); err != nil {
		return err
	}
	if _, err := b.waitRest(ctx, sale, res.Outcomes.Count(loadtest.Accepted)); err != nil {
		return err
	}
	return b.stopWorker(d)
}

// soldOut is (d): everybody hears that nothing is left.
func (b *bench) soldOut(ctx context.Context, d *doors) error {
	const few = 10_000
	url := d.door.urls[0]
	sale, err := b.newSale(ctx, url, "instant", 1)
	if err != nil {
		return err
	}
	tickets, err := b.mint(sale, few)
	if err != nil {
		return err
	}
	first, err := loadtest.RunClosed(ctx, loadtest.PressConfig{
		URLs: []string{url}, Sale: sale, Basket: basket(), Tickets: tickets[:1], Connections: 1, Duration: b.plan.press,
	})
	if err != nil || first.Outcomes.Count(loadtest.Accepted) != 1 {
		return errors.Join(err, fmt.Errorf("the only unit was not sold: %v", first.Outcomes))
	}
	res, err := b.press(ctx, url, sale, tickets[1:])
	if err != nil {
		return err
	}
	return b.note("(d)", res.Rate(loadtest.SoldOut), &res)
}

// freshSale is a sale with plenty of stock and enough distinct buyers.
func (b *bench) freshSale(ctx context.Context, url, provider string) (engine.SaleID, []loadtest.Ticket, error) {
	sale, err := b.newSale(ctx, url, provider, plenty)
	if err != nil {
		return "", nil, err
	}
	tickets, err := b.mint(sale, b.plan.tickets)
	return sale, tickets, err
}

// note adds a value to a series and keeps what else was answered, so that a
// figure bought with refusals is seen.
func (b *bench) note(name string, value float64, res *loadtest.PressResult) error {
	if value <= 0 {
		return fmt.Errorf("%w: %v, %d errors %s", errNothing, res.Outcomes, res.Errors, res.Error)
	}
	b.add(name, value)
	b.say("%-16s %9.0f/s  %v", name, value, counts(res))
	return nil
}

func counts(res *loadtest.PressResult) map[string]int64 {
	out := map[string]int64{}
	for class, q := range res.Outcomes {
		out[class] = q.Count
	}
	if res.Errors > 0 {
		out["errors"] = res.Errors
	}
	return out
}
