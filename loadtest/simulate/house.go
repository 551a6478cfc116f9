package simulate

import (
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/doorbuster/doorbuster/engine/door"
	"github.com/doorbuster/doorbuster/engine/recovery"
	"github.com/doorbuster/doorbuster/engine/relay"
	"github.com/doorbuster/doorbuster/payment"
	"github.com/doorbuster/doorbuster/payment/provider"
)

// How many of each process there are.
const (
	doors      = 2
	workers    = 2
	recoveries = 2
	lanes      = 2 // of each door and each worker

	settleAfter = 8 * time.Second
)

// registry takes every metric and shows none.
type registry struct{}

func (registry) Register(prometheus.Collector) error  { return nil }
func (registry) MustRegister(...prometheus.Collector) {}
func (registry) Unregister(prometheus.Collector) bool { return true }

// house starts every process.
func (w *world) house() {
	for i := range doors {
		w.start(fmt.Sprint("door", i), func(p *process) {
			for _, s := range w.shops {
				s.doors[i] = newDoorway(p, s)
			}
		})
	}
	for i := range workers {
		w.start(fmt.Sprint("worker", i), w.worker)
	}
	w.start("relay", w.relay)
	for i := range recoveries {
		w.start(fmt.Sprint("recovery", i), w.recovery)
	}
}

// pace is how long a poll waits: longer when the end is near, where nothing changes.
func (w *world) pace(d time.Duration) time.Duration {
	if w.healed && w.crowd.over() {
		d *= 2
	}
	return w.jitter(d)
}

var orderKey = []byte("an order key of the simulation, 32 bytes")

// doorway is a door and who waits in front of it.
type doorway struct {
	p     *process
	steps *door.Steps
	queue []*visit
	lanes []*actor
	watch *actor
}

func newDoorway(p *process, s *shop) *doorway {
	w := p.w
	steps, err := door.NewSteps(door.Config{
		Stock: w.redis, Publisher: w.broker, OrderKeys: map[int][]byte{1: orderKey}, Registerer: registry{}, CheckDurable: w.redis.CheckDurable,
	}, s.id, door.Clock{Now: func() int64 { return w.now + 1 }, Sleep: func(d time.Duration) { w.cur.wait(d) }, Within: w.within}, w.stage.door)
	if err != nil {
		panic(err)
	}
	d := &doorway{p: p, steps: steps}
	d.watch = w.spawn(p, p.name+"/watch", func(a *actor) {
		for {
			d.steps.Watch(p.ctx)
			if w.crowd.over() {
				a.park() // nobody asks for the sale any more
			}
			a.wait(w.between(100*time.Millisecond, 500*time.Millisecond))
		}
	})
	for i := range lanes {
		d.lanes = append(d.lanes, w.spawn(p, fmt.Sprint(p.name, "/lane", i), d.serve))
	}
	return d
}

// serve decides group after group.
func (d *doorway) serve(a *actor) {
	var asks []door.Ask
	for {
		if len(d.queue) == 0 {
			a.park()
			continue
		}
		n := min(len(d.queue), 1+d.p.w.rng.IntN(4))
		group := d.queue[:n:n]
		d.queue = d.queue[n:]
		asks = asks[:0]
		for _, v := range group {
			asks = append(asks, v.ask)
		}
		said := d.steps.Group(asks)
		if a.dead {
			panic(crashed{}) // a group catches every panic
		}
		for i, v := range group {
			v.answer(&said[i])
		}
	}
}

