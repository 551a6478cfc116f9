package stock

import (
	"fmt"
	"log/slog"
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/doorbuster/doorbuster/engine"
)

// Unreadable is a record, counter or outbox entry that this version cannot read. It is
// left out, so that the others go on; whoever must know asks for it with OnUnreadable.
type Unreadable struct {
	Sale  engine.SaleID
	Epoch int64
	What  string // "record", "counter" or "entry"
	ID    string // the field or stream id under which it stands
	Bytes string // the first unreadableBytes of it
	Cause error
}

const (
	unreadableBytes = 512
	// unreadableTold is how many are remembered, so as to be logged once.
	unreadableTold = 1000
)

// OnUnreadable makes the store call f for each thing it leaves out, each time it meets
// it, from the goroutine that called the store. Set it before the store is used.
func (s *Store) OnUnreadable(f func(Unreadable)) { s.unreadable = f }

func (s *Store) leaveOut(u Unreadable) {
	if s.unreadable != nil {
		u.Bytes = u.Bytes[:min(len(u.Bytes), unreadableBytes)]
		s.unreadable(u)
	}
}

// ReportUnreadable returns a function for OnUnreadable that counts what it is given and
// logs each thing once, with its bytes: the keys of an epoch are deleted some time. The
// error is for a metric that is registered already.
func ReportUnreadable(log *slog.Logger, reg prometheus.Registerer) (func(Unreadable), error) {
	seen := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "doorbuster_stock_unreadable_total",
		Help: "Records, counters and outbox entries left out because they cannot be read; each is counted whenever it is met.",
	}, []string{"what"})
	for _, what := range []string{"record", "counter", "entry"} {
		seen.WithLabelValues(what)
	}
	if err := reg.Register(seen); err != nil {
		return nil, fmt.Errorf("stock: %w", err)
	}
	var mu sync.Mutex
	told := map[string]bool{}
	return func(u Unreadable) {
		seen.WithLabelValues(u.What).Inc()
		key := fmt.Sprint(u.Sale, " ", u.Epoch, u.What, u.ID)
		mu.Lock()
		known := told[key]
		if len(told) >= unreadableTold {
			clear(told)
		}
		told[key] = true
		mu.Unlock()
		if !known {
			log.Error("left out, it cannot be read", "sale", u.Sale, "epoch", u.Epoch, "what", u.What, "id", u.ID, "bytes", u.Bytes, "err", u.Cause)
		}
	}, nil
}
