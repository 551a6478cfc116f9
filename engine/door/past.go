package door

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/doorbuster/doorbuster/engine"
)

// Archive is what a door asks of PostgreSQL, for what Redis can no longer say. It is
// never asked for a sale that sells.
type Archive interface {
	// Sale tells the state of a sale and the number of its order key. False if there
	// is no such sale.
	Sale(ctx context.Context, id engine.SaleID) (engine.Sale, bool, error)
	// Orders returns those of these orders, engine.MaxGroup at most, that it knows.
	Orders(ctx context.Context, ids []engine.OrderID) ([]Ended, error)
}

// Ended is an order as PostgreSQL knows it.
type Ended struct {
	engine.Order
	State engine.OrderState
}

const (
	askTimeout = time.Second        // of one question to PostgreSQL, the wait for its turn included
	maxAsking  = 2                  // questions at once
	pastFor    = int64(time.Second) // so long it is not asked again about the state of a sale, nor when it did not answer
	maxPast    = 4096               // sales of which the answer is remembered
)

var errNoArchive = errors.New("no PostgreSQL is configured")

// past is what PostgreSQL said of sales that Redis does not serve any more.
type past struct {
	archive Archive // may be nil: nobody knows anything
	turns   chan struct{}

	mu    sync.Mutex
	sales map[engine.SaleID]*finding
}

// finding is the answer about a sale. All but at belongs to who asks until done is
// closed.
type finding struct {
	done chan struct{}
	at   int64 // on the door's clock, when it was answered; 0 before. Under past.mu
	sale engine.Sale
	none bool // there is no such sale
	err  error
}

func newPast(a Archive) *past {
	return &past{archive: a, turns: make(chan struct{}, maxAsking), sales: make(map[engine.SaleID]*finding)}
}

// find asks about a sale, once for all who ask meanwhile and within pastFor.
func (d *Door) find(id engine.SaleID) *finding {
	p := d.past
	p.mu.Lock()
	f := p.sales[id]
	if f != nil && (f.at == 0 || d.clock()-f.at < pastFor) {
		p.mu.Unlock()
		<-f.done // askTimeout at most
		return f
	}
	if f == nil && len(p.sales) >= maxPast {
		clear(p.sales)
	}
	f = &finding{done: make(chan struct{}), err: errNoArchive}
	p.sales[id] = f
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		f.at = d.clock()
		p.mu.Unlock()
		close(f.done)
	}()
	f.err = d.ask(func(ctx context.Context) error {
		sale, found, err := p.archive.Sale(ctx, id)
		f.sale, f.none = sale, !found
		return err
	})
	return f
}

// settled tells whether PostgreSQL says that the sale is settled: it knows all of its
// orders then, and each has ended.
func (d *Door) settled(id engine.SaleID) bool {
	f := d.find(id)
	return f.err == nil && !f.none && f.sale.State == engine.SaleSettled
}

// ask puts a question to PostgreSQL when its turn comes.
func (d *Door) ask(question func(ctx context.Context) error) error {
	if d.past.archive == nil {
		return errNoArchive
	}
	ctx, cancel := context.WithTimeout(d.ctx, askTimeout)
	defer cancel()
	select {
	case d.past.turns <- struct{}{}:
		defer func() { <-d.past.turns }()
	case <-ctx.Done():
		return ctx.Err()
	}
	err := question(ctx)
	if err != nil {
		d.metrics.archiveFailures.Inc()
	}
	return err
}

// answerPast answers the members from PostgreSQL, if the sale is settled: a Redis that
// restarted has forgotten the script that would repeat how their orders ended, and
// nobody loads it again for a sale in which nothing can happen.
func (g *group) answerPast(s *sale) {
	d := s.door
	if d.past.archive == nil || !d.settled(s.id) {
		return
	}
	ids := make([]engine.OrderID, len(g.members))
	for i, r := range g.members {
		ids[i] = r.order()
	}
	var known []Ended
	if d.ask(func(ctx context.Context) (err error) { known, err = d.past.archive.Orders(ctx, ids); return err }) != nil {
		return
	}
	ended := make(map[engine.OrderID]*Ended, len(known))
	for i := range known {
		ended[known[i].Order.Order] = &known[i]
	}
	now := d.clock()
	for i, r := range g.members {
		g.answer(s, i, r.ended(ended[ids[i]], g.baskets[i].Body), now)
	}
}

// lost is what a request hears for whose sale we signed a ticket and which its slot does
// not know. PostgreSQL says what that means: there never was such a sale; it is being
// brought to Redis, or back; or it is settled, and Redis came back empty since.
func (d *Door) lost(r *request, h *head, body []byte) answer {
	id := engine.SaleID(r.claims.Sale)
	if id.Validate() != nil {
		return noSale
	}
	f := d.find(id)
	switch {
	case f.err != nil:
		return frozen
	case f.none:
		return noSale
	case f.sale.State != engine.SaleSettled:
		return frozen
	case !isKey(h.key):
		return badKey
	}
	if a := r.wish.parse(body); a != unanswered {
		return a
	}
	key, err := engine.NewOrderKey(d.cfg.OrderKeys[f.sale.KeyNumber], f.sale.KeyNumber, id)
	if err != nil {
		d.log.Error("orders of a settled sale cannot be named", "sale", id, "error", err)
		return frozen
	}
	r.name(&view{key: key}, h.key)
	now := d.clock()
	if !h.replay && !d.recall.has(r.id[:], now) {
		return saleClosed // as from the memory of a sale that is there
	}
	if !d.buckets.take(r.claims.Buyer, now) {
		return throttled
	}
	return d.lostOrder(r)
}

// lostOrder asks how one order of a settled sale ended.
func (d *Door) lostOrder(r *request) answer {
	var known []Ended
	ids := []engine.OrderID{engine.OrderID(r.id[:])}
	if d.ask(func(ctx context.Context) (err error) { known, err = d.past.archive.Orders(ctx, ids); return err }) != nil {
		return frozen
	}
	if len(known) == 0 {
		return r.ended(nil, 0)
	}
	lines := make([]engine.Line, r.wish.n)
	for i := range lines {
		l := &r.wish.lines[i]
		lines[i] = engine.Line{SKU: engine.SKU(l.sku), Quantity: l.quantity}
	}
	return r.ended(&known[0], engine.BodyHash(lines, r.wish.amount, string(r.wish.currency)))
}

// ended is what a request at a settled sale hears; o is nil if it has no order there.
func (r *request) ended(o *Ended, body uint64) answer {
	switch {
	case o == nil && r.expired:
		return ticketExpired
	case o == nil:
		return saleClosed
	case o.Body != body:
		return mismatch
	}
	r.verdict.Hold, r.at = o.Hold, o.AcceptedAt
	switch o.State {
	case engine.Confirmed:
		return replaySettled
	case engine.Cancelled:
		return replayReleased
	}
	return frozen // it goes on, so its sale is brought back
}
