package simulate

import (
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/doorbuster/doorbuster/engine"
	"github.com/doorbuster/doorbuster/stock"
)

// more goes on with a story that is at rest, if there is more to it: first the rest is
// sold (law 11), then all that was ever sent comes again (law 13).
func (w *world) more() bool {
	if w.plan.rush && !w.rushed {
		w.rushed = true
		if w.rush() {
			return true
		}
	}
	if w.plan.replays && !w.replayed {
		w.replayed = true
		if w.replay() {
			return true
		}
	}
	return false
}

// rush brings as many buyers as there are units left in the sales that are open.
func (w *world) rush() (some bool) {
	for _, s := range w.shops {
		watch, err := w.redis.m.Watch(w.ctx, s.id, 0)
		if err != nil || w.db.m.State(s.id) != engine.SaleOpen || (w.redis.skew-w.db.skew).Abs() > nearlyApart || watch.State != engine.SaleOpen || watch.Now < watch.Opens || watch.Now+60_000 > watch.Closes {
			continue
		}
		s.rushed = true
		for i, sku := range s.skus {
			n := slices.IndexFunc(watch.Items, func(it stock.Item) bool { return it.SKU == sku })
			for j := range watch.Items[n].Available {
				w.late(s, i, strconv.Itoa(i)+"-"+strconv.FormatInt(j, 10))
				some = true
			}
		}
		for _, d := range s.doors {
			w.wake(d.watch, 0)
		}
	}
	return some
}

// late is a buyer of one unit who came when all was over.
func (w *world) late(s *shop, item int, name string) {
	w.count("late buyer")
	def, _, _ := w.db.m.Sale(w.ctx, s.id)
	cl := newClient(w, 0)
	cl.shop, cl.buyer, cl.basket = s, engine.BuyerID("late"+name), basket{}
	cl.basket[item] = 1
	for _, it := range def.Items {
		cl.prices[slices.Index(s.skus[:], it.SKU)] = it.Price
	}
	cl.ask.Ticket.Sale, cl.ask.Ticket.Buyer, cl.ask.Ticket.Identities = s.id, cl.buyer, nil
	cl.choose("late-" + name)
	w.crowd.join(w, "late"+name, func(a *actor) {
		cl.a = a
		a.wait(w.between(time.Second, 3*time.Second)) // a door must see its lease renewed
		if !cl.buy() {
			w.laws.breaks("law 11: %s found nothing, though there was a unit for him", cl.buyer)
		}
	})
}

// replay sends every message again, three times, and applies again what was applied, in
// any order. Nothing may change (law 13).
func (w *world) replay() bool {
	for _, s := range w.shops {
		if def, _, _ := w.db.m.Sale(w.ctx, s.id); slices.Contains(over, def.State) || s.pruned || w.now+int64(time.Minute) > def.Closes.Sub(dawn).Nanoseconds() ||
			len(w.broker.sent) == 0 {
			return false // what comes to it wakes it, or makes tombstones that were pruned, and so changes it
		}
		if !w.steady(s) {
			return false
		}
	}
	w.laws.before = w.standing()
	bodies := slices.Repeat(w.broker.sent, replays)
	w.rng.Shuffle(len(bodies), func(i, j int) { bodies[i], bodies[j] = bodies[j], bodies[i] })
	for i, body := range bodies {
		w.after(time.Duration(i)*time.Millisecond, func() { w.broker.deliver(body) })
	}
	for range replays * len(w.laws.moves) {
		again := w.laws.moves[w.rng.IntN(len(w.laws.moves))]
		_, _ = w.redis.m.Apply(w.ctx, again.sale, again.grip, again.moves) // of another epoch it is refused
	}
	w.faults["message again"] += len(bodies)
	return true
}

// steady tells whether the clocks leave the state of a sale alone: recovery pauses one, in
// Redis and then in PostgreSQL, when they are apart, and that is no work of replays.
func (w *world) steady(s *shop) bool {
	f, _ := w.db.m.Fence(w.ctx, s.id)
	watch, _ := w.redis.m.Watch(w.ctx, s.id, 0)
	paused := f.State == engine.SalePaused && watch.State == engine.SalePaused && f.Version == watch.Version
	return paused || (w.redis.skew-w.db.skew).Abs() < nearlyApart
}

const replays = 3

var over = []engine.SaleState{engine.SaleClosed, engine.SaleSettled}

// applied is a call of the applier that was done.
type applied struct {
	sale  engine.SaleID
	grip  stock.Grip
	moves []engine.Move
}

func (l *laws) applied(sale engine.SaleID, g stock.Grip, moves []engine.Move) {
	if l.w.plan.replays {
		l.moves = append(l.moves, applied{sale, g, slices.Clone(moves)})
	}
}

// standing is all that replays must leave as it is, a line for each thing.
func (w *world) standing() []string {
	lines := slices.DeleteFunc(w.db.m.Dump(), func(line string) bool { return strings.HasPrefix(line, "move ") })
	for _, s := range w.shops {
		watch, _ := w.redis.m.Watch(w.ctx, s.id, 0)
		inUse := ":" + strconv.FormatInt(watch.Epoch, 10) + ":"
		for key, fields := range w.redis.m.State(s.id) {
			if !strings.Contains(key, inUse) {
				continue
			}
			for _, f := range slices.Sorted(maps.Keys(fields)) {
				if f != "hb" && f != "lag" {
					lines = append(lines, key+" "+f+" "+fields[f])
				}
			}
		}
	}
	slices.Sort(lines)
	return lines
}

// same is law 13.
func (l *laws) same() {
	if !l.w.replayed || l.before == nil {
		return
	}
	after := l.w.standing()
	for _, line := range after {
		if _, was := slices.BinarySearch(l.before, line); !was {
			l.breaks("law 13: replays made %q", line)
		}
	}
	if len(after) != len(l.before) {
		l.breaks("law 13: %d things were, and after replays are %d", len(l.before), len(after))
	}
}
