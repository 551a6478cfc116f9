package simulate

import (
	"context"
	"slices"
	"time"

	"github.com/doorbuster/doorbuster/engine"
	"github.com/doorbuster/doorbuster/stock"
)

// maxPictures is how many states of the disk are kept, to lose what came after.
const maxPictures = 6

// redis is the simulated Redis: stock.Model behind a network, on a disk that forgets.
type redis struct {
	service
	m        *stock.Model
	skew     time.Duration // of its clock
	pictures []stock.Picture
	glimpses []*glimpse
	handed   int64 // when a replica was last promoted
	careless int64 // since when it answers before it writes, in a durable story; 0: it does not
}

func newRedis(w *world) *redis {
	r := &redis{service: service{w: w, name: "redis", odds: odds{.006, .012, .006, .008}}}
	r.skew = w.between(-90*time.Millisecond, 90*time.Millisecond)
	r.m = stock.NewModel(func() int64 { return w.time().Add(r.skew).UnixMilli() })
	return r
}

// write is a call that changes keys.
func (r *redis) write(ctx context.Context, op string, sale engine.SaleID, effect func() error) error {
	return r.call(ctx, op, writes, func() error {
		err := effect()
		r.w.laws.stock(r.w.shop(sale))
		if r.w.rng.IntN(12) == 0 {
			r.picture()
		}
		return err
	})
}

func (r *redis) picture() {
	if len(r.pictures) == maxPictures {
		r.pictures = slices.Delete(r.pictures, 0, 1)
	}
	r.pictures = append(r.pictures, r.m.Picture())
}

// restart ends the server's process. Without loss its keys are still there.
func (r *redis) restart() {
	r.m.Restart()
	r.again("restart of redis")
}

// lose restarts the server without what it wrote last, or empty. A durable one has
// written what it said.
func (r *redis) lose() {
	n := len(r.pictures)
	switch {
	case r.w.plan.durable && n == 0:
		r.restart()
	case n > 0 && (r.w.plan.durable || r.w.rng.IntN(4) > 0):
		r.m.LoseSince(r.pictures[r.w.rng.IntN(n)])
		r.again("redis loses a suffix")
	default:
		r.m.Lose()
		r.again("redis loses everything")
	}
	r.w.laws.kept()
}

// handBack is how long it takes at least to hand over to where one came from: Redis
// Sentinel waits for minutes. Sooner, the replica is a process that was never master.
const handBack = 5 * time.Second

// promote hands over to a replica that lags behind.
func (r *redis) promote() {
	if r.w.plan.durable {
		return // it would wait for its replica
	}
	p := r.m.Picture()
	if n := len(r.pictures); n > 0 {
		p = r.pictures[r.w.rng.IntN(n)]
	}
	if r.w.now < r.handed+int64(handBack) {
		r.m.Renew()
	}
	r.handed = r.w.now
	r.m.Promote(p)
	r.again("replica promoted")
}

// CheckDurable is stock.Store.CheckDurable.
func (r *redis) CheckDurable(ctx context.Context, _ engine.SaleID) error {
	return r.call(ctx, "config get", reads, func() error {
		if r.careless > 0 {
			return stock.ErrNotDurable
		}
		return nil
	})
}

// again is what every restart does. Sometimes the recovery of another sale on this
// server is quicker, and loads the scripts.
func (r *redis) again(what string) {
	w := r.w
	r.life++
	r.pictures = nil
	w.count(what)
	w.tell("%s", what)
	r.down = w.now + int64(w.between(0, 2*time.Second))
	if w.rng.IntN(2) == 0 {
		w.after(w.between(0, 5*time.Second), func() {
			server, _ := r.m.Server(w.ctx, saleID)
			inc, _ := w.db.m.Incarnation(w.ctx, server.Name())
			if loaded, _ := r.m.Loaded(w.ctx, saleID, inc); !loaded {
				inc, _ = w.db.m.RaiseIncarnation(w.ctx, server.Name(), inc)
			}
			_ = r.m.Load(w.ctx, saleID, inc)
			w.tell("another sale loads the scripts of incarnation %d", inc)
		})
	}
}

func (r *redis) Watch(ctx context.Context, sale engine.SaleID, epoch int64) (w stock.Watch, err error) {
	var at *glimpse
	if n := len(r.glimpses); n > 0 {
		at, r.glimpses = r.glimpses[n-1], r.glimpses[:n-1]
	} else {
		at = &glimpse{r: r}
		at.effect = at.look
	}
	at.sale, at.epoch = sale, epoch
	if err = r.call(ctx, "watch", reads, at.effect); err != nil {
		return stock.Watch{}, err // it may still come late: at is not used again
	}
	w = at.seen
	r.glimpses = append(r.glimpses, at)
	return w, nil
}

