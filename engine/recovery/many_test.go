package recovery_test

import (
	"context"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/doorbuster/doorbuster/engine/recovery"
)

// markerCount counts the markers that are published.
type markerCount struct {
	recovery.Publisher
	n atomic.Int64
}

func (m *markerCount) PublishMarker(ctx context.Context, q int, nonce string) error {
	m.n.Add(1)
	return m.Publisher.PublishMarker(ctx, q, nonce)
}

// Redis loses hundreds of open sales: those few in which somebody just bought are built
// before the others, and the sales wait behind markers together.
func TestSellingSalesComeBackFirst(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	w := setup(t, s.url())
	const sales, few = 200, 5
	cfg := w.config()
	built, markers := &builder{Stock: w.stock}, &markerCount{Publisher: w.pub}
	cfg.Stock, cfg.Publisher = built, markers
	all, selling := w.many(sales, few, cfg)
	loads := len(built.order())
	s.kill()
	s.start()
	w.eventually("the selling ones are back", func() bool { _, k := w.back(2, selling); return k == few })
	order := built.order()[loads:]
	for _, sale := range selling {
		// A few in front are for a probe that comes late on a busy machine.
		if place := slices.Index(order, sale); place < 0 || place >= sales/4 {
			t.Errorf("%s, which sells, was built as number %d of %d", sale, place+1, sales)
		}
	}
	w.eventually("all are back", func() bool { n, _ := w.back(2, selling); return n == len(all) })
	if n := markers.n.Load(); n > sales*3/4 {
		t.Errorf("%d markers for %d sales: they are to be shared", n, sales)
	}
}
