package door

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/doorbuster/doorbuster/engine"
)

const (
	maxSales    = 20_000                       // in use at once
	maxCold     = 64                           // sales being read for the first time at once
	idleAfter   = int64(15 * time.Second)      // without a request, a sale is no longer in use
	missingFor  = int64(time.Second)           // a sale that is not there is not looked for again
	missingPace = int64(watchPace)             // but so often for who has a ticket for it
	firstRead   = time.Second                  // a request waits so long for the first read of its sale
	firstLease  = 1500 * time.Millisecond      // and so long for the first lease: two heartbeats and some
	usedEvery   = int64(50 * time.Millisecond) // the times of use are that coarse
	janitorPace = time.Second

	lookRate  = 500.0 // sales put into use per second by those who show no ticket
	lookBurst = 2000
)

// sale is what the door keeps of a sale in use.
type sale struct {
	id   engine.SaleID
	door *Door

	view   atomic.Pointer[view]
	lease  lease
	ready  chan struct{} // closed after the first read, whatever it said
	leased chan struct{} // closed with the first lease
	kick   chan struct{} // one slot: read now
	used   atomic.Int64  // on the door's clock, of the last request
	busy   atomic.Int64  // of the last order request
	calm   atomic.Bool   // the watch goes at the slow pace

	reading sync.Mutex // one read at a time
	keys    keys
	failing bool // the last read failed; under reading

	lane    lane
	gate    gate
	marks   marks
	durable durable
}

// keys is the id key of a sale with the number of its master key.
type keys struct {
	number int
	key    *engine.OrderKey
}

// table is the sales in use.
type table struct {
	mu    sync.RWMutex
	sales map[engine.SaleID]*sale
	cold  chan struct{} // a token for each first read
}

func newTable() *table {
	return &table{sales: make(map[engine.SaleID]*sale), cold: make(chan struct{}, maxCold)}
}

// get finds a sale in use. It allocates nothing.
func (t *table) get(id []byte) *sale {
	t.mu.RLock()
	s := t.sales[engine.SaleID(id)]
	t.mu.RUnlock()
	return s
}

// all returns the sales in use.
func (t *table) all() []*sale {
	t.mu.RLock()
	defer t.mu.RUnlock()
	all := make([]*sale, 0, len(t.sales))
	for _, s := range t.sales {
		all = append(all, s)
	}
	return all
}

// drop takes the sale out of use, if cond still holds with nobody finding it.
func (t *table) drop(s *sale, cond func() bool) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.sales[s.id] != s || !cond() {
		return false
	}
	delete(t.sales, s.id)
	return true
}

// use finds the sale, or begins to watch it: the first request of a sale waits
// for the first read. It returns nil and why if there is nothing to work with.
// noSale says that the slot knows no such sale. known says that a ticket names it: then
// it may be there soon, or may have been, and Redis is asked anew at the pace of a watch.
// Who only names it himself may not make the door ask Redis as often as he likes.
func (d *Door) use(id []byte, now int64, known bool) (*sale, *view, answer) {
	s := d.sales.get(id)
	if s != nil && known && s.lostFor(now) > missingPace {
		d.sales.drop(s, func() bool { return true }) // it may be there by now: read it anew
		s = nil
	}
	if s == nil {
		var a answer
		if !known && !d.lookers.take(now) {
			return nil, nil, overloaded
		}
		if s, a = d.begin(id, now); s == nil {
			return nil, nil, a
		}
	}
	if now-s.used.Load() > usedEvery {
		s.used.Store(now)
	}
	v := s.view.Load()
	if v == nil {
		if v = s.first(); v == nil {
			return nil, nil, frozen
		}
	}
	if v.missing {
		return nil, nil, noSale
	}
	return s, v, unanswered
}

// lostFor is how long ago the slot knew no such sale; 0 if it does.
func (s *sale) lostFor(now int64) int64 {
	if v := s.view.Load(); v != nil && v.missing {
		return now - v.got
	}
	return 0
}

// begin puts the sale into use.
func (d *Door) begin(id []byte, now int64) (*sale, answer) {
	name := engine.SaleID(id)
	if name.Validate() != nil {
		return nil, noSale
	}
	d.sales.mu.Lock()
	defer d.sales.mu.Unlock()
	if s := d.sales.sales[name]; s != nil {
		return s, unanswered
	}
	if len(d.sales.sales) >= maxSales {
		return nil, overloaded
	}
	select {
	case d.sales.cold <- struct{}{}:
	default:
		return nil, overloaded
	}
	s := &sale{id: name, door: d, ready: make(chan struct{}), leased: make(chan struct{}), kick: make(chan struct{}, 1)}
	s.gate.init(&d.cfg)
	s.lane.runner = s.run
	s.used.Store(now)
	s.busy.Store(now - calmAfter - 1)
	if !d.life.start(s.watch) {
		<-d.sales.cold
		return nil, frozen
	}
	d.sales.sales[name] = s
	return s, unanswered
}

// first waits for the first read.
func (s *sale) first() *view {
	t := time.NewTimer(firstRead)
	defer t.Stop()
	select {
	case <-s.ready:
	case <-t.C:
	}
	return s.view.Load()
}

// leasedFor tells whether the door may work in the epoch of the view. While there
// has not been any lease yet it waits for the first.
func (s *sale) leasedFor(v *view, now int64) bool {
	if s.lease.holds(v.Epoch, now) {
		return true
	}
	select {
	case <-s.leased:
		return false // there was one, and it has ended
	default:
	}
	if v.Frozen || s.door.steps != nil { // who steps the watch comes again
		return false
	}
	t := time.NewTimer(firstLease)
	defer t.Stop()
	select {
	case <-s.leased:
	case <-t.C:
	}
	return s.lease.holds(s.view.Load().Epoch, s.door.clock())
}

// sweep drops sales that are not there.
func (d *Door) sweep() {
	now := d.clock()
	for _, s := range d.sales.all() {
		if v := s.view.Load(); v != nil && v.missing && now-v.got > missingFor {
			d.sales.drop(s, func() bool { return true })
		}
	}
	d.recall.sweep(now)
}
