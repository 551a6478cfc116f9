package payment_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/doorbuster/doorbuster/engine"
	"github.com/doorbuster/doorbuster/payment/ledger"
	"github.com/doorbuster/doorbuster/payment/provider"
)

// troubled wraps a provider: calls go wrong before or after they were done. It
// takes no batches.
type troubled struct {
	provider.Provider
	wrong func(call, key string) (err error, done bool)
}

func (p *troubled) trouble(call, key string, do func() error) error {
	err, done := p.wrong(call, key)
	if err == nil || done {
		if e := do(); e != nil {
			return e
		}
	}
	return err
}

func (p *troubled) Authorise(ctx context.Context, r provider.Request) (a provider.Auth, err error) {
	err = p.trouble("authorise", r.Key, func() (err error) { a, err = p.Provider.Authorise(ctx, r); return err })
	if err != nil {
		return provider.Auth{}, err
	}
	return a, nil
}

func (p *troubled) Capture(ctx context.Context, key string, m engine.Money) error {
	return p.trouble("capture", key, func() error { return p.Provider.Capture(ctx, key, m) })
}

func (p *troubled) Void(ctx context.Context, key string) error {
	return p.trouble("void", key, func() error { return p.Provider.Void(ctx, key) })
}

func (p *troubled) Lookup(ctx context.Context, key string) (c provider.Charge, err error) {
	err = p.trouble("lookup", key, func() (err error) { c, err = p.Provider.Lookup(ctx, key); return err })
	if err != nil {
		return provider.Charge{}, err
	}
	return c, nil
}

// firstTimes makes the first n calls of each kind on each key go wrong.
func firstTimes(n int, err error, done bool) func(string, string) (error, bool) {
	var mu sync.Mutex
	seen := map[string]int{}
	return func(call, key string) (error, bool) {
		mu.Lock()
		defer mu.Unlock()
		if seen[call+key]++; seen[call+key] <= n {
			return err, done
		}
		return nil, true
	}
}

// Every call of every order is unknown at first: whether it was done or not, each
// order is charged exactly once in the end, and the declined one not at all.
func TestUnknownIsNeitherYesNorNo(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		err  error
		done bool
	}{
		"done":      {provider.ErrUnknown, true},
		"not done":  {provider.ErrUnknown, false},
		"throttled": {provider.ErrThrottled, false},
		"nonsense":  {errors.New("new error"), false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			b.instant.Decline = func(r provider.Request) bool { return r.Order == orderID(3) }
			b.p = &troubled{b.instant, firstTimes(2, c.err, c.done)}
			b.q.publish(envelope(1, 40, 1))
			b.start(t)
			b.atRest(t, 40)
			b.lawSix(t)
			if n := b.h.counts()[engine.Confirmed]; n != 39 {
				t.Errorf("%d confirmed, want 39", n)
			}
		})
	}
}

// A crash between authorise and settle: the order is paying, its charge stands at
// the provider. The next worker finds it so and confirms it with that charge.
func TestCrashBetweenAuthoriseAndSettle(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.instant.Decline = func(r provider.Request) bool { return r.Order == orderID(2) }
	for n := 1; n <= 4; n++ {
		o := order(n, 1)
		b.h.rows[o.Order] = &row{Order: o, state: engine.Paying, attempt: 1, again: true}
		if n == 4 {
			continue // this one had not been sent
		}
		key := provider.Key(o.Order, 1)
		if _, err := b.instant.Authorise(t.Context(), provider.Request{Key: key, Order: o.Order, Buyer: o.Buyer, Amount: b.h.amount}); err != nil {
			t.Fatal(err)
		}
	}
	b.start(t)
	b.atRest(t, 4)
	b.lawSix(t)
	if n := b.h.counts()[engine.Confirmed]; n != 3 {
		t.Errorf("%d confirmed, want 3", n)
	}
}

// A crash between the confirmation and the capture, or between the capture and its
// postings: the task comes due, the provider meets the same keys.
func TestCrashAroundCapture(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	for n := 1; n <= 3; n++ {
		o := order(n, 1)
		b.h.rows[o.Order] = &row{Order: o, state: engine.Confirmed, attempt: 1}
		key := provider.Key(o.Order, 1)
		if _, err := b.instant.Authorise(t.Context(), provider.Request{Key: key, Order: o.Order, Buyer: o.Buyer, Amount: b.h.amount}); err != nil {
			t.Fatal(err)
		}
		if n == 2 {
			if err := b.instant.Capture(t.Context(), key, b.h.amount); err != nil {
				t.Fatal(err)
			}
		}
		b.h.charges[key] = ledger.Authorised
		b.h.newTask(ledger.Capture, ledger.Book{No: 1, Sale: "drop", Provider: "p", Currency: "KRW"}, []ledger.Charge{{Order: o.Order, Attempt: 1, Amount: 700}}, 0)
	}
	b.start(t)
	b.atRest(t, 3)
	b.lawSix(t)
}

