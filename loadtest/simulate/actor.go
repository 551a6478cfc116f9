package simulate

import (
	"container/heap"
	"context"
	"errors"
	"iter"
	"time"
)

// never is the wait of an actor that only another wakes.
const never = time.Duration(1<<63 - 1)

// crashed unwinds the stack of an actor that is no more.
type crashed struct{}

// actor is a coroutine.
type actor struct {
	w    *world
	p    *process // nil: it cannot die
	name string

	next  func() (time.Duration, bool)
	end   func()
	yield func(time.Duration) bool

	turn int64 // of the event that will wake it; older ones do not count
	dead bool
	done bool
}

// spawn begins an actor of p, which runs with its first turn.
func (w *world) spawn(p *process, name string, body func(a *actor)) *actor {
	a := &actor{w: w, p: p, name: name}
	a.next, a.end = iter.Pull(func(yield func(time.Duration) bool) {
		a.yield = yield
		defer func() {
			a.done = true
			if r := recover(); r != nil && r != any(crashed{}) {
				panic(r)
			}
		}()
		body(a)
	})
	if p != nil {
		p.actors = append(p.actors, a)
	}
	w.actors = append(w.actors, a)
	w.at(a, w.between(0, 50*time.Millisecond))
	return a
}

// wait gives up the turn for at least d.
func (a *actor) wait(d time.Duration) {
	if a.dead || !a.yield(d) || a.dead {
		a.dead = true
		panic(crashed{})
	}
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

type events []*event

func (e events) Len() int { return len(e) }
func (e events) Less(i, j int) bool {
	return e[i].at < e[j].at || (e[i].at == e[j].at && e[i].tie < e[j].tie)
}
func (e events) Swap(i, j int) { e[i], e[j] = e[j], e[i] }
func (e *events) Push(x any)   { *e = append(*e, x.(*event)) }
func (e *events) Pop() any {
	old := *e
	last := old[len(old)-1]
	old[len(old)-1] = nil
	*e = old[:len(old)-1]
	return last
}

func (w *world) at(a *actor, d time.Duration) {
	a.turn++
	var e *event
	if n := len(w.spare); n > 0 {
		e, w.spare = w.spare[n-1], w.spare[:n-1]
	} else {
		e = new(event)
	}
	*e = event{at: w.now + int64(d), tie: w.rng.Uint64(), a: a, turn: a.turn}
	heap.Push(&w.events, e)
}

// after lets something happen by itself.
func (w *world) after(d time.Duration, do func()) {
	heap.Push(&w.events, &event{at: w.now + int64(d), tie: w.rng.Uint64(), do: do})
}

// step runs the next event. It returns false if there is none.
func (w *world) step() bool {
	if len(w.events) == 0 {
		return false
	}
	e := heap.Pop(&w.events).(*event)
	w.now = max(w.now, e.at)
	if e.a == nil {
		e.do()
		return true
	}
	a, turn := e.a, e.turn
	w.spare = append(w.spare, e)
	switch {
	case a.dead, a.done, turn != a.turn:
		return true
	case a.p != nil && w.now < a.p.stopped:
		w.at(a, time.Duration(a.p.stopped-w.now)+w.between(0, time.Millisecond))
		return true
	}
	w.cur = a
	d, ok := a.next()
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
		a.dead = true
		a.end()
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
	if gone(ctx) != nil {
		return false
	}
	w.cur.wait(max(d, 0))
	return gone(ctx) == nil
}

// gone returns ctx's error if somebody ended it. Deadlines go by the real clock, and
// do not count.
func gone(ctx context.Context) error {
	if err := ctx.Err(); errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}