// glimpse is a read of the watch. It is the call that is made most, so it is used again.
type glimpse struct {
	r      *redis
	sale   engine.SaleID
	epoch  int64
	seen   stock.Watch
	effect func() error // look
}

func (g *glimpse) look() (err error) {
	g.seen, err = g.r.m.Watch(g.r.w.ctx, g.sale, g.epoch)
	return err
}

func (r *redis) Reserve(ctx context.Context, sale engine.SaleID, g stock.Grip, baskets []engine.Basket, d *stock.Decision) error {
	return r.reserve(ctx, &taking{sale: sale, grip: g, baskets: slices.Clone(baskets)}, d)
}

func (r *redis) Retake(ctx context.Context, sale engine.SaleID, g stock.Grip, baskets []engine.Basket, d *stock.Decision) error {
	return r.reserve(ctx, &taking{sale: sale, grip: g, baskets: slices.Clone(baskets), retake: true}, d)
}

// taking is a call of the script that takes. It keeps what its caller will use again:
// it may come late.
type taking struct {
	sale    engine.SaleID
	grip    stock.Grip
	baskets []engine.Basket
	retake  bool

	said   stock.Decision
	unsafe bool
}

func (t *taking) name() string {
	if t.retake {
		return "retake"
	}
	return "reserve"
}

func (r *redis) take(t *taking) error {
	if t.retake {
		return r.m.Retake(r.w.ctx, t.sale, t.grip, t.baskets, &t.said)
	}
	return r.m.Reserve(r.w.ctx, t.sale, t.grip, t.baskets, &t.said)
}

func (r *redis) reserve(ctx context.Context, t *taking, d *stock.Decision) error {
	err := r.write(ctx, t.name(), t.sale, func() error {
		err := r.take(t)
		r.w.laws.taken(t, &t.said)
		switch {
		case err != nil || !t.grip.Safety.Durable || r.careless > 0:
		case r.w.chance(.03):
			t.unsafe = true
			r.w.count("not known to be on disk")
		default: // the answer says that all so far is on disk
			clear(r.pictures)
			r.pictures = r.pictures[:0]
			r.picture()
		}
		if r.w.story != nil {
			for i, v := range t.said.Verdicts {
				r.w.tell("  %s %s %s hold %s", t.name(), t.baskets[i].Order[:6], v.Outcome, v.Hold)
			}
		}
		return err
	})
	d.At, d.First, d.Verdicts = 0, 0, d.Verdicts[:0]
	if err != nil {
		return err
	}
	d.At, d.First, d.Verdicts = t.said.At, t.said.First, append(d.Verdicts, t.said.Verdicts...)
	if t.unsafe {
		return stock.ErrUnsafe
	}
	return nil
}

// Apply is a script for each kind of move, one after the other: it may be cut short
// between two of them.
func (r *redis) Apply(ctx context.Context, sale engine.SaleID, g stock.Grip, moves []engine.Move) ([]int64, error) {
	var out []int64
	err := r.write(ctx, "apply", sale, func() (err error) {
		some := moves
		if len(moves) > 1 && r.w.chance(.05) {
			last := moves[r.w.rng.IntN(len(moves))].Op
			some = slices.DeleteFunc(slices.Clone(moves), func(m engine.Move) bool { return m.Op > last })
		}
		out, err = r.m.Apply(ctx, sale, g, some)
		if err == nil && len(some) < len(moves) {
			r.w.count("apply cut short")
			err = errTimeout
		}
		if err == nil {
			r.w.laws.applied(sale, g, moves)
		}
		return err
	})
	return forget(out, err)
}

func (r *redis) Records(ctx context.Context, sale engine.SaleID, epoch int64, cursor uint64) (recs []engine.Record, next uint64, err error) {
	var out []engine.Record
	err = r.call(ctx, "records", reads, func() (err error) { out, _, err = r.m.Records(ctx, sale, epoch, cursor); return err })
	return out, 0, err
}

func (r *redis) Record(ctx context.Context, sale engine.SaleID, order engine.OrderID) (engine.Record, bool, error) {
	var rec engine.Record
	var found bool
	err := r.call(ctx, "record", reads, func() (err error) { rec, found, err = r.m.Record(ctx, sale, order); return err })
	return rec, found && err == nil, err
}

