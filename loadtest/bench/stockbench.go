package bench

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/doorbuster/doorbuster/engine"
	"github.com/doorbuster/doorbuster/stock"
)

const (
	// groupsInFlight is how many calls of a sale a door has under way. Single calls
	// get callsInFlight: with four they wait for the network, not for Redis.
	groupsInFlight = 4
	callsInFlight  = 32
	markEvery      = 32 // calls whose outbox entries are deleted together, as the door does
	incarnation    = 1
)

// inFlight is how many calls of this group size are under way at once.
func inFlight(group int) int {
	if group >= engine.MaxGroup/4 {
		return groupsInFlight
	}
	return callsInFlight
}

// slot is a sale that exists in Redis alone.
type slot struct {
	sale engine.SaleID
	grip stock.Grip
}

// newSlot makes the keys of a sale that PostgreSQL does not know.
func (b *bench) newSlot(ctx context.Context, sale engine.SaleID, units int64) (slot, error) {
	now := time.Now()
	err := b.stock.Build(ctx, stock.Image{Epoch: 1, Incarnation: incarnation, Sale: engine.Sale{
		ID: sale, State: engine.SaleOpen, Version: 1, Currency: currency,
		Opens: now.Add(-time.Minute), Closes: now.Add(saleLasts), LimitPerBuyer: 4,
		Items: []engine.Item{{SKU: sku, Price: price, Units: units}},
	}})
	if err != nil {
		return slot{}, err
	}
	if err := b.stock.Load(ctx, sale, incarnation); err != nil {
		return slot{}, err
	}
	w, err := b.stock.Watch(ctx, sale, 1)
	return slot{sale: sale, grip: w.Grip}, err
}

func randomSale() engine.SaleID {
	return engine.SaleID("bench-" + strings.ToLower(rand.Text()[:8]))
}

// scanCount is how many keys Redis looks at per call of a scan.
const scanCount = 1000

// drop deletes every key whose hash tag begins with prefix. Stock does not drop
// an epoch that is in use, and it must not: nobody else may forget a sale.
func (b *bench) drop(ctx context.Context, prefix string) error {
	keys := b.rdb.Scan(ctx, 0, "*{"+prefix+"*", scanCount).Iterator()
	for keys.Next(ctx) {
		if err := b.rdb.Unlink(ctx, keys.Val()).Err(); err != nil {
			return err
		}
	}
	return keys.Err()
}

// stockRounds is (e): every group size once per round, with appendfsync everysec
// and then always.
func (b *bench) stockRounds(ctx context.Context) (err error) {
	was, err := b.rdb.ConfigGet(ctx, "appendfsync").Result()
	if err != nil {
		return err
	}
	defer func() {
		err = errors.Join(err, b.rdb.ConfigSet(context.WithoutCancel(ctx), "appendfsync", was["appendfsync"]).Err())
	}()
	for range b.cfg.Pairs {
		for _, fsync := range []string{"everysec", "always"} {
			if err := b.rdb.ConfigSet(ctx, "appendfsync", fsync).Err(); err != nil {
				return err
			}
			for _, size := range b.plan.groups {
				if err := b.reservations(ctx, fsync, size); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func (b *bench) reservations(ctx context.Context, fsync string, size int) error {
	s, err := b.newSlot(ctx, randomSale(), plenty)
	if err != nil {
		return err
	}
	start := time.Now()
	n, err := b.reserve(ctx, s, reserving{size: size, until: start.Add(b.plan.stock)})
	took := time.Since(start)
	if err := errors.Join(err, b.drop(ctx, string(s.sale))); err != nil {
		return err
	}
	name := fmt.Sprintf("(e) %s %d", fsync, size)
	b.add(name, float64(n)/took.Seconds())
	b.say("%-16s %9.0f/s", name, float64(n)/took.Seconds())
	return nil
}

// reserving says how long groups are sent: until a time, or a number of baskets.
type reserving struct {
	size  int
	until time.Time
	most  int64 // baskets; 0 is no bound
	want  engine.Outcome
}

// reserve sends groups of distinct buyers and returns how many baskets were
// answered. An outcome other than the one wanted (0: accepted) is an error.
func (b *bench) reserve(ctx context.Context, s slot, r reserving) (int64, error) {
	if r.want == 0 {
		r.want = engine.Accepted
	}
	ids := newIDs()
	var next, done atomic.Int64
	var failed atomic.Pointer[error]
	var all sync.WaitGroup
	for range inFlight(r.size) {
		all.Go(func() {
			g := groups{bench: b, slot: s, ids: ids, reserving: r, baskets: make([]engine.Basket, r.size)}
			for failed.Load() == nil && time.Now().Before(r.until) && (r.most == 0 || done.Load() < r.most) {
				if err := g.one(ctx, int(next.Add(int64(r.size)))-r.size); err != nil {
					failed.CompareAndSwap(nil, &err)
					return
				}
				done.Add(int64(r.size))
			}
		})
	}
	all.Wait()
	if err := failed.Load(); err != nil {
		return 0, *err
	}
	return done.Load(), nil
}

// groups is one sender of reserve.
type groups struct {
	*bench
	slot
	*ids
	reserving
	baskets  []engine.Basket
	decision stock.Decision
	entries  []int64
}

func (g *groups) one(ctx context.Context, from int) error {
	for i := range g.baskets {
		g.baskets[i] = g.ids.basket(from + i)
	}
	if err := g.stock.Reserve(ctx, g.sale, g.grip, g.baskets, &g.decision); err != nil {
		return err
	}
	for i := range g.decision.Verdicts {
		if v := &g.decision.Verdicts[i]; v.Outcome != g.want {
			return fmt.Errorf("reserve: a basket was answered %s, want %s", v.Outcome, g.want)
		}
	}
	if g.decision.First == 0 {
		return nil
	}
	if g.entries = append(g.entries, g.decision.First); len(g.entries) < markEvery {
		return nil
	}
	err := g.stock.Mark(ctx, g.sale, g.grip.Epoch, g.entries)
	g.entries = g.entries[:0]
	return err
}
