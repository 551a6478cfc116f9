package stock_test

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/doorbuster/doorbuster/engine"
	"github.com/doorbuster/doorbuster/stock"
)

// TestClusterSuite runs the whole suite on a Redis Cluster of three masters:
// every key is passed, and all keys of a sale lie in one slot.
func TestClusterSuite(t *testing.T) {
	t.Parallel()
	w := worldAt(t, startCluster(t))
	for _, s := range suite {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			s.run(t, w)
		})
	}
	t.Run("SpreadAndMove", func(t *testing.T) {
		t.Parallel()
		spreadAndMove(t, w)
	})
}

// spreadAndMove has sales on every master, moves one sale's slot to another
// master, and sells on: the scripts are loaded there, the client follows.
func spreadAndMove(t *testing.T, w *world) {
	t.Helper()
	ctx, cluster := t.Context(), w.rdb.(*redis.ClusterClient)
	runs := map[string]string{}
	var b *bundle
	for range 20 {
		b = w.open(t, nil)
		srv, err := w.store.Server(ctx, b.def.ID)
		must(t, err)
		runs[srv.RunID] = string(b.def.ID)
		equal(t, "outcomes", outcomes(b.reserve(basket(1, "ann", "MUG"))), "A")
	}
	if len(runs) != 3 {
		t.Fatalf("20 sales lie on %d masters", len(runs))
	}
	key := "s:{" + string(b.def.ID) + "}"
	slot := int(cluster.ClusterKeySlot(ctx, key).Val())
	from, err := cluster.MasterForKey(ctx, key)
	must(t, err)
	var to *redis.Client
	for _, name := range runs {
		if c, err := cluster.MasterForKey(ctx, "s:{"+name+"}"); err == nil && c.Options().Addr != from.Options().Addr {
			to = c
		}
	}
	moveSlot(t, cluster, slot, [2]*redis.Client{from, to})
	_, err = w.store.Watch(ctx, b.def.ID, 1) // and so the client learns where the slot is now
	must(t, err)
	equal(t, "outcomes", outcomes(b.reserve(basket(1, "ann", "MUG"), basket(2, "ann", "MUG"))), "HA")
}

// moveSlot gives a slot with its keys to another master, where the scripts are
// known already.
func moveSlot(t *testing.T, cluster *redis.ClusterClient, slot int, way [2]*redis.Client) {
	t.Helper()
	from, to := way[0], way[1]
	ctx := t.Context()
	id := func(c *redis.Client) string { return c.Do(ctx, "cluster", "myid").Val().(string) }
	fromID, toID := id(from), id(to)
	must(t, to.Do(ctx, "cluster", "setslot", slot, "importing", fromID).Err())
	must(t, from.Do(ctx, "cluster", "setslot", slot, "migrating", toID).Err())
	host, port, _ := strings.Cut(to.Options().Addr, ":")
	for _, key := range from.ClusterGetKeysInSlot(ctx, slot, 100).Val() {
		must(t, from.Migrate(ctx, host, port, key, 0, time.Second).Err())
	}
	must(t, to.Do(ctx, "cluster", "setslot", slot, "node", toID).Err())
	must(t, cluster.ForEachMaster(ctx, func(ctx context.Context, c *redis.Client) error {
		return c.Do(ctx, "cluster", "setslot", slot, "node", toID).Err()
	}))
}

// TestRestart kills Redis and starts it again: the data is there, the scripts are
// not, and nothing is sold until the next epoch is built under another
// incarnation.
func TestRestart(t *testing.T) {
	t.Parallel()
	srv := startRedis(t)
	w := worldAt(t, srv.url())
	b := w.open(t, nil)
	x := basket(1, "ann", "MUG")
	hold := b.reserve(x).Verdicts[0].Hold
	before, err := w.store.Server(t.Context(), b.def.ID)
	must(t, err)
	srv.kill()
	var d stock.Decision
	ask := func() error { return w.store.Reserve(t.Context(), b.def.ID, b.grip, []engine.Basket{x}, &d) }
	if err := ask(); err == nil || errors.Is(err, stock.ErrFenced) {
		t.Errorf("Redis is down: %v", err)
	}
	srv.start(t)
	eventually(t, "Redis is back", func() error { _, err := w.store.Server(t.Context(), b.def.ID); return err })
	if after, err := w.store.Server(t.Context(), b.def.ID); err != nil || after.RunID == before.RunID {
		t.Errorf("run id %v, %v", after, err)
	}
	b.same() // nothing was lost
	if err := ask(); !errors.Is(err, stock.ErrFenced) {
		t.Errorf("after the restart: %v", err)
	}
	if ok, err := w.store.Loaded(t.Context(), b.def.ID, incarnation); ok || err != nil {
		t.Errorf("loaded: %t %v", ok, err)
	}
	must(t, w.store.Load(t.Context(), b.def.ID, incarnation+1)) // for another sale
	if err := ask(); !errors.Is(err, stock.ErrFenced) {
		t.Errorf("with another sale's scripts loaded: %v", err)
	}
	must(t, w.store.Freeze(t.Context(), b.def.ID, 1))
	must(t, b.model.Freeze(t.Context(), b.def.ID, 1))
	order := engine.Order{Basket: x, Hold: hold, AcceptedAt: 5, LimitBuyer: 2}
	b.build(stock.Image{Sale: b.def, Epoch: 2, Incarnation: incarnation + 1, Live: []stock.LiveOrder{{Order: order}}})
	equal(t, "outcomes", outcomes(b.reserve(x, basket(2, "ann", "MUG"), basket(3, "ann", "MUG"))), "HAL")
}