func (w *world) worker(p *process) {
	c := conn{database: w.db}
	steps, err := payment.NewSteps(payment.Config{
		Orders: c, Stock: w.redis, Ledger: c, Providers: map[string]provider.Provider{"bank": w.bank}, Registerer: registry{},
	}, payment.Clock{Now: w.time, Sleep: w.sleep, Jitter: w.jitter, Within: w.within}, w.stage.worker)
	if err != nil {
		panic(err)
	}
	payer := w.spawn(p, p.name+"/pay", func(a *actor) {
		for {
			if n, err := steps.Pay(p.ctx); n == 0 || err != nil {
				a.wait(w.pace(900 * time.Millisecond))
			}
		}
	})
	capturer := w.spawn(p, p.name+"/capture", func(a *actor) {
		for {
			if n, err := steps.Capture(p.ctx); n == 0 || err != nil {
				a.wait(w.pace(1500 * time.Millisecond))
			}
		}
	})
	for i := range lanes {
		lane := steps.Lane(p.ctx)
		w.spawn(p, fmt.Sprint(p.name, "/ingest", i), func(a *actor) {
			for {
				msgs := w.broker.take(p)
				if len(msgs) == 0 {
					w.broker.waiting = append(w.broker.waiting, a)
					a.wait(w.pace(5 * time.Second))
					continue
				}
				lane.Ingest(msgs)
				w.wake(payer, 0)
				w.wake(capturer, w.between(0, time.Second))
			}
		})
	}
	if w.plan.checkout {
		w.spawn(p, p.name+"/expire", func(a *actor) {
			for {
				if n, err := steps.Expire(p.ctx); err == nil && n > 0 {
					w.faults["hold expired"] += n
				}
				a.wait(w.pace(time.Second))
			}
		})
	}
	lane := steps.Lane(p.ctx)
	w.spawn(p, p.name+"/unpark", func(a *actor) {
		for {
			more, err := lane.Unpark()
			if !more || err != nil {
				a.wait(w.pace(time.Second))
			}
		}
	})
}

func (w *world) relaying() *relay.Relay {
	return relay.New(relay.Config{Stock: w.redis, Publisher: w.broker, Registerer: registry{}, InFlight: 1, Now: w.time})
}

func (w *world) relay(p *process) {
	r := w.relaying()
	for _, s := range w.shops {
		w.spawn(p, p.name, func(a *actor) {
			for {
				_, _ = r.Pass(p.ctx, s.id)
				a.wait(w.pace(900 * time.Millisecond))
			}
		})
	}
}

func (w *world) recovery(p *process) {
	c := conn{database: w.db}
	w.db.serial++
	steps := recovery.NewSteps(recovery.Config{
		Stock: w.redis, Pulse: w.redis, Orders: c, Lead: leader{w.db, fmt.Sprint(p.name, ".", w.db.serial)},
		Publisher: w.broker, Drainer: w.relaying(), Registerer: registry{}, Now: w.time, SettleAfter: settleAfter,
	}, recovery.StepsClock{Sleep: w.sleep, Within: w.within}, w.stage.recovery)
	jobs, pulses := make([]*recovery.Jobs, len(w.shops)), make([]*actor, len(w.shops))
	var round *actor
	round = w.spawn(p, p.name+"/round", func(a *actor) {
		for {
			_, _ = steps.Round(p.ctx)
			for i, s := range w.shops {
				if jobs[i] == nil || jobs[i].Over() {
					if jobs[i] = steps.Jobs(s.id); jobs[i] != nil {
						pulses[i] = w.lead(p, steps, jobs[i], func() { w.wake(round, 0) })
					}
				}
				if jobs[i] != nil {
					w.wake(pulses[i], 0)
				}
			}
			a.wait(w.between(450*time.Millisecond, 550*time.Millisecond))
		}
	})
}

// lead begins the jobs of one lead. It returns the actor that raises the heartbeat.
func (w *world) lead(p *process, steps *recovery.Steps, jobs *recovery.Jobs, sound func()) (pulse *actor) {
	name := fmt.Sprint(p.name, "/", jobs.Lead(), "/")
	pulse = w.spawn(p, name+"beat", func(a *actor) {
		for !jobs.Over() {
			jobs.Beat()
			a.park()
		}
	})
	w.spawn(p, name+"probe", func(a *actor) {
		for !jobs.Over() {
			found, err := jobs.Probe()
			if found != recovery.Sound || err != nil {
				w.tell("probe: %q %v", string(found), err)
			}
			switch {
			case steps.Nudged():
				sound()
				a.wait(time.Second)
			case jobs.Doubted():
				a.wait(100 * time.Millisecond)
			case err != nil:
				a.wait(w.between(50*time.Millisecond, time.Second))
			default:
				a.wait(w.pace(1400 * time.Millisecond))
			}
		}
	})
	w.spawn(p, name+"apply", func(a *actor) {
		for !jobs.Over() {
			if c, err := jobs.Apply(); err == nil && c.Marked > 0 {
				a.wait(w.between(10*time.Millisecond, 50*time.Millisecond))
				continue
			}
			a.wait(w.pace(800 * time.Millisecond))
		}
	})
	w.spawn(p, name+"tidy", func(a *actor) {
		for !jobs.Over() {
			a.wait(w.between(7500*time.Millisecond, 12500*time.Millisecond))
			_, _ = jobs.Sweep()
		}
	})
	return pulse
}
