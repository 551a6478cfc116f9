package bench

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"sync"
	"time"

	"github.com/doorbuster/doorbuster/loadtest"
	"github.com/doorbuster/doorbuster/loadtest/proxy"
)

// What makes the door's capacity so small that ten times of it can be offered here.
const (
	overloadGate  = 8                    // requests of a sale in flight
	overloadDelay = 5 * time.Millisecond // of what goes to Redis, and of what comes back
	overloadLines = 2048                 // connections of the crowd at most
	memoryEvery   = 200 * time.Millisecond
	calmShare     = 0.5 // of the capacity, before and after
)

// overloadTimes are how many times the capacity is offered, one after another.
var overloadTimes = []float64{1, 2, 5, 10}

func overloadName(times float64) string { return fmt.Sprintf("(k) %g×", times) }

// overload is (k): a door of a small capacity is offered up to ten times of it in open
// loop, and then half of it again.
func (b *bench) overload(ctx context.Context) (err error) {
	redis, err := url.Parse(b.cfg.Redis)
	if err != nil {
		return err
	}
	far, err := proxy.New(redis.Host)
	if err != nil {
		return err
	}
	defer far.Close()
	far.Set(proxy.Slow, overloadDelay)
	redis.Host = far.Addr()
	var d doors
	if d.back, err = b.serve(ctx, "back-overload", "recovery,relay,status"); err != nil {
		return err
	}
	d.door, err = b.startWith(ctx, append(append([]string(nil), b.cfg.Env...), "REDIS_URL="+redis.String()), "door-overload",
		serving("door", "--gate-max", fmt.Sprint(overloadGate))...)
	if err != nil {
		return err
	}
	if err := b.startWorker(ctx, &d); err != nil {
		return err
	}
	for i := range b.cfg.Pairs {
		if err := b.overloadRound(ctx, &d, uint64(i)+1); err != nil {
			return err
		}
	}
	// The door first: it must not lose its Redis before it has ended.
	return errors.Join(d.door.stop(), b.stopWorker(&d), d.back.stop())
}

// smallCapacity is what the door accepts a second in closed loop from as many buyers as
// its gate lets in.
func (b *bench) smallCapacity(ctx context.Context, d *doors) (float64, error) {
	sale, tickets, err := b.freshSale(ctx, d.door.urls[0], "instant")
	if err != nil {
		return 0, err
	}
	res, err := loadtest.RunClosed(ctx, loadtest.PressConfig{
		URLs: d.door.urls[:1], Sale: sale, Basket: basket(), Tickets: tickets, Connections: overloadGate,
		Duration: b.plan.press, Warm: b.plan.warm,
	})
	if err != nil {
		return 0, err
	}
	capacity := res.Rate(loadtest.Accepted)
	if err := b.note("(k) capacity", capacity, &res); err != nil {
		return 0, err
	}
	_, err = b.waitRest(ctx, sale, res.Outcomes.Count(loadtest.Accepted))
	return capacity, err
}

// overloadRound finds the capacity and offers times of it in one go.
func (b *bench) overloadRound(ctx context.Context, d *doors, seed uint64) error {
	capacity, err := b.smallCapacity(ctx, d)
	if err != nil {
		return err
	}
	c := b.course(capacity)
	due := loadtest.Arrivals(seed, c.paces...)
	sale, err := b.newSale(ctx, d.door.urls[0], "instant", plenty)
	if err != nil {
		return err
	}
	tickets, err := b.mint(sale, len(due))
	if err != nil {
		return err
	}
	watched, unwatch := context.WithCancel(ctx)
	var watching sync.WaitGroup
	watching.Go(func() { c.watch(watched, d.door) })
	samples, err := loadtest.RunArrivals(ctx, loadtest.PressConfig{
		URLs: d.door.urls[:1], Sale: sale, Basket: basket(), Tickets: tickets, Connections: overloadLines,
	}, due)
	unwatch()
	watching.Wait()
	if err := errors.Join(err, c.failed); err != nil {
		return err
	}
	if err := b.overloaded(c, samples); err != nil {
		return err
	}
	accepted := int64(0)
	for i := range samples {
		if samples[i].Class == loadtest.Accepted {
			accepted++
		}
	}
	_, err = b.waitRest(ctx, sale, accepted)
	return err
}

// course is what one round offers, and what the door's memory was meanwhile.
type course struct {
	warm   time.Duration // of each stretch, not counted
	paces  []loadtest.Pace
	memory []resident
	failed error
}

// resident is how much memory was in use, at a time of the course.
type resident struct {
	at    time.Duration
	bytes int64
}

func (b *bench) course(capacity float64) *course {
	c := &course{warm: b.plan.warm, paces: []loadtest.Pace{{Rate: calmShare * capacity, Lasts: b.plan.warm + b.plan.calm}}}
	for _, times := range overloadTimes {
		c.paces = append(c.paces, loadtest.Pace{Rate: times * capacity, Lasts: b.plan.warm + b.plan.overload})
	}
	c.paces = append(c.paces, loadtest.Pace{Rate: calmShare * capacity, Lasts: b.plan.warm + b.plan.calm})
	return c
}

// stretch is when pace i began, its warm-up left out, and when it ended.
func (c *course) stretch(i int) (from, to time.Duration) {
	for _, p := range c.paces[:i] {
		from += p.Lasts
	}
	return from + c.warm, from + c.paces[i].Lasts
}

