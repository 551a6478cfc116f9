package simulate

import (
	"context"
	"errors"
	"iter"
	"time"
)

// never is the wait of an actor that only another wakes.
const never = time.Duration(1<<63 - 1)

// crashed unwinds the stack of an actor that is no more.
type crashed struct{}

// actor is one who acts, in a coroutine that others had before.
type actor struct {
	w    *world
	p    *process // nil: it cannot die
	name string
	body func(a *actor)
	co   *coroutine // from its first turn to its last

	turn int64 // of the event that will wake it; older ones do not count
	dead bool
	done bool
}

// spawn begins an actor of p, which runs with its first turn.
func (w *world) spawn(p *process, name string, body func(a *actor)) *actor {
	a := &actor{w: w, p: p, name: name, body: body}
	if p != nil {
		p.actors = append(p.actors, a)
	}
	w.actors = append(w.actors, a)
	w.at(a, w.between(0, 50*time.Millisecond))
	return a
}

// resume gives an actor the turn, and returns for how long it then waits. false: it is
// at its end.
func (a *actor) resume() (time.Duration, bool) {
	if a.co == nil {
		a.co = a.w.stage.coroutine()
		a.co.a = a
	}
	d, ok := a.co.next()
	if a.done || !ok {
		a.co.a = nil
		a.w.stage.idle = append(a.w.stage.idle, a.co)
		a.co = nil
		return 0, false
	}
	return d, true
}

// end unwinds an actor that waits somewhere.
func (a *actor) end() {
	a.dead = true
	for !a.done && a.co != nil {
		a.resume()
	}
}

// wait gives up the turn for at least d.
func (a *actor) wait(d time.Duration) {
	if a.dead {
		panic(crashed{})
	}
	if d != never && a.w.goesOn(a, d) {
		return
	}
	if !a.co.yield(d) || a.dead {
		a.dead = true
		panic(crashed{})
	}
}

// goesOn tells whether an actor that waits for d is also the next to act, and if so makes
// it his turn, as step would have: so it is mostly, and to switch coroutines twice costs
// more than all else about a wait. Where it says no it has changed nothing that counts.
func (w *world) goesOn(a *actor, d time.Duration) bool {
	t := w.now + int64(d)
	if a != w.cur || w.looks(t, w.steps+1) || a.p != nil && t < a.p.stopped {
		return false
	}
	for len(w.events) > 0 && w.events[0].at <= t {
		if e := &w.events[0]; e.a == nil || !e.stale() {
			return false
		}
		w.events.pop()
	}
	a.turn++
	w.rng.Uint64() // the tie of the event that this would have been
	w.now = t
	w.steps++
	return true
}

// stale tells whether it is the turn of one who is no more, or was woken sooner.
func (e *event) stale() bool { return e.a.dead || e.a.done || e.turn != e.a.turn }

// coroutine runs one actor after another: a new one for each would have to grow its
// stack each time.
type coroutine struct {
	a     *actor
	next  func() (time.Duration, bool)
	stop  func()
	yield func(time.Duration) bool
}

func (s *stage) coroutine() *coroutine {
	if n := len(s.idle); n > 0 {
		c := s.idle[n-1]
		s.idle = s.idle[:n-1]
		return c
	}
	c := &coroutine{}
	c.next, c.stop = iter.Pull(func(yield func(time.Duration) bool) {
		c.yield = yield
		for {
			c.run()
			if !yield(never) {
				return
			}
		}
	})
	return c
}

func (c *coroutine) run() {
	defer func() {
		c.a.done = true
		if r := recover(); r != nil && r != any(crashed{}) {
			panic(r)
		}
	}()
	c.a.body(c.a)
}

// park waits until another wakes this actor.
func (a *actor) park() { a.wait(never) }

// wake gives an actor its turn after d, unless it has one sooner.
func (w *world) wake(a *actor, d time.Duration) {
	if a != nil && !a.dead && !a.done && a != w.cur {
		w.at(a, d)
	}
}

// event is a turn of an actor, or something that happens by itself.
type event struct {
	at   int64 // virtual nanoseconds
	tie  uint64
	a    *actor
	turn int64
	do   func()
}

func (e *event) before(o *event) bool { return e.at < o.at || (e.at == o.at && e.tie < o.tie) }

// events is a heap: container/heap would cost two allocations an event.
type events []event

func (q *events) push(e event) {
	h := append(*q, e)
	i := len(h) - 1
	for i > 0 {
		up := (i - 1) / 2
		if !e.before(&h[up]) {
			break
		}
		h[i] = h[up]
		i = up
	}
	h[i] = e
	*q = h
}

