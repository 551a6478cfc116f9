package payment_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/doorbuster/doorbuster/engine"
	"github.com/doorbuster/doorbuster/engine/orders"
	"github.com/doorbuster/doorbuster/payment/ledger"
	"github.com/doorbuster/doorbuster/payment/provider"
)

// errDown is a database that is not there.
var errDown = errors.New("connection refused")

// row is an order as the fake of engine/orders keeps it.
type row struct {
	engine.Order
	state   engine.OrderState
	reason  engine.Reason
	attempt int
	due     time.Time
	again   bool
	wished  bool
	age     time.Duration
	next    []time.Duration // of its deferrals
}

// house stands in for engine/orders and payment/ledger: the same refusals, no
// guards, one lock. Hooks let a test fail a step.
type house struct {
	mu       sync.Mutex
	epoch    int64
	amount   engine.Money
	rows     map[engine.OrderID]*row
	rejected map[engine.OrderID]orders.Rejected
	markers  []string
	parked   []orders.Parked
	leased   map[int64]time.Time // of parked, by id
	patient  bool                // deferred orders are due when they were deferred to
	lease    time.Duration       // the longest that was asked for
	charges  map[string]ledger.State
	postings map[string]int64 // captures by key
	tasks    map[int64]*ledger.Task
	due      map[int64]time.Time
	nextTask int64
	poison   engine.OrderID // cannot be written
	changed  chan struct{}  // closed and renewed at every change

	before func(step string) error // called without the lock; its error fails the step
	dead   map[string]time.Time    // until when a call of a step is never answered
	slow   map[string]time.Duration
}

func newHouse() *house {
	return &house{
		epoch: 1, amount: engine.Money{Amount: 700, Currency: "KRW"}, rows: map[engine.OrderID]*row{},
		rejected: map[engine.OrderID]orders.Rejected{}, charges: map[string]ledger.State{}, postings: map[string]int64{},
		tasks: map[int64]*ledger.Task{}, due: map[int64]time.Time{}, leased: map[int64]time.Time{}, changed: make(chan struct{}),
		before: func(string) error { return nil },
	}
}

func (h *house) step(ctx context.Context, name string) (func(), error) {
	if err := h.answers(ctx, name); err != nil {
		return nil, err
	}
	h.mu.Lock()
	return func() {
		close(h.changed)
		h.changed = make(chan struct{})
		h.mu.Unlock()
	}, nil
}

func (h *house) answers(ctx context.Context, name string) error {
	if time.Now().Before(h.dead[name]) {
		<-ctx.Done()
	}
	if d := h.slow[name]; d > 0 {
		select {
		case <-time.After(d):
		case <-ctx.Done():
		}
	}
	return errors.Join(ctx.Err(), h.before(name))
}

// until waits for the condition, which is tested at every change of the house.
func (h *house) until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(10 * time.Second)
	for {
		h.mu.Lock()
		done, changed := ok(), h.changed
		h.mu.Unlock()
		if done {
			return
		}
		select {
		case <-changed:
		case <-deadline:
			h.mu.Lock()
			defer h.mu.Unlock()
			t.Fatalf("waited in vain: %s (%d orders, states %v, rejected %d)", what, len(h.rows), h.counts(), len(h.rejected))
		}
	}
}

func (h *house) counts() map[engine.OrderState]int {
	n := map[engine.OrderState]int{}
	for _, r := range h.rows {
		n[r.state]++
	}
	return n
}

func (h *house) payable(r *row) orders.Payable {
	return orders.Payable{
		Order: r.Order.Order, Sale: "drop", Buyer: r.Buyer, Amount: h.amount, Provider: "p",
		Attempt: r.attempt, Again: r.again, CancelWished: r.wished, Age: r.age,
	}
}

func (h *house) Ingest(ctx context.Context, sale engine.SaleID, as []orders.Arrival) (orders.IngestReport, error) {
	return h.ingest(ctx, as, 0)
}

func (h *house) IngestAndClaim(ctx context.Context, _ engine.SaleID, as []orders.Arrival, lease time.Duration) (orders.IngestReport, error) {
	return h.ingest(ctx, as, lease)
}