// watch notes the door's memory until ctx ends.
func (c *course) watch(ctx context.Context, door *child) {
	began := time.Now()
	for pause(ctx, memoryEvery) {
		n, err := door.resident()
		if err != nil {
			c.failed = err
			return
		}
		c.memory = append(c.memory, resident{time.Since(began), n})
	}
}

// most is the largest memory seen in a stretch.
func (c *course) most(from, to time.Duration) (most int64) {
	for _, r := range c.memory {
		if r.at >= from && r.at < to {
			most = max(most, r.bytes)
		}
	}
	return most
}

// overloaded reads the figures off one round.
func (b *bench) overloaded(c *course, samples []loadtest.Sample) error {
	last := len(c.paces) - 1
	from, to := c.stretch(0)
	before, peak := loadtest.Sum(samples, from, to), 0.0
	b.tell("(k) before", before)
	b.add("(k) memory before", float64(c.most(from, to))/mib)
	for i, times := range overloadTimes {
		name := overloadName(times)
		from, to := c.stretch(1 + i)
		s := loadtest.Sum(samples, from, to)
		if s.Accepted == 0 {
			return fmt.Errorf("%s: %w: %v", name, errNothing, s.Heard)
		}
		b.tell(name, s)
		b.add(name+" offered", s.Offered)
		b.add(name+" goodput", s.Accepted)
		b.add(name+" p50", ms(s.P50))
		b.add(name+" p99", ms(s.P99))
		b.add(name+" refused p99", ms(s.Refused))
		b.add(name+" lag", ms(s.Lag))
		peak = max(peak, s.Accepted)
	}
	b.add("(k) peak", peak)
	from, end := c.stretch(last - 1)
	b.add("(k) memory 10×", float64(c.most(from, end))/mib)
	from, to = c.stretch(last)
	b.add("(k) memory after", float64(c.most(from, to))/mib)
	b.tell("(k) after", loadtest.Sum(samples, from, to))

	all := loadtest.Sum(samples, 0, to)
	b.add("(k) unheard", float64(all.Unheard+all.Broken+all.Heard["outcome-unknown"]))
	b.add("(k) untimed", float64(all.Untimed))
	normal, found := loadtest.Normal(samples, before, end, to)
	if !found {
		normal = to - end // it was not seen to end
	}
	b.add("(k) normal", ms(normal))
	b.say("%-16s normal after %v (%v), door %.1f, %.1f, %.1f MiB, %d without Retry-After", "(k)", normal, found,
		b.lastOf("(k) memory before"), b.lastOf("(k) memory 10×"), b.lastOf("(k) memory after"), all.Untimed)
	return nil
}

func (b *bench) lastOf(name string) float64 { return b.values[name][len(b.values[name])-1] }

func (b *bench) tell(name string, s loadtest.Stretch) {
	b.say("%-16s %9.0f/s of %.0f/s  p50 %v p99 %v, refused p99 %v, lag p99 %v, %v", name, s.Accepted, s.Offered,
		s.P50.Round(time.Microsecond), s.P99.Round(time.Microsecond), s.Refused.Round(time.Microsecond), s.Lag.Round(time.Microsecond), s.Heard)
}

func ms(d time.Duration) float64 { return d.Seconds() * 1000 }

// overloadFigures are the rows of (k).
func overloadFigures() []figure {
	rows := []figure{{
		key: "(k) capacity", name: "(k) capacity", unit: "/s",
		what: fmt.Sprintf("accepted in closed loop from %d buyers by a door with a gate of %d, Redis %v away each way", overloadGate, overloadGate, overloadDelay),
	}}
	for _, times := range overloadTimes {
		name := overloadName(times)
		rows = append(rows,
			figure{key: name + " offered", name: name, what: fmt.Sprintf("open loop at %g times that: requests due", times), unit: "/s"},
			figure{key: name + " goodput", name: name + " goodput", what: "of it accepted", unit: "/s"},
			figure{key: name + " p50", name: name + " p50", what: "time to a 202, from when it was due", unit: "ms"},
			figure{key: name + " p99", name: name + " p99", what: "time to a 202, from when it was due", unit: "ms"},
			figure{key: name + " refused p99", name: name + " refused p99", what: "time to a 503 or 429, likewise", unit: "ms"},
			figure{key: name + " lag", name: name + " lag", what: "of it: p99 from due to sent", unit: "ms"},
		)
	}
	return append(rows,
		figure{key: "(k) normal", name: "(k) normal", what: "from the end of 10× until half the capacity is answered as before it", unit: "ms", target: 2000, most: true},
		figure{key: "(k) unheard", name: "(k) unheard", what: "requests of a round that heard nothing, outcome-unknown or what no door says", unit: "requests"},
		figure{key: "(k) untimed", name: "(k) untimed", what: "503 and 429 of a round without Retry-After", unit: "answers"},
		figure{key: "(k) memory before", name: "(k) memory before", what: "most resident memory of the door at half the capacity", unit: "MiB"},
		figure{key: "(k) memory 10×", name: "(k) memory 10×", what: "the same at ten times the capacity", unit: "MiB"},
		figure{key: "(k) memory after", name: "(k) memory after", what: "the same afterwards, at half the capacity again", unit: "MiB"},
	)
}
