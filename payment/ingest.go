package payment

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/doorbuster/doorbuster/engine"
	"github.com/doorbuster/doorbuster/engine/failpoint"
	"github.com/doorbuster/doorbuster/engine/orders"
	"github.com/doorbuster/doorbuster/engine/queue"
	"github.com/doorbuster/doorbuster/stock"
)

// slotWait is how long ingest waits for a payer to have room before it writes the
// orders without claiming them. They then cost one more transaction.
const slotWait = 100 * time.Millisecond

// recordTimeout bounds the look at the record of an order that cannot be read.
const recordTimeout = 2 * time.Second

// lanes is how many batches of one queue are ingested at once. Measured on two busy
// cores, from queue to CONFIRMED: 2 lanes 1.1 to 1.3 times as fast as 1 (there the
// ingest step was busy 92 % of the time and the others half of it), 3 no faster.
const lanes = 2

// ingester is one lane.
type ingester struct {
	w          *Worker
	stop, work context.Context //nolint:containedctx // two ends of one loop, see Run
	p          *pace
	decision   stock.Decision
	epochs     map[engine.SaleID]int64 // last seen; a hint for Watch
	told       map[engine.SaleID]time.Time
}

// parcel is what the messages at hand hold for one sale.
type parcel struct {
	sale   engine.SaleID
	orders []engine.Order
	bad    []engine.BadLine
	msgs   []Message
}

// intake is one ingest queue: a source hands it messages, some lanes work on them at
// once, a batch each. PostgreSQL inserts the orders of two batches side by side; only
// the last part of the transactions, from the items on, is one after the other.
type intake struct {
	idle chan *ingester
	busy sync.WaitGroup
}

// newIntake makes the lanes of a queue. stop ends when no more is to be begun, work
// when everything is cut off.
func (w *Worker) newIntake(stop, work context.Context) *intake {
	t := &intake{idle: make(chan *ingester, lanes)}
	for range lanes {
		t.idle <- w.newIngester(stop, work)
	}
	return t
}

func (w *Worker) newIngester(stop, work context.Context) *ingester {
	return &ingester{
		w: w, stop: stop, work: work, p: w.pace("ingest"),
		epochs: make(map[engine.SaleID]int64), told: make(map[engine.SaleID]time.Time),
	}
}

// handle gives messages to the next idle lane, for which it waits. A marker says that
// everything before it in its queue is committed, so it waits for all lanes, those of
// its own batch included.
func (t *intake) handle(_ context.Context, msgs []Message) {
	in := <-t.idle
	parcels, markers := in.open(msgs)
	if g := in.w.giveWay; g != nil && len(markers) == 0 {
		in.w.m.held.Add(g.hold(in.stop, parcels).Seconds())
	}
	t.busy.Go(func() {
		in.parcels(parcels)
		t.idle <- in
	})
	if len(markers) == 0 {
		return
	}
	t.busy.Wait()
	in = <-t.idle
	in.markers(markers)
	t.idle <- in
}

// parcels writes orders sale by sale, and stops at the first that has to wait when
// no more is to be begun.
func (in *ingester) parcels(parcels []parcel) {
	for i := range parcels {
		if !in.parcel(&parcels[i]) {
			return
		}
	}
}

func (in *ingester) markers(markers []Message) {
	for _, m := range markers {
		nonce, _ := queue.MarkerNonce(m.Body)
		if in.stop.Err() != nil || !in.until(in.timed(func(ctx context.Context) error { return in.w.cfg.Orders.MarkMarker(ctx, nonce) })) {
			return
		}
		in.ack(m)
	}
}

// open sorts messages by sale, and puts aside what cannot be read at all.
func (in *ingester) open(msgs []Message) (parcels []parcel, markers []Message) {
	for _, m := range msgs {
		if _, is := queue.MarkerNonce(m.Body); is {
			markers = append(markers, m)
			continue
		}
		env, bad, err := engine.ParseEnvelope(m.Body)
		if err != nil {
			// No sale, no order: nobody's hold can be given back, and a newer
			// version may be able to read it.
			in.w.log.Error("message put aside", "err", err, "bytes", len(m.Body))
			in.w.m.dead.Inc()
			in.failed(m.Dead())
			continue
		}
		at := -1
		for i := range parcels {
			if parcels[i].sale == env.Sale {
				at = i
			}
		}
		if at < 0 {
			parcels, at = append(parcels, parcel{sale: env.Sale}), len(parcels)
		}
		p := &parcels[at]
		p.orders, p.bad, p.msgs = append(p.orders, env.Orders...), append(p.bad, bad...), append(p.msgs, m)
	}
	return parcels, markers
}

// parcel writes a sale's orders and acknowledges their messages. It returns false
// if it had to stop before.
func (in *ingester) parcel(p *parcel) bool {
	in.w.m.ingestLag(in.w.cfg.Now(), p.orders)
	arrivals := make([]orders.Arrival, len(p.orders))
	for i := range p.orders {
		arrivals[i].Order = p.orders[i]
	}
	for part := range slices.Chunk(arrivals, evenly(len(arrivals), orders.MaxBatch)) {
		wr, ok := in.write(p.sale, part)
		if !ok || !in.retake(p.sale, wr.stale) {
			return false
		}
	}
	for i := range p.bad {
		if !in.reject(p.sale, in.unread(p.sale, &p.bad[i])) {
			return false
		}
	}
	failpoint.Hit("ingest/after-commit")
	for _, m := range p.msgs {
		in.ack(m)
	}
	failpoint.Hit("ingest/after-ack")
	return true
}

// evenly is the size of the fewest parts of n, of at most so many each, that are of
// about one size.
func evenly(n, most int) int {
	parts := max(1, (n+most-1)/most)
	return max(1, (n+parts-1)/parts)
}

