package stock_test

import (
	"errors"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/doorbuster/doorbuster/engine"
	"github.com/doorbuster/doorbuster/stock"
)

func standings(t *testing.T, w *world) {
	t.Helper()
	b := w.open(t, nil)
	ctx, id := t.Context(), b.def.ID
	b.reserve(with(basket(1, "ann", "MUG"), 9), basket(2, "bob", "MUG"), basket(3, "ann", "MUG"))
	for buyer, orders := range map[engine.BuyerID]int64{"ann": 2, "bob": 1, "cy": 0} {
		got, err := b.store.Standing(ctx, id, buyer)
		must(t, err)
		equal(t, string(buyer), got, stock.Standing{Epoch: 1, Seq: 3, Now: orders})
	}
	if _, err := b.store.Standing(ctx, "t-nowhere", "ann"); !errors.Is(err, stock.ErrNoSale) {
		t.Errorf("no sale: %v", err)
	}
	held := func(buyer engine.BuyerID) map[engine.OrderID]engine.BuyerID {
		recs, next, err := b.store.HeldOf(ctx, id, stock.Slice{Epoch: 1}, func(name engine.BuyerID) bool { return name == buyer })
		must(t, err)
		equal(t, "cursor", next, 0)
		got := map[engine.OrderID]engine.BuyerID{}
		for i := range recs {
			got[recs[i].Order.Order] = recs[i].Order.Buyer
		}
		return got
	}
	equal(t, "held by ann", held("ann"), map[engine.OrderID]engine.BuyerID{orderID(1): "ann", orderID(3): "ann"})
	equal(t, "held by an", held("an"), map[engine.OrderID]engine.BuyerID{})
	equal(t, "held by nobody", held(""), map[engine.OrderID]engine.BuyerID{})
}

func TestOpenPool(t *testing.T) {
	t.Parallel()
	for url, size := range map[string]func(redis.UniversalClient) int{
		"redis://127.0.0.1:1/0":                     func(c redis.UniversalClient) int { return c.(*redis.Client).Options().PoolSize },
		"redis://127.0.0.1:1,127.0.0.1:2":           func(c redis.UniversalClient) int { return c.(*redis.ClusterClient).Options().PoolSize },
		"redis://127.0.0.1:1?pool_size=99,[::1]:12": func(c redis.UniversalClient) int { return c.(*redis.ClusterClient).Options().PoolSize },
	} {
		c, err := stock.OpenPool(url, 3)
		if err != nil || size(c) != 3 {
			t.Errorf("%s: %v", url, err)
			continue
		}
		_ = c.Close()
	}
}