// The order is cancelled by somebody else while its authorise is on the way: the
// payer loses the compare-and-set and gives the money back, even if the database
// fails in between.
func TestLostCompareAndSetIsVoided(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	var failures atomic.Int64
	b.p = &troubled{b.instant, func(call, key string) (error, bool) {
		if call == "authorise" && strings.HasPrefix(key, string(orderID(2))) {
			b.h.mu.Lock()
			b.h.rows[orderID(2)].state = engine.Cancelled
			b.h.mu.Unlock()
		}
		return nil, true
	}}
	b.h.before = func(step string) error {
		if step == "owe" && failures.Add(1) < 3 {
			return errDown
		}
		return nil
	}
	b.q.publish(envelope(1, 3, 1))
	b.start(t)
	b.h.until(t, "void owed", func() bool { return failures.Load() >= 3 })
	b.atRest(t, 3)
	b.lawSix(t)
	if c, err := b.instant.Lookup(t.Context(), provider.Key(orderID(2), 1)); err != nil || c.State != provider.StateVoided {
		t.Errorf("%+v, %v", c, err)
	}
}

// A buyer who wished to cancel while his order was paying gets his money back, and
// is told so.
func TestCancelWished(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	for n := 1; n <= 2; n++ {
		o := order(n, 1)
		b.h.rows[o.Order] = &row{Order: o, state: engine.Paying, attempt: 1, again: true, wished: true}
	}
	key := provider.Key(orderID(1), 1) // of the other nothing is known
	if _, err := b.instant.Authorise(t.Context(), provider.Request{Key: key, Order: orderID(1), Buyer: "b", Amount: b.h.amount}); err != nil {
		t.Fatal(err)
	}
	b.p = &troubled{b.instant, firstTimes(1, provider.ErrUnknown, true)}
	b.start(t)
	b.atRest(t, 2)
	b.lawSix(t)
	for _, r := range b.h.rows {
		if r.state != engine.Cancelled || r.reason != engine.ReasonBuyer {
			t.Errorf("%v %v", r.state, r.reason)
		}
	}
}

func TestCaptureRefusedIsKept(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.p = &troubled{b.instant, func(call, _ string) (error, bool) {
		if call == "capture" {
			return provider.ErrRefused, false
		}
		return nil, true
	}}
	b.q.publish(envelope(1, 1, 1))
	b.start(t)
	b.atRest(t, 1)
	b.stop()
	key := provider.Key(orderID(1), 1)
	if b.h.charges[key] != ledger.Refused || b.h.rows[orderID(1)].state != engine.Confirmed || b.h.postings[key] != 0 {
		t.Errorf("charge %v, order %v, posted %d", b.h.charges[key], b.h.rows[orderID(1)].state, b.h.postings[key])
	}
}

// A soak found it: a capture was done and its answer lost; asked again, the provider
// refused, and our books said for ever that nothing was taken.
func TestACaptureRefusedBecauseItIsDoneIsDone(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	var captures, lookups atomic.Int64
	b.p = &troubled{b.instant, func(call, _ string) (error, bool) {
		switch {
		case call == "capture" && captures.Add(1) == 1:
			return provider.ErrUnknown, true
		case call == "capture":
			return provider.ErrRefused, false
		case call == "lookup" && lookups.Add(1) == 1: // no word is no last word
			return provider.ErrUnknown, false
		}
		return nil, true
	}}
	b.q.publish(envelope(1, 1, 1))
	b.start(t)
	b.atRest(t, 1)
	b.stop()
	key := provider.Key(orderID(1), 1)
	if b.h.charges[key] != ledger.Captured || b.h.postings[key] != b.h.amount.Amount {
		t.Errorf("charge %v, posted %d", b.h.charges[key], b.h.postings[key])
	}
	if captures.Load() < 3 || lookups.Load() < 2 {
		t.Errorf("%d captures, %d lookups", captures.Load(), lookups.Load())
	}
}