// written is what became of arrivals.
type written struct {
	stale []engine.Order // not written
	moved bool           // the epoch moved: some were not written
}

// write brings arrivals into PostgreSQL. It waits for PostgreSQL as long as it
// takes; a batch that PostgreSQL will not have is halved until the guilty order is
// alone. It returns false if it had to stop before.
func (in *ingester) write(sale engine.SaleID, arrivals []orders.Arrival) (wr written, ok bool) {
	if len(arrivals) == 0 {
		return written{}, true
	}
	var rep orders.IngestReport
	var poison error
	ok = in.until(func() (err error) {
		rep, err = in.once(sale, arrivals)
		if errors.Is(err, orders.ErrNotWritable) || errors.Is(err, orders.ErrNoSale) {
			poison, err = err, nil
		}
		return err
	})
	if !ok || poison == nil {
		return written{rep.Stale, rep.Moved}, ok
	}
	if len(arrivals) > 1 && !errors.Is(poison, orders.ErrNoSale) {
		half := len(arrivals) / 2
		a, ok := in.write(sale, arrivals[:half])
		if !ok {
			return a, false
		}
		b, ok := in.write(sale, arrivals[half:])
		return written{append(a.stale, b.stale...), a.moved || b.moved}, ok
	}
	for i := range arrivals {
		o := &arrivals[i].Order
		line := engine.AppendTail(append([]byte(o.Order), '|'), o)
		if !in.reject(sale, orders.Rejected{Order: o.Order, Bytes: line, Cause: poison.Error(), Known: o}) {
			return written{}, false
		}
	}
	return written{}, true
}

// once is one try to write arrivals; those it claimed go to the payers.
func (in *ingester) once(sale engine.SaleID, arrivals []orders.Arrival) (rep orders.IngestReport, err error) {
	done := in.w.m.stage("ingest")
	defer func() { done(err) }()
	slot := in.slot()
	defer in.w.giveWay.take(in.work)()
	ctx, cancel := in.w.within(in.work, in.p.limit()) // its turn has come
	defer cancel()
	failpoint.Hit("ingest/before-commit")
	if !slot {
		if rep, err = in.w.cfg.Orders.Ingest(ctx, sale, arrivals); err == nil {
			in.w.m.ingested(&rep)
			in.w.nudgePayers(len(rep.Reserved))
		}
		return rep, err
	}
	rep, err = in.w.cfg.Orders.IngestAndClaim(ctx, sale, arrivals, payLease)
	if err != nil || len(rep.Claimed) == 0 {
		<-in.w.slots
	} else {
		in.w.toPay <- claimed{rep.Claimed, in.w.cfg.Now()} // has room: as many as there are slots
	}
	if err == nil {
		in.w.m.ingested(&rep)
		in.w.nudgePayers(len(rep.Reserved))
	}
	return rep, err
}

// slot tells whether a payer will have room for a batch.
func (in *ingester) slot() bool {
	select {
	case in.w.slots <- struct{}{}:
		return true
	default:
	}
	if in.w.steps != nil {
		return false // only who steps the payers can make room
	}
	t := time.NewTimer(slotWait)
	defer t.Stop()
	select {
	case in.w.slots <- struct{}{}:
		return true
	case <-t.C:
	case <-in.stop.Done():
	}
	return false
}

// unread says what is known of an order whose line cannot be read: the whole of it
// from its record in Redis, if that is of the same hold, else the hold that stands in
// the line. If neither can be had, its units stay held until the sale's rebuild, and
// law 10 says so.
func (in *ingester) unread(sale engine.SaleID, b *engine.BadLine) orders.Rejected {
	r := orders.Rejected{Order: b.Read.Order, Bytes: []byte(b.Line), Cause: b.Cause.Error()}
	if r.Order == "" {
		return r
	}
	none := engine.Hold{}
	ctx, cancel := in.w.within(in.work, recordTimeout)
	defer cancel()
	rec, found, err := in.w.cfg.Stock.Record(ctx, sale, r.Order)
	in.failed(err)
	switch o := b.Read; {
	case found && err == nil && rec.State == engine.RecordHeld && (o.Hold == none || o.Hold == rec.Order.Hold):
		r.Known = &rec.Order
	case o.Hold != none:
		r.Known = &engine.Order{Basket: engine.Basket{Order: o.Order, Body: o.Body}, Hold: o.Hold}
	}
	return r
}

func (in *ingester) reject(sale engine.SaleID, r orders.Rejected) bool {
	in.w.log.Error("order rejected", "sale", sale, "order", r.Order, "cause", r.Cause)
	ok := in.until(in.timed(func(ctx context.Context) error { return in.w.cfg.Orders.Reject(ctx, sale, r) }))
	if ok {
		in.w.m.rejected.Inc()
	}
	return ok
}

// until repeats a step until it succeeds, and returns false if the loop has to stop
// before. Messages are held meanwhile: giving them back would count against their
// delivery limit.
func (in *ingester) until(step func() error) bool {
	for {
		err := step()
		if err == nil {
			in.p.met(in.stop, nil)
			return true
		}
		in.failed(err)
		if !in.p.met(in.stop, err) {
			return false
		}
	}
}

// timed bounds each try of a step.
func (in *ingester) timed(step func(context.Context) error) func() error {
	return func() error {
		ctx, cancel := in.w.within(in.work, in.p.limit())
		defer cancel()
		return step(ctx)
	}
}

func (in *ingester) failed(err error) {
	if err != nil {
		in.w.m.errors.ingest.Inc()
	}
}

// ack forgets a message. If that fails its channel is gone: it comes again and
// changes nothing.
func (in *ingester) ack(m Message) {
	in.failed(m.Ack())
	in.w.m.acked.Inc()
}
