package stock_test

import (
	"cmp"
	"context"
	"crypto/rand"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/doorbuster/doorbuster/engine"
	"github.com/doorbuster/doorbuster/engine/backing/backingtest"
	"github.com/doorbuster/doorbuster/stock"
)

// world is a Redis, or a Redis Cluster, on which the suite runs.
type world struct {
	rdb   redis.UniversalClient
	store *stock.Store
}

// shared is the Redis of `make test`.
func shared(t testing.TB) *world {
	t.Helper()
	return worldAt(t, backingtest.RedisURL(t))
}

func worldAt(t testing.TB, url string) *world {
	t.Helper()
	rdb, err := stock.Open(url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = rdb.Close() })
	return &world{rdb: rdb, store: stock.New(rdb)}
}

// tester is what a test, a benchmark and a rapid check have in common.
type tester interface {
	Helper()
	Fatal(args ...any)
	Fatalf(format string, args ...any)
	Cleanup(f func())
	Context() context.Context
}

// bundle is one sale in a world, with the model beside it.
type bundle struct {
	*world
	t     tester
	def   engine.Sale
	grip  stock.Grip
	model *stock.Model
	now   int64 // of the model, ms
}

// incarnation of the tests. It is loaded beside others' and never unloaded.
const incarnation = 4

// definition is a sale that sells two items for an hour to come.
func definition() engine.Sale {
	now := time.Now().UTC().Truncate(time.Second)
	return engine.Sale{
		ID: engine.SaleID("t-" + strings.ToLower(rand.Text()[:12])), State: engine.SaleScheduled, Version: 1, Currency: "KRW",
		Opens: now.Add(-time.Hour), Closes: now.Add(time.Hour), LimitPerBuyer: 2, LimitPerIdentity: 3,
		Items: []engine.Item{{SKU: "MUG", Price: 1500, Units: 10}, {SKU: "CAP.red", Price: 900, Units: 4}},
	}
}

// open builds and loads the sale, changed by edit, in the world and the model.
func (w *world) open(t tester, edit func(*engine.Sale)) *bundle {
	t.Helper()
	b := &bundle{world: w, t: t, def: definition()}
	if edit != nil {
		edit(&b.def)
	}
	b.model = stock.NewModel(func() int64 { return b.now })
	b.build(stock.Image{Sale: b.def, Epoch: 1, Incarnation: incarnation})
	t.Cleanup(func() {
		ctx := context.Background()
		for epoch := range int64(9) {
			for _, k := range []string{"st", "o", "b", "i", "ob", "rows", "w"} {
				w.rdb.Unlink(ctx, fmt.Sprintf("s:{%s}:%d:%s", b.def.ID, epoch, k))
			}
		}
		w.rdb.Unlink(ctx, "s:{"+string(b.def.ID)+"}")
	})
	return b
}

// build builds and loads an epoch in both, and takes its grip.
func (b *bundle) build(img stock.Image) {
	b.t.Helper()
	ctx := b.t.Context()
	must(b.t, b.store.Build(ctx, img))
	must(b.t, b.model.Build(ctx, img))
	must(b.t, b.store.Load(ctx, b.def.ID, img.Incarnation))
	must(b.t, b.model.Load(ctx, b.def.ID, img.Incarnation))
	b.watch()
}

// watch reads the watch of both, compares them, and takes the grip.
func (b *bundle) watch() stock.Watch {
	b.t.Helper()
	w, err := b.store.Watch(b.t.Context(), b.def.ID, b.grip.Epoch)
	must(b.t, err)
	b.now = w.Now
	m, err := b.model.Watch(b.t.Context(), b.def.ID, 0)
	must(b.t, err)
	equal(b.t, "watch", w, m)
	b.grip = w.Grip
	return w
}

// reserve decides a group in both and compares what they say.
func (b *bundle) reserve(baskets ...engine.Basket) stock.Decision {
	b.t.Helper()
	return b.decide(b.store.Reserve, b.model.Reserve, baskets)
}

func (b *bundle) retake(baskets ...engine.Basket) stock.Decision {
	b.t.Helper()
	return b.decide(b.store.Retake, b.model.Retake, baskets)
}

// apart is how far Redis' clock may be from the model's, in seconds, when a move is
// applied: the model goes by what the last reply told.
const apart = 60

type reserveFunc func(context.Context, engine.SaleID, stock.Grip, []engine.Basket, *stock.Decision) error

func (b *bundle) decide(store, model reserveFunc, baskets []engine.Basket) stock.Decision {
	b.t.Helper()
	var got, want stock.Decision
	must(b.t, store(b.t.Context(), b.def.ID, b.grip, baskets, &got))
	b.now = got.At
	must(b.t, model(b.t.Context(), b.def.ID, b.grip, baskets, &want))
	for i := range want.Verdicts {
		f, m := got.Verdicts[i].Record.Finished, &want.Verdicts[i].Record.Finished
		if d := f - *m; f != 0 && *m != 0 && max(d, -d) <= apart {
			*m = f
		}
	}
	equal(b.t, "verdicts", got.Verdicts, want.Verdicts)
	equal(b.t, "first", got.First, want.First)
	b.same()
	return got
}

// apply applies moves in both.
func (b *bundle) apply(moves ...engine.Move) []int64 {
	b.t.Helper()
	got, err := b.store.Apply(b.t.Context(), b.def.ID, b.grip, moves)
	must(b.t, err)
	want, err := b.model.Apply(b.t.Context(), b.def.ID, b.grip, moves)
	must(b.t, err)
	equal(b.t, "taken", got, want)
	b.same()
	return got
}

