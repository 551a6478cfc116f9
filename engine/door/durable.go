package door

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/doorbuster/doorbuster/stock"
)

const (
	durablePace    = int64(time.Second) // between looks at how Redis is set
	durableTimeout = 300 * time.Millisecond
)

// durable is what a door knows about the disk behind a sale of durable mode.
type durable struct {
	sound  atomic.Bool // Redis writes to disk before it answers
	looked int64       // on the door's clock; the two below are under sale.reading
	told   bool        // of its being otherwise
}

// mayPromise tells whether the sale's 202 would mean what its mode says.
func (s *sale) mayPromise(v *view) bool {
	return !v.Safety.Durable || s.door.cfg.CheckDurable == nil || s.durable.sound.Load()
}

// lookDurable asks how Redis is set, before the door sells anything of a durable
// sale and once a second from then on: who changes it in the middle of a sale must
// not make its 202 a lie. An answer that does not come changes nothing.
func (s *sale) lookDurable(ctx context.Context, w *stock.Watch) {
	d, now := s.door, s.door.clock()
	if !w.Safety.Durable || d.cfg.CheckDurable == nil || (s.durable.looked != 0 && now-s.durable.looked < durablePace) {
		return
	}
	ctx, cancel := d.within(ctx, durableTimeout)
	defer cancel()
	err := d.cfg.CheckDurable(ctx, s.id)
	switch {
	case err == nil:
		s.durable.looked, s.durable.told = now, false
		s.durable.sound.Store(true)
		return
	case errors.Is(err, stock.ErrNotDurable):
		s.durable.looked = now
		s.durable.sound.Store(false)
	}
	if !s.durable.told && !s.durable.sound.Load() {
		s.durable.told = true
		d.log.Error("a durable sale is not sold", "sale", s.id, "error", err)
	}
}
