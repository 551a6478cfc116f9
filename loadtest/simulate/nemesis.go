package simulate

import (
	"iter"
	"maps"
	"slices"
	"time"

	"github.com/doorbuster/doorbuster/engine"
)

// nemesis decides when the large faults come.
func (w *world) nemesis() {
	for range 2 + w.rng.IntN(6) {
		w.after(w.between(time.Second, troubleFor-time.Second), w.strike)
	}
}

func (w *world) strike() {
	if w.healed {
		return
	}
	long := w.between(500*time.Millisecond, 6*time.Second)
	switch w.rng.IntN(22) {
	case 0, 1, 2:
		if w.broker.safe() {
			w.redis.lose()
		}
	case 3:
		w.redis.restart()
	case 4:
		w.broker.outage(long)
	case 5:
		w.db.outage(long / 2)
	case 6:
		w.bank.outage(long)
	case 7, 8:
		w.stop(long)
	case 9, 10:
		w.broker.hold(long)
		w.after(long-time.Millisecond, func() { w.broker.purge() })
	case 11, 12, 13: // what was accepted meets another epoch
		w.broker.hold(2 * long)
		w.after(w.between(0, long), func() {
			if !w.healed && w.broker.safe() {
				w.redis.lose()
			}
		})
	case 14, 15:
		w.count("script flush")
		w.tell("script flush")
		w.redis.m.FlushScripts()
	case 16, 17:
		if w.broker.safe() {
			w.redis.promote()
		}
	case 18:
		w.jump(&w.redis.skew, 20*time.Second, "clock of redis jumps")
	case 19:
		w.jump(&w.db.skew, 3*time.Second, "clock of db jumps")
	case 20:
		w.broker.vanish()
	default:
		if w.plan.durable && w.redis.careless == 0 {
			w.count("redis answers before it writes")
			w.tell("redis answers before it writes")
			w.redis.careless = w.now
		}
	}
}

// stop lets a process stand still.
func (w *world) stop(d time.Duration) {
	p := w.processes[w.rng.IntN(len(w.processes))]
	w.count("process stopped")
	w.tell("%s stands still for %s", p.name, d.Round(time.Millisecond))
	p.stopped = w.now + int64(d)
}

// jump sets a clock, mostly by less than a sale must bear.
func (w *world) jump(skew *time.Duration, most time.Duration, what string) {
	if w.rng.IntN(2) == 0 {
		most = 900 * time.Millisecond
	}
	w.db.latest = max(w.db.latest, w.db.time().UnixNano())
	*skew = w.between(-most, most)
	w.jumped = true
	w.count(what)
	w.tell("%s: it is %s off now", what, *skew)
}

// oneOf yields one of the orders, if there is one.
func oneOf[V any](w *world, m map[engine.OrderID]V) iter.Seq2[engine.OrderID, V] {
	return func(yield func(engine.OrderID, V) bool) {
		if ids := slices.Sorted(maps.Keys(m)); len(ids) > 0 {
			id := ids[w.rng.IntN(len(ids))]
			yield(id, m[id])
		}
	}
}