// same compares the whole state of the sale with the model's.
func (b *bundle) same() {
	b.t.Helper()
	store, model := b.dump(), flat(b.model.State(b.def.ID))
	if d := diff(model, store); len(d) > 0 {
		b.t.Fatalf("model → Redis:\n%s", strings.Join(d, "\n"))
	}
}

// finished is the time at the end of a tombstone: the one thing the clock decides
// that no reply tells.
var finished = regexp.MustCompile(`^(1[SR]\|[^|]*\|[^|]*\|)\d+$`)

// dump reads all keys of the sale as "key field" → value.
func (b *bundle) dump() map[string]string {
	b.t.Helper()
	ctx, out := b.t.Context(), map[string]map[string]string{}
	pointer := "s:{" + string(b.def.ID) + "}"
	hash := func(key string) {
		m, err := b.rdb.HGetAll(ctx, key).Result()
		must(b.t, err)
		out[key] = m
	}
	hash(pointer)
	for field := range out[pointer] {
		epoch, ok := strings.CutPrefix(field, "e:")
		if !ok {
			continue
		}
		for _, k := range []string{"st", "o", "b", "i", "rows"} {
			hash(pointer + ":" + epoch + ":" + k)
		}
		key := pointer + ":" + epoch + ":ob"
		entries, err := b.rdb.XRange(ctx, key, "-", "+").Result()
		must(b.t, err)
		out[key] = map[string]string{}
		for _, e := range entries {
			out[key][e.ID] = e.Values["e"].(string)
		}
	}
	return flat(out)
}

func flat(keys map[string]map[string]string) map[string]string {
	out := map[string]string{}
	for key, fields := range keys {
		_, short, _ := strings.Cut(key, "}")
		for field, value := range fields {
			out[short+" "+field] = finished.ReplaceAllString(value, "${1}T")
		}
	}
	return out
}

// diff tells what changed: "key field: old → new", "-" for a field that is not
// there, in order of the key.
func diff(before, after map[string]string) []string {
	var out []string
	all := maps.Clone(before)
	maps.Copy(all, after)
	for _, k := range slices.SortedFunc(maps.Keys(all), cmp.Compare[string]) {
		old, had := before[k]
		now, has := after[k]
		if !had {
			old = "-"
		}
		if !has {
			now = "-"
		}
		if old != now {
			out = append(out, fmt.Sprintf("%s: %s → %s", k, old, now))
		}
	}
	return out
}

// changes runs f and compares what it changed, %d in which is the time of the
// last call, with want.
func (b *bundle) changes(f func(), want ...string) {
	b.t.Helper()
	before := b.dump()
	f()
	got := diff(before, b.dump())
	for i := range want {
		want[i] = strings.ReplaceAll(want[i], "%d", fmt.Sprint(b.now))
	}
	if !slices.Equal(got, want) {
		b.t.Fatalf("changed:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// orderID is the n-th order id.
func orderID(n int) engine.OrderID {
	return engine.OrderID(fmt.Sprintf("%s%s", strings.Repeat("a", 20), strings.Map(func(r rune) rune { return r - '0' + 'b' }, fmt.Sprintf("%06d", n))))
}

// basket is what the buyer asks for under his n-th order id; each line is "SKU" or
// "SKU*quantity", at the price of definition.
func basket(n int, buyer string, lines ...string) engine.Basket {
	b := engine.Basket{Order: orderID(n), Buyer: engine.BuyerID(buyer)}
	prices := map[engine.SKU]int64{"MUG": 1500, "CAP.red": 900}
	for _, l := range lines {
		sku, quantity, _ := strings.Cut(l, "*")
		line := engine.Line{SKU: engine.SKU(sku), Quantity: 1, Price: prices[engine.SKU(sku)]}
		if quantity != "" {
			if _, err := fmt.Sscan(quantity, &line.Quantity); err != nil {
				panic(err)
			}
		}
		b.Lines = append(b.Lines, line)
		b.Total += line.Quantity * line.Price
	}
	b.Body = engine.BodyHash(b.Lines, b.Total, "KRW")
	return b
}

// with adds identities.
func with(b engine.Basket, ids ...byte) engine.Basket {
	for _, id := range ids {
		b.Identities = append(b.Identities, engine.Identity{0, '|', '\n', 255, 0, 0, 0, id})
	}
	return b
}

// move is the release row that ends the order under that hold.
func move(id int64, op engine.MoveOp, b engine.Basket, hold engine.Hold) engine.Move {
	return engine.Move{
		ID: id, Op: op, Order: b.Order, Hold: hold, Buyer: b.Buyer, Identities: b.Identities, Lines: b.Lines, Body: b.Body,
	}
}

// stockMove is a restock or withdraw.
func stockMove(id int64, op engine.MoveOp, sku engine.SKU, n int64) engine.Move {
	return engine.Move{ID: id, Op: op, Lines: []engine.Line{{SKU: sku, Quantity: n}}}
}

func outcomes(d stock.Decision) string {
	var s strings.Builder
	for _, v := range d.Verdicts {
		s.WriteByte(byte(v.Outcome))
	}
	return s.String()
}

func must(t tester, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func equal(t tester, what string, got, want any) {
	t.Helper()
	if g, w := fmt.Sprintf("%+v", got), fmt.Sprintf("%+v", want); g != w {
		t.Fatalf("%s:\n got %s\nwant %s", what, g, w)
	}
}