// TestFullMemory has a Redis without room: the script is refused before it begins,
// and nothing was written.
func TestFullMemory(t *testing.T) {
	t.Parallel()
	w := worldAt(t, startRedis(t).url())
	b := w.open(t, nil)
	must(t, w.rdb.ConfigSet(t.Context(), "maxmemory", "1mb").Err())
	b.changes(func() {
		var d stock.Decision
		if err := w.store.Reserve(t.Context(), b.def.ID, b.grip, []engine.Basket{basket(1, "ann", "MUG")}, &d); err == nil {
			t.Error("took a unit without memory for it")
		}
	})
	must(t, w.rdb.ConfigSet(t.Context(), "maxmemory", "0").Err())
	equal(t, "outcomes", outcomes(b.reserve(basket(1, "ann", "MUG"))), "A")
}

// usedMemory is what Redis' data takes, in bytes, without its clients' buffers.
func usedMemory(t testing.TB, w *world) int64 {
	t.Helper()
	info, err := w.rdb.Info(t.Context(), "memory").Result()
	must(t, err)
	for _, line := range strings.Split(info, "\r\n") {
		if v, ok := strings.CutPrefix(line, "used_memory_dataset:"); ok {
			n, err := strconv.ParseInt(v, 10, 64)
			must(t, err)
			return n
		}
	}
	t.Fatalf("no used_memory_dataset in %s", info)
	return 0
}

// fill takes units for buyers of their own until there are orders of them.
func fill(t testing.TB, b *bundle, orders int) {
	t.Helper()
	must(t, runLane(b, 0, orders/engine.MaxGroup, engine.MaxGroup))
}

// TestMemoryPerOrder measures what an accepted order costs: record, counter of its
// buyer, its share of the tables; the outbox is marked.
func TestMemoryPerOrder(t *testing.T) {
	t.Parallel()
	const most = 300 // bytes; the promise is 400
	const orders = 100 << 10
	w := worldAt(t, startRedis(t).url())
	b := w.open(t, func(s *engine.Sale) { s.Items[0].Units = engine.MaxUnits })
	before := usedMemory(t, w)
	fill(t, b, orders)
	per := (usedMemory(t, w) - before) / orders
	t.Logf("%d bytes per accepted order", per)
	if per > most {
		t.Errorf("%d bytes per accepted order, want at most %d", per, most)
	}
}

// TestMemoryFlat refuses half a million tries, each for another order and buyer
// and from every cause, and finds not a key, field or entry more.
func TestMemoryFlat(t *testing.T) {
	t.Parallel()
	w := worldAt(t, startRedis(t).url())
	b := w.open(t, func(s *engine.Sale) { s.Items[0].Units = 1; s.Items[1].Units = 1000 })
	b.reserve(with(basket(1, "first", "MUG"), 1))
	before := b.dump()
	refuse := func(n int) {
		names := newNames(9)
		baskets := make([]engine.Basket, engine.MaxGroup)
		kinds := []engine.Basket{
			basket(0, "x", "MUG"), basket(0, "x", "MUG", "CAP.red"), basket(0, "x", "HAT"),
			basket(0, "x", "CAP.red*3"), with(basket(0, "x", "CAP.red"), 1, 2), with(basket(0, "x", "MUG"), 3),
		}
		kinds[4].Lines[0].Quantity, kinds[4].Total = 3, 2700
		var d stock.Decision
		for range n / engine.MaxGroup {
			for j := range baskets {
				baskets[j] = kinds[j%len(kinds)]
				baskets[j].Order, baskets[j].Buyer = names.next()
			}
			must(t, w.store.Reserve(t.Context(), b.def.ID, b.grip, baskets, &d))
			if d.First != 0 {
				t.Fatal("one was accepted")
			}
		}
	}
	refuse(50 << 10) // buffers and caches grow to their size
	memory := usedMemory(t, w)
	refuse(500 << 10)
	equal(t, "changes", diff(before, b.dump()), []string(nil))
	if more := usedMemory(t, w) - memory; more > 64<<10 {
		t.Errorf("%d bytes more after half a million refused tries", more)
	}
}

// TestCallsOfAGroup counts what one script call costs: a group of 256 makes about
// as many calls of Redis as a group of one.
func TestCallsOfAGroup(t *testing.T) {
	t.Parallel()
	w := worldAt(t, startRedis(t).url())
	b := w.open(t, func(s *engine.Sale) { s.Items[0].Units = 10_000 })
	calls := func() (n int64) {
		for _, line := range strings.Split(w.rdb.Info(t.Context(), "commandstats").Val(), "\r\n") {
			name, rest, _ := strings.Cut(line, ":calls=")
			if name == "cmdstat_info" || name == "cmdstat_evalsha" || rest == "" {
				continue
			}
			count, _, _ := strings.Cut(rest, ",")
			c, err := strconv.ParseInt(count, 10, 64)
			must(t, err)
			n += c
		}
		return n
	}
	var many []engine.Basket
	for i := range engine.MaxGroup {
		many = append(many, basket(i, fmt.Sprint("b", i), "MUG"))
	}
	var d stock.Decision
	before := calls()
	must(t, w.store.Reserve(t.Context(), b.def.ID, b.grip, many, &d))
	if n := calls() - before; n != 8 {
		t.Errorf("a group of 256 made %d calls", n)
	}
}
