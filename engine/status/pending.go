package status

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/doorbuster/doorbuster/engine"
	"github.com/doorbuster/doorbuster/engine/orders"
	"github.com/doorbuster/doorbuster/stock"
)

// Bounds of the search for orders that are accepted and not yet ingested.
const (
	maxPasses = 2               // at once, over all sales
	passFor   = 2 * time.Second // and no longer each
	passShare = 4               // after a pass its sale rests so many times as long
	standFor  = time.Second     // for the counter of a buyer: PostgreSQL is asked after it
)

// A buyer's orders stand in Redis under their ids only. His counter there tells
// whether PostgreSQL lacks one, in two round trips; only then are the sale's
// records searched, in one pass for all who ask meanwhile, and then not again for
// a while. So a storm of askers costs Redis a fixed share of its time, and a sale
// whose ingest keeps up costs it nothing.
//
// Orders move from Redis to PostgreSQL and end while they are looked for. So Redis is
// always asked first and PostgreSQL after it: what one no longer has the other has by
// then. And of PostgreSQL's orders only those count that the counter had counted: one
// that was ingested since must not stand for one that is not.

// pending returns what PostgreSQL knows of the buyer by now, if known, which was read
// after st, may not be all; what Redis holds for him beyond it; and whether that is all
// there is.
func (s *Status) pending(ctx context.Context, who asker, st *stock.Standing, known []orders.View) (views []orders.View, more []Order, complete bool) {
	counted := int64(0)
	for i := range known {
		if v := &known[i]; v.State != engine.Cancelled && !v.Returned && st.Counts(v.Hold) {
			counted++
		}
	}
	var epochs []int64
	if st.Now > counted {
		epochs = append(epochs, st.Epoch)
	}
	if st.Before > 0 { // a rebuild is under way, or hardly over
		epochs = append(epochs, st.Epoch-1)
	}
	if len(epochs) == 0 {
		return known, nil, true
	}
	var found []engine.Record
	for _, epoch := range epochs {
		recs, err := s.search(ctx, place{who.sale, epoch}, who.buyer)
		if err != nil {
			return known, nil, false
		}
		found = append(found, recs...)
	}
	views, lacks, err := s.ordersOf(ctx, who.sale, who.buyer)
	if err != nil {
		return known, nil, false
	}
	have := make(map[engine.OrderID]bool, len(views))
	for i := range views {
		have[views[i].Order.Order] = true
	}
	found = slices.DeleteFunc(found, func(r engine.Record) bool {
		again := have[r.Order.Order]
		have[r.Order.Order] = true
		return again
	})
	more, complete = s.settled(ctx, who.sale, found)
	return views, more, complete && !lacks
}

func (s *Status) standing(ctx context.Context, sale engine.SaleID, buyer engine.BuyerID) (stock.Standing, error) {
	done, ok := s.slot.turn()
	if !ok {
		return stock.Standing{}, errBusy
	}
	defer done()
	ctx, end := context.WithTimeout(ctx, standFor)
	defer end()
	st, err := s.cfg.Stock.Standing(ctx, sale, buyer)
	if err != nil && !errors.Is(err, stock.ErrNoSale) {
		s.metrics.failed.Inc()
	}
	return st, err
}

// settled shows records that PostgreSQL did not know when it was asked first: as it
// knows them by now, if it does.
func (s *Status) settled(ctx context.Context, sale engine.SaleID, recs []engine.Record) ([]Order, bool) {
	if len(recs) == 0 {
		return nil, true
	}
	recs = recs[:min(len(recs), orders.MaxViews)]
	ids := make([]engine.OrderID, len(recs))
	for i := range recs {
		ids[i] = recs[i].Order.Order
	}
	done, ok := s.books.turn()
	if !ok {
		return nil, false
	}
	defer done()
	views, err := s.cfg.Orders.Orders(ctx, ids)
	if err != nil {
		s.metrics.failed.Inc()
		return nil, false
	}
	ingested := make(map[engine.OrderID]*orders.View, len(views))
	for i := range views {
		ingested[views[i].Order.Order] = &views[i]
	}
	var currency string
	if w, err := s.cfg.Stock.Watch(ctx, sale, recs[0].Order.Hold.Epoch); err == nil {
		currency = w.Currency
	}
	out := make([]Order, 0, len(recs))
	for i := range recs {
		if v := ingested[recs[i].Order.Order]; v != nil {
			out = append(out, fromView(v))
			continue
		}
		o := shown(&recs[i].Order, sale)
		o.Total.Currency = currency
		out = append(out, o)
	}
	return out, true
}

