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
	for range 2 + w.rng.IntN(5) {
		w.after(w.between(time.Second, troubleFor-time.Second), w.strike)
	}
}

func (w *world) strike() {
	if w.healed {
		return
	}
	long := w.between(500*time.Millisecond, 6*time.Second)
	switch w.rng.IntN(13) {
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
		p := w.processes[w.rng.IntN(len(w.processes))]
		w.count("process stopped")
		w.tell("%s stands still for %s", p.name, long.Round(time.Millisecond))
		p.stopped = w.now + int64(long)
	case 9, 10:
		w.broker.hold(long)
		w.after(long-time.Millisecond, w.broker.purge)
	default: // what was accepted meets another epoch
		w.broker.hold(2 * long)
		w.after(w.between(0, long), func() {
			if !w.healed && w.broker.safe() {
				w.redis.lose()
			}
		})
	}
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