func (q *events) pop() event {
	h := *q
	first, n := h[0], len(h)-1
	last := h[n]
	h[n] = event{}
	h = h[:n]
	for i := 0; n > 0; {
		child := 2*i + 1
		if child+1 < n && h[child+1].before(&h[child]) {
			child++
		}
		if child >= n || !h[child].before(&last) {
			h[i] = last
			break
		}
		h[i] = h[child]
		i = child
	}
	*q = h
	return first
}

func (w *world) at(a *actor, d time.Duration) {
	a.turn++
	w.events.push(event{at: w.now + int64(d), tie: w.rng.Uint64(), a: a, turn: a.turn})
}

// after lets something happen by itself.
func (w *world) after(d time.Duration, do func()) {
	w.events.push(event{at: w.now + int64(d), tie: w.rng.Uint64(), do: do})
}

// step runs the next event. It returns false if there is none.
func (w *world) step() bool {
	if len(w.events) == 0 {
		return false
	}
	e := w.events.pop()
	w.now = max(w.now, e.at)
	if e.a == nil {
		e.do()
		return true
	}
	a := e.a
	switch {
	case e.stale():
		return true
	case a.p != nil && w.now < a.p.stopped:
		w.at(a, time.Duration(a.p.stopped-w.now)+w.between(0, time.Millisecond))
		return true
	}
	w.cur = a
	d, ok := a.resume()
	w.cur = nil
	if ok && d != never {
		w.at(a, d)
	}
	w.steps++
	return true
}

// close ends every actor that is left.
func (w *world) close() {
	for _, a := range w.actors {
		a.end()
	}
	clear(w.events)
	w.stage.events = w.events[:0]
	for _, d := range w.stage.deadlines[:w.deadlines] {
		*d = deadline{end: d.end}
	}
}

// process is what actors share, and die with.
type process struct {
	w       *world
	name    string
	ctx     context.Context //nolint:containedctx // of all it does
	kill    context.CancelFunc
	actors  []*actor
	stopped int64 // stands still until then
	dead    bool
	boot    func(p *process)
}

// start begins a process, and begins it again some time after each crash.
func (w *world) start(name string, boot func(p *process)) {
	p := &process{w: w, name: name, boot: boot}
	p.ctx, p.kill = context.WithCancel(context.Background())
	for i := range w.processes {
		if w.processes[i].name == name {
			w.processes[i] = p
			boot(p)
			return
		}
	}
	w.processes = append(w.processes, p)
	boot(p)
}

// crash kills a process at once. An actor of it that has the turn must end it.
func (w *world) crash(p *process) {
	if p.dead {
		return
	}
	p.dead = true
	w.count("crash")
	w.tell("%s dies", p.name)
	for _, a := range p.actors {
		a.dead = true
	}
	w.after(0, func() {
		p.kill()
		for _, a := range p.actors {
			a.end()
		}
		w.broker.gone(p)
	})
	w.after(w.between(100*time.Millisecond, 3*time.Second), func() { w.start(p.name, p.boot) })
}

// die kills the process of the actor that has the turn.
func (w *world) die() {
	if w.cur != nil && w.cur.p != nil {
		w.crash(w.cur.p)
		panic(crashed{})
	}
}

// sleep is what the house waits by.
func (w *world) sleep(ctx context.Context, d time.Duration) bool {
	if ctx.Err() != nil {
		return false
	}
	w.cur.wait(max(d, 0))
	return ctx.Err() == nil
}

// deadline is a context that ends by the time of the story.
type deadline struct {
	context.Context
	w     *world
	until int64
	over  bool // its caller has ended it
	end   context.CancelFunc
}

func (d *deadline) Err() error {
	switch err := d.Context.Err(); {
	case err != nil:
		return err
	case d.over:
		return context.Canceled
	case d.w.now >= d.until:
		return context.DeadlineExceeded
	}
	return nil
}

// within takes a deadline that was in another story, if there is one: there are a thousand
// in each.
func (w *world) within(ctx context.Context, most time.Duration) (context.Context, context.CancelFunc) {
	all := &w.stage.deadlines
	if w.deadlines == len(*all) {
		d := &deadline{}
		d.end = func() { d.over = true }
		*all = append(*all, d)
	}
	d := (*all)[w.deadlines]
	w.deadlines++
	d.Context, d.w, d.until, d.over = ctx, w, w.now+int64(most), false
	return d, d.end
}

// gone returns ctx's error if somebody ended it. A deadline does not cut off a call: how
// long that takes is the nemesis' to say.
func gone(ctx context.Context) error {
	if err := ctx.Err(); errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}
