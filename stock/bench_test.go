package stock_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/doorbuster/doorbuster/engine"
	"github.com/doorbuster/doorbuster/stock"
)

// lanes is how many calls of a sale are in flight, as at a door.
const lanes = 4

// BenchmarkReserve measures reservations per second by the size of the group:
// distinct buyers, plenty of stock, one sale, four calls in flight, a Redis of its
// own with AOF. Entries are marked, because a door does so too.
func BenchmarkReserve(b *testing.B) {
	for _, fsync := range []string{"everysec", "always"} {
		for _, size := range []int{1, 8, 64, 256} {
			b.Run(fmt.Sprintf("fsync=%s/group=%d", fsync, size), func(b *testing.B) {
				w := worldAt(b, startRedis(b, "--appendfsync", fsync, "--auto-aof-rewrite-percentage", "0").url())
				benchReserve(b, w, size)
			})
		}
	}
}

func benchReserve(b *testing.B, w *world, size int) {
	b.Helper()
	x := w.open(b, func(s *engine.Sale) { s.Items[0].Units = engine.MaxUnits; s.LimitPerBuyer = 2; s.LimitPerIdentity = 0 })
	b.ReportAllocs()
	b.ResetTimer()
	start := time.Now()
	var wg sync.WaitGroup
	for lane := range lanes {
		wg.Add(1)
		go func() {
			defer wg.Done()
			n := b.N / lanes / size // groups
			if lane == 0 {
				n = (b.N+size-1)/size - (lanes-1)*n
			}
			if err := runLane(x, lane, n, size); err != nil {
				b.Error(err)
			}
		}()
	}
	wg.Wait()
	b.ReportMetric(float64(b.N)/time.Since(start).Seconds(), "reservations/s")
}

// runLane takes n groups, every basket for a buyer of its own.
func runLane(x *bundle, lane, n, size int) error {
	var d stock.Decision
	ctx, names := context.Background(), newNames(lane)
	baskets := make([]engine.Basket, size)
	one := basket(1, "x", "MUG")
	entries := make([]int64, 0, 16)
	for i := range n {
		for j := range baskets {
			baskets[j] = one
			baskets[j].Order, baskets[j].Buyer = names.next()
		}
		if err := x.store.Reserve(ctx, x.def.ID, x.grip, baskets, &d); err != nil {
			return err
		}
		if v := d.Verdicts[size-1]; v.Outcome != engine.Accepted && v.Outcome != engine.SoldOut {
			return fmt.Errorf("verdict %+v", v)
		}
		if entries = append(entries, d.First); len(entries) == cap(entries) || i == n-1 {
			if err := x.store.Mark(ctx, x.def.ID, 1, entries); err != nil {
				return err
			}
			entries = entries[:0]
		}
	}
	return nil
}

// names makes order ids and buyers without a format's cost: the bench measures
// the store.
type names struct{ order, buyer []byte }

func newNames(lane int) *names {
	return &names{order: []byte(fmt.Sprintf("%c%025d", 'a'+lane, 0)), buyer: []byte(fmt.Sprintf("buyer-%c%08d", 'a'+lane, 0))}
}

func (n *names) next() (engine.OrderID, engine.BuyerID) {
	for _, name := range [][]byte{n.order, n.buyer} {
		for i := len(name) - 1; ; i-- {
			if name[i]++; name[i] <= '9' {
				break
			}
			name[i] = '0'
		}
	}
	return engine.OrderID(n.order), engine.BuyerID(n.buyer)
}