// newestFirst orders a list as Mine has it.
func newestFirst(list []Order) { // accepted_at sorts as text
	slices.SortStableFunc(list, func(a, b Order) int { return cmp.Compare(b.AcceptedAt, a.AcceptedAt) })
}

// place is where records stand.
type place struct {
	sale  engine.SaleID
	epoch int64
}

// searches are the passes over the places that somebody asks for.
type searches struct {
	passes chan struct{} // one for each pass under way

	mu     sync.Mutex
	places map[place]*searched
}

// searched is one place. Who gets its turn leads a pass for all that wait.
type searched struct {
	users int           // those who wait, and a turn that rests
	turn  chan struct{} // one at a time, its rest included
	next  *pass         // gathers; nil if nobody waits
}

// pass is one search for several buyers. found is written by its leader and read
// after done was closed.
type pass struct {
	found map[engine.BuyerID][]engine.Record
	err   error
	done  chan struct{}
}

func newSearches() *searches {
	return &searches{passes: make(chan struct{}, maxPasses), places: map[place]*searched{}}
}

// join adds the buyer to the pass that gathers.
func (q *searches) join(at place, buyer engine.BuyerID) (*searched, *pass) {
	q.mu.Lock()
	defer q.mu.Unlock()
	p := q.places[at]
	if p == nil {
		p = &searched{turn: make(chan struct{}, 1)}
		q.places[at] = p
	}
	p.users++
	if p.next == nil {
		p.next = &pass{found: map[engine.BuyerID][]engine.Record{}, done: make(chan struct{})}
	}
	p.next.found[buyer] = nil
	return p, p.next
}

func (q *searches) leave(at place, p *searched) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if p.users--; p.users == 0 {
		delete(q.places, at)
	}
}

// lead closes the pass to those who come now, and keeps the place in use until its
// rest is over.
func (q *searches) lead(p *searched) {
	q.mu.Lock()
	defer q.mu.Unlock()
	p.next = nil
	p.users++
}

// search returns what the place holds for the buyer. It begins after every order
// that was accepted before it was called.
func (s *Status) search(ctx context.Context, at place, buyer engine.BuyerID) ([]engine.Record, error) {
	p, mine := s.searches.join(at, buyer)
	defer s.searches.leave(at, p)
	select {
	case <-mine.done:
	case p.turn <- struct{}{}:
		if isDone(mine) {
			<-p.turn
			break
		}
		s.searches.lead(p)
		took := s.run(ctx, at, mine)
		close(mine.done)
		time.AfterFunc(passShare*took, func() {
			<-p.turn
			s.searches.leave(at, p)
		})
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	return mine.found[buyer], mine.err
}

func isDone(p *pass) bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// run reads every record of the place. Once begun it does not end with its leader's
// patience: others wait for it.
func (s *Status) run(ctx context.Context, at place, p *pass) (took time.Duration) {
	select {
	case s.searches.passes <- struct{}{}:
	case <-ctx.Done():
		p.err = ctx.Err()
		return 0
	}
	defer func() { <-s.searches.passes }()
	began := time.Now()
	ctx, end := context.WithTimeout(context.WithoutCancel(ctx), passFor)
	defer end()
	wanted := func(b engine.BuyerID) bool { _, ok := p.found[b]; return ok }
	for slice := (stock.Slice{Epoch: at.epoch}); ; {
		recs, next, err := s.cfg.Stock.HeldOf(ctx, at.sale, slice, wanted)
		if err != nil {
			p.err = err
			s.metrics.failed.Inc()
			break
		}
		for i := range recs {
			b := recs[i].Order.Buyer
			p.found[b] = append(p.found[b], recs[i])
		}
		if slice.Cursor = next; next == 0 {
			break
		}
	}
	took = time.Since(began)
	s.metrics.search.Observe(took.Seconds())
	return took
}
