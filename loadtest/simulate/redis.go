package simulate

import (
	"context"
	"errors"
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
}

func newRedis(w *world) *redis {
	r := &redis{service: service{w: w, name: "redis", odds: odds{.006, .012, .006, .008}}}
	r.skew = w.between(-90*time.Millisecond, 90*time.Millisecond)
	r.m = stock.NewModel(func() int64 { return w.time().Add(r.skew).UnixMilli() })
	return r
}

// write is a call that changes keys.
func (r *redis) write(ctx context.Context, op string, effect func() error) error {
	return r.call(ctx, op, writes, func() error {
		err := effect()
		r.w.laws.stock()
		if r.w.rng.IntN(8) == 0 {
			if len(r.pictures) == maxPictures {
				r.pictures = slices.Delete(r.pictures, 0, 1)
			}
			r.pictures = append(r.pictures, r.m.Picture())
		}
		return err
	})
}

// restart ends the server's process. Without loss its keys are still there.
func (r *redis) restart() {
	r.m.Restart()
	r.again("restart of redis")
}

// lose restarts the server without what it wrote last, or empty.
func (r *redis) lose() {
	if n := len(r.pictures); n > 0 && r.w.rng.IntN(4) > 0 {
		r.m.LoseSince(r.pictures[r.w.rng.IntN(n)])
		r.again("redis loses a suffix")
		return
	}
	r.m.Lose()
	r.again("redis loses everything")
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
			ctx := context.Background()
			server, _ := r.m.Server(ctx, saleID)
			inc, _ := w.db.m.Incarnation(ctx, server.RunID)
			if loaded, _ := r.m.Loaded(ctx, saleID, inc); !loaded {
				inc, _ = w.db.m.RaiseIncarnation(ctx, server.RunID, inc)
			}
			_ = r.m.Load(ctx, saleID, inc)
			w.tell("another sale loads the scripts of incarnation %d", inc)
		})
	}
}

func (r *redis) Watch(ctx context.Context, sale engine.SaleID, epoch int64) (w stock.Watch, err error) {
	var out stock.Watch
	err = r.call(ctx, "watch", reads, func() (err error) { out, err = r.m.Watch(ctx, sale, epoch); return err })
	if err != nil {
		return stock.Watch{}, err
	}
	return out, nil
}

func (r *redis) Reserve(ctx context.Context, sale engine.SaleID, g stock.Grip, baskets []engine.Basket, d *stock.Decision) error {
	return r.reserve(ctx, "reserve", baskets, d, func(b []engine.Basket, d *stock.Decision) error {
		return r.m.Reserve(ctx, sale, g, b, d)
	})
}

func (r *redis) Retake(ctx context.Context, sale engine.SaleID, g stock.Grip, baskets []engine.Basket, d *stock.Decision) error {
	return r.reserve(ctx, "retake", baskets, d, func(b []engine.Basket, d *stock.Decision) error {
		return r.m.Retake(ctx, sale, g, b, d)
	})
}

// reserve keeps what the caller will use again out of a call that may come late.
func (r *redis) reserve(ctx context.Context, op string, baskets []engine.Basket, d *stock.Decision,
	script func([]engine.Basket, *stock.Decision) error,
) error {
	var own stock.Decision
	baskets = slices.Clone(baskets)
	err := r.write(ctx, op, func() error {
		err := script(baskets, &own)
		for i := range own.Verdicts {
			if r.w.story == nil {
				break
			}
			r.w.tell("  %s %s %s hold %s", op, baskets[i].Order[:6], own.Verdicts[i].Outcome, own.Verdicts[i].Hold)
		}
		return err
	})
	d.At, d.First, d.Verdicts = 0, 0, d.Verdicts[:0]
	if err == nil {
		d.At, d.First, d.Verdicts = own.At, own.First, append(d.Verdicts, own.Verdicts...)
	}
	return err
}

func (r *redis) Apply(ctx context.Context, sale engine.SaleID, g stock.Grip, moves []engine.Move) (taken []int64, err error) {
	var out []int64
	err = r.write(ctx, "apply", func() (err error) { out, err = r.m.Apply(ctx, sale, g, moves); return err })
	if err != nil {
		return nil, err
	}
	return out, nil
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
	return r.write(ctx, "mark", func() error { return r.m.Mark(ctx, sale, epoch, entries) })
}

func (r *redis) Prune(ctx context.Context, sale engine.SaleID, g stock.Grip, ids []engine.OrderID) (n int64, err error) {
	err = r.write(ctx, "prune", func() (err error) { n, err = r.m.Prune(ctx, sale, g, ids); return err })
	return n, err
}

func (r *redis) SetState(ctx context.Context, sale engine.SaleID, g stock.Grip, state engine.SaleState) error {
	return r.write(ctx, "set state", func() error { return r.m.SetState(ctx, sale, g, state) })
}

func (r *redis) Redefine(ctx context.Context, sale engine.SaleID, g stock.Grip, def engine.Sale) error {
	return r.write(ctx, "redefine", func() error { return r.m.Redefine(ctx, sale, g, def) })
}

func (r *redis) SetLag(ctx context.Context, sale engine.SaleID, g stock.Grip, ms int64) error {
	return r.write(ctx, "set lag", func() error { return r.m.SetLag(ctx, sale, g, ms) })
}

func (r *redis) Retire(ctx context.Context, sale engine.SaleID, epoch int64, keep time.Duration) error {
	return r.write(ctx, "retire", func() error { return r.m.Retire(ctx, sale, epoch, keep) })
}

func (r *redis) Freeze(ctx context.Context, sale engine.SaleID, epoch int64) error {
	return r.write(ctx, "freeze", func() error { return r.m.Freeze(ctx, sale, epoch) })
}

func (r *redis) Beat(ctx context.Context, sale engine.SaleID, epoch int64) error {
	return r.write(ctx, "beat", func() error { return r.m.Beat(ctx, sale, epoch) })
}

// Build is refused if the server restarted while it ran, as Store.Build is.
func (r *redis) Build(ctx context.Context, img stock.Image) error {
	before, err := r.Server(ctx, img.Sale.ID)
	if err != nil {
		return err
	}
	return r.write(ctx, "build", func() error {
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
	return r.write(ctx, "script load", func() error { return r.m.Load(ctx, sale, incarnation) })
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
	return r.write(ctx, "drop epoch", func() error { return r.m.DropEpoch(ctx, sale, epoch) })
}

// holds tells whether some epoch has a record of the order.
func (r *redis) holds(id engine.OrderID) bool {
	ctx := context.Background()
	epochs, err := r.m.Epochs(ctx, saleID)
	for _, epoch := range epochs {
		recs, _, _ := r.m.Records(ctx, saleID, epoch, 0)
		if slices.ContainsFunc(recs, func(rec engine.Record) bool { return rec.Order.Order == id }) {
			return true
		}
	}
	return err != nil && !errors.Is(err, stock.ErrNoSale)
}