func (h *house) ingest(ctx context.Context, as []orders.Arrival, lease time.Duration) (rep orders.IngestReport, err error) {
	done, err := h.step(ctx, "ingest")
	if err != nil {
		return rep, err
	}
	defer done()
	h.lease = max(h.lease, lease)
	for _, a := range as {
		if a.Order.Order == h.poison {
			return rep, fmt.Errorf("%w: value out of range", orders.ErrNotWritable)
		}
		if (a.Retaken || a.Refused) && a.Epoch != h.epoch {
			return orders.IngestReport{Moved: true}, nil
		}
	}
	for _, a := range as {
		switch {
		case h.rows[a.Order.Order] != nil:
			rep.Repeated++
		case a.Refused:
			h.rows[a.Order.Order] = &row{Order: a.Order, state: engine.Cancelled, reason: engine.ReasonEpoch}
			rep.Cancelled++
		case !a.Retaken && a.Hold.Epoch != h.epoch:
			rep.Stale = append(rep.Stale, a.Order)
		default:
			r := &row{Order: a.Order, state: engine.Reserved}
			h.rows[a.Order.Order] = r
			if lease > 0 {
				r.state, r.attempt, r.due = engine.Paying, 1, time.Now().Add(lease)
				rep.Claimed = append(rep.Claimed, h.payable(r))
				r.again = true
			} else {
				rep.Reserved = append(rep.Reserved, a.Order.Order)
			}
		}
	}
	return rep, nil
}

func (h *house) Reject(ctx context.Context, _ engine.SaleID, r orders.Rejected) error {
	done, err := h.step(ctx, "reject")
	if err != nil {
		return err
	}
	defer done()
	h.rejected[r.Order] = r
	return nil
}

func (h *house) Claim(ctx context.Context, opt orders.ClaimOptions) (out []orders.Payable, err error) {
	done, err := h.step(ctx, "claim")
	if err != nil {
		return nil, err
	}
	defer done()
	for _, r := range h.rows {
		if len(out) == opt.Limit || r.state.Terminal() || time.Now().Before(r.due) {
			continue
		}
		if r.state == engine.Reserved {
			r.state, r.attempt = engine.Paying, 1
		}
		out = append(out, h.payable(r))
		r.again, r.due = true, time.Now().Add(opt.Lease)
	}
	return out, nil
}

func (h *house) Settle(ctx context.Context, _ engine.SaleID, ps []orders.Payment,
	also func(context.Context, pgx.Tx, []orders.Payable) error,
) (out []orders.Settled, err error) {
	done, err := h.step(ctx, "settle")
	if err != nil {
		return nil, err
	}
	defer done()
	var confirmed []orders.Payable
	for _, p := range ps {
		r := h.rows[p.Order]
		s := orders.Settled{Order: p.Order, State: r.state, Attempt: r.attempt}
		if r.state == engine.Paying && r.attempt == p.Attempt {
			s.Won, s.State = true, engine.Cancelled
			switch p.Result {
			case orders.Confirmed:
				s.State, confirmed = engine.Confirmed, append(confirmed, h.payable(r))
			case orders.Voided:
				r.reason = engine.ReasonBuyer
			default:
				r.reason = engine.ReasonDeclined
			}
			r.state = s.State
		}
		out = append(out, s)
	}
	if len(confirmed) > 0 {
		return out, also(ctx, nil, confirmed)
	}
	return out, nil
}

func (h *house) Defer(ctx context.Context, _ engine.SaleID, ids []engine.OrderID, next time.Duration) error {
	done, err := h.step(ctx, "defer")
	if err != nil {
		return err
	}
	defer done()
	for _, id := range ids {
		h.rows[id].next = append(h.rows[id].next, next)
		if h.rows[id].due = time.Now(); h.patient { // else a test does not wait
			h.rows[id].due = time.Now().Add(next)
		}
	}
	return nil
}

func (h *house) Expire(ctx context.Context, _ int) (int, error) { return 0, h.answers(ctx, "expire") }

func (h *house) MarkMarker(ctx context.Context, nonce string) error {
	done, err := h.step(ctx, "marker")
	if err != nil {
		return err
	}
	defer done()
	h.markers = append(h.markers, fmt.Sprintf("%s behind %d", nonce, len(h.rows)))
	return nil
}