func (r *redis) Outbox(ctx context.Context, sale engine.SaleID, epoch int64, limit int) (entries []stock.Entry, length int64, err error) {
	var out []stock.Entry
	var n int64
	err = r.call(ctx, "outbox", reads, func() (err error) { out, n, err = r.m.Outbox(ctx, sale, epoch, limit); return err })
	return out, n, err
}

func (r *redis) Mark(ctx context.Context, sale engine.SaleID, epoch int64, entries []int64) error {
	entries = slices.Clone(entries)
	return r.write(ctx, "mark", sale, func() error { return r.m.Mark(ctx, sale, epoch, entries) })
}

func (r *redis) Prune(ctx context.Context, sale engine.SaleID, g stock.Grip, ids []engine.OrderID) (n int64, err error) {
	err = r.write(ctx, "prune", sale, func() (err error) {
		n, err = r.m.Prune(ctx, sale, g, ids)
		r.w.faults["tombstone pruned"] += int(n)
		r.w.shop(sale).pruned = r.w.shop(sale).pruned || n > 0
		return err
	})
	return n, err
}

func (r *redis) SetState(ctx context.Context, sale engine.SaleID, g stock.Grip, state engine.SaleState) error {
	return r.write(ctx, "set state", sale, func() error { return r.m.SetState(ctx, sale, g, state) })
}

func (r *redis) Redefine(ctx context.Context, sale engine.SaleID, g stock.Grip, def engine.Sale) error {
	return r.write(ctx, "redefine", sale, func() error { return r.m.Redefine(ctx, sale, g, def) })
}

func (r *redis) SetLag(ctx context.Context, sale engine.SaleID, g stock.Grip, ms int64) error {
	return r.write(ctx, "set lag", sale, func() error { return r.m.SetLag(ctx, sale, g, ms) })
}

func (r *redis) Retire(ctx context.Context, sale engine.SaleID, epoch int64, keep time.Duration) error {
	return r.write(ctx, "retire", sale, func() error {
		r.w.shop(sale).life = r.life
		return r.m.Retire(ctx, sale, epoch, keep)
	})
}

func (r *redis) Freeze(ctx context.Context, sale engine.SaleID, epoch int64) error {
	return r.write(ctx, "freeze", sale, func() error { return r.m.Freeze(ctx, sale, epoch) })
}

func (r *redis) Beat(ctx context.Context, sale engine.SaleID, epoch int64) error {
	return r.write(ctx, "beat", sale, func() error { return r.m.Beat(ctx, sale, epoch) })
}

// Build is refused if the server restarted while it ran, as Store.Build is.
func (r *redis) Build(ctx context.Context, img stock.Image) error {
	before, err := r.Server(ctx, img.Sale.ID)
	if err != nil {
		return err
	}
	return r.write(ctx, "build", img.Sale.ID, func() error {
		if now, _ := r.m.Server(ctx, img.Sale.ID); now != before {
			return stock.ErrFenced
		}
		return r.m.Build(ctx, img)
	})
}

func (r *redis) Loaded(ctx context.Context, sale engine.SaleID, incarnation int64) (loaded bool, err error) {
	err = r.call(ctx, "script exists", reads, func() (err error) { loaded, err = r.m.Loaded(ctx, sale, incarnation); return err })
	return loaded, err
}

func (r *redis) Load(ctx context.Context, sale engine.SaleID, incarnation int64) error {
	return r.write(ctx, "script load", sale, func() error { return r.m.Load(ctx, sale, incarnation) })
}

func (r *redis) Server(ctx context.Context, sale engine.SaleID) (srv stock.Server, err error) {
	err = r.call(ctx, "server", reads, func() (err error) { srv, err = r.m.Server(ctx, sale); return err })
	return srv, err
}

func (r *redis) Epochs(ctx context.Context, sale engine.SaleID) (epochs []int64, err error) {
	err = r.call(ctx, "epochs", reads, func() (err error) { epochs, err = r.m.Epochs(ctx, sale); return err })
	return epochs, err
}

func (r *redis) DropEpoch(ctx context.Context, sale engine.SaleID, epoch int64) error {
	return r.write(ctx, "drop epoch", sale, func() error { return r.m.DropEpoch(ctx, sale, epoch) })
}

// holds tells whether some epoch has a record of the order.
func (r *redis) holds(id engine.OrderID) bool {
	return slices.ContainsFunc(r.w.shops, func(s *shop) bool { return r.m.Holds(s.id, id) })
}
