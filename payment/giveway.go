package payment

import (
	"context"
	"sync"
	"time"

	"github.com/doorbuster/doorbuster/engine"
)

// A worker that shares its machine with a door takes the processor at the very
// moment the door needs it, and what it does can wait: the queue keeps the orders,
// and nobody who holds a 202 waits for their payment. With Config.GiveWay ingest
// holds a batch back while its sale storms. Not for long: orders that are old
// already are never held. The other sales of the queue wait with it: what is held
// fills the window of the queue's consumer, whatever the batches are made of.
const (
	stormRate = 10_000                 // orders a second of a sale, from which on it storms
	holdAge   = 8 * time.Second        // orders older than this are not held; a door refuses when they are 15 s old
	holdPoll  = 100 * time.Millisecond // between two looks at the sale
	holdStale = 2 * time.Second        // a look older than this says nothing about now
	lookMost  = 250 * time.Millisecond // for one look: ingest does not wait for a Redis that is silent
	seenMost  = 10_000                 // sales remembered
)

// looked is what was last seen of a sale.
type looked struct {
	epoch, seq, at int64 // at: Unix milliseconds by Redis' clock
	storm          bool  // what it and the one before say
}

// giveWay remembers what was seen of the sales, for all queues of a worker.
type giveWay struct {
	stock Stock

	turn chan struct{} // holds one transaction

	mu     sync.Mutex
	seen   map[engine.SaleID]looked
	stormy time.Time // some sale stormed until then, at least
}

func newGiveWay(s Stock) *giveWay {
	return &giveWay{stock: s, turn: make(chan struct{}, 1), seen: make(map[engine.SaleID]looked)}
}

// take waits, while a sale storms, until no other transaction of this worker runs,
// or ctx ends. The function it returns ends the turn.
func (g *giveWay) take(ctx context.Context) (end func()) {
	if g == nil {
		return func() {}
	}
	g.mu.Lock()
	calm := time.Now().After(g.stormy)
	g.mu.Unlock()
	if calm {
		return func() {}
	}
	select {
	case g.turn <- struct{}{}:
		return func() { <-g.turn }
	case <-ctx.Done():
		return func() {}
	}
}

// hold waits until the sale of the oldest of these parcels no longer storms, or its
// orders are holdAge old, or ctx ends. It returns how long it waited.
func (g *giveWay) hold(ctx context.Context, parcels []parcel) time.Duration {
	sale, oldest := oldestOf(parcels)
	if sale == "" {
		return 0
	}
	began := time.Now()
	for ctx.Err() == nil {
		storm, now := g.look(ctx, sale)
		if !storm || now-oldest > holdAge.Milliseconds() {
			break
		}
		t := time.NewTimer(holdPoll)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
		}
	}
	return time.Since(began)
}

// oldestOf returns the sale and the time of the order that was accepted first.
func oldestOf(parcels []parcel) (sale engine.SaleID, at int64) {
	for i := range parcels {
		for j := range parcels[i].orders {
			if t := parcels[i].orders[j].AcceptedAt; sale == "" || t < at {
				sale, at = parcels[i].sale, t
			}
		}
	}
	return sale, at
}

// look asks how fast the sale accepts orders. A first look, and a Redis that does
// not answer, say nothing, and nothing is no reason to wait. now is Redis' clock.
func (g *giveWay) look(ctx context.Context, sale engine.SaleID) (storm bool, now int64) {
	g.mu.Lock()
	last := g.seen[sale]
	g.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, lookMost)
	defer cancel()
	w, err := g.stock.Watch(ctx, sale, last.epoch)
	if err != nil {
		return false, 0
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if at := g.seen[sale].at; at > last.at {
		last = g.seen[sale] // another queue was quicker
	}
	next := looked{epoch: w.Epoch, seq: w.Seq, at: w.Now, storm: last.storm}
	switch passed := w.Now - last.at; {
	case w.Epoch != last.epoch || passed > holdStale.Milliseconds():
		next.storm = false
	case passed < holdPoll.Milliseconds()/2:
		return last.storm, w.Now // too short to measure
	default:
		next.storm = (w.Seq-last.seq)*1000 >= stormRate*passed
	}
	if len(g.seen) >= seenMost {
		clear(g.seen) // a first look says nothing
	}
	g.seen[sale] = next
	if next.storm {
		g.stormy = time.Now().Add(holdStale)
	}
	return next.storm, w.Now
}