func (h *house) Park(ctx context.Context, sale engine.SaleID, stale []engine.Order) error {
	done, err := h.step(ctx, "park")
	if err != nil {
		return err
	}
	defer done()
	h.nextTask++
	h.parked = append(h.parked, orders.Parked{ID: h.nextTask, Sale: sale, Body: engine.AppendEnvelope(nil, &engine.Envelope{Sale: sale, Orders: stale})})
	return nil
}

func (h *house) Parked(ctx context.Context, lease time.Duration, except []engine.SaleID) (orders.Parked, bool, error) {
	done, err := h.step(ctx, "parked")
	if err != nil {
		return orders.Parked{}, false, err
	}
	defer done()
	for _, p := range h.parked {
		if time.Now().Before(h.leased[p.ID]) || slices.Contains(except, p.Sale) {
			continue
		}
		h.leased[p.ID] = time.Now().Add(lease)
		return p, true, nil
	}
	return orders.Parked{}, false, nil
}

func (h *house) Unpark(ctx context.Context, id int64) error {
	done, err := h.step(ctx, "unpark")
	if err != nil {
		return err
	}
	defer done()
	h.parked = slices.DeleteFunc(h.parked, func(p orders.Parked) bool { return p.ID == id })
	return nil
}

func (h *house) ParkedOrders(ctx context.Context) (int64, error) { return 0, h.answers(ctx, "count") }

func (h *house) Book(_ context.Context, sale engine.SaleID, name, currency string) (ledger.Book, error) {
	return ledger.Book{No: 1, Sale: sale, Provider: name, Currency: currency}, nil
}

// Authorise runs inside Settle, under its lock.
func (h *house) Authorise(_ context.Context, _ pgx.Tx, b ledger.Book, cs []ledger.Charge, lease time.Duration) (ledger.Task, error) {
	for _, c := range cs {
		h.charges[provider.Key(c.Order, c.Attempt)] = ledger.Authorised
	}
	return *h.newTask(ledger.Capture, b, cs, lease), nil
}

func (h *house) newTask(kind ledger.Kind, b ledger.Book, cs []ledger.Charge, due time.Duration) *ledger.Task {
	h.nextTask++
	h.tasks[h.nextTask] = &ledger.Task{ID: h.nextTask, Kind: kind, Book: b, Charges: cs}
	h.due[h.nextTask] = time.Now().Add(due)
	return h.tasks[h.nextTask]
}

func (h *house) OweVoid(ctx context.Context, b ledger.Book, cs []ledger.Charge, due time.Duration) error {
	done, err := h.step(ctx, "owe")
	if err != nil {
		return err
	}
	defer done()
	h.newTask(ledger.Void, b, cs, due)
	return nil
}

func (h *house) Due(ctx context.Context, limit int, lease time.Duration) (out []ledger.Task, err error) {
	done, err := h.step(ctx, "due")
	if err != nil {
		return nil, err
	}
	defer done()
	for id, t := range h.tasks {
		if len(out) < limit && !time.Now().Before(h.due[id]) {
			h.due[id] = time.Now().Add(lease)
			t.Tries++
			out = append(out, *t)
		}
	}
	return out, nil
}

func (h *house) Finish(ctx context.Context, rs []ledger.Result) (n int, err error) {
	done, err := h.step(ctx, "finish")
	if err != nil {
		return 0, err
	}
	defer done()
	for _, r := range rs {
		delete(h.tasks, r.Task.ID)
		for _, c := range r.Done {
			k := provider.Key(c.Order, c.Attempt)
			if st := h.charges[k]; r.Task.Kind == ledger.Capture && (st == ledger.Authorised || st == ledger.Refused) {
				h.charges[k] = ledger.Captured
				h.postings[k] += c.Amount
				n++
			}
		}
		for _, c := range r.Refused {
			h.charges[provider.Key(c.Order, c.Attempt)] = ledger.Refused
		}
		if len(r.Later) > 0 {
			h.newTask(r.Task.Kind, r.Task.Book, r.Later, 0)
		}
	}
	return n, nil
}

func (h *house) Owed(ctx context.Context) (captures, voids int64, err error) {
	return 0, 0, h.answers(ctx, "owed")
}
