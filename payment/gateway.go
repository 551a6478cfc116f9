package payment

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/doorbuster/doorbuster/engine"
	"github.com/doorbuster/doorbuster/engine/orders"
	"github.com/doorbuster/doorbuster/payment/ledger"
	"github.com/doorbuster/doorbuster/payment/provider"
)

// gateway asks one provider, many orders at a time, and measures it.
type gateway struct {
	p     provider.Provider
	batch provider.Batch // nil if it takes no batches

	forgets bool // see provider.Forgetful
	serial  bool // one call at a time, in the caller's goroutine

	authorise, capture, void, lookup call
}

// call measures one kind of call.
type call struct {
	took   prometheus.Observer
	failed prometheus.Counter
}

func newGateway(name string, p provider.Provider, m *metrics) *gateway {
	measured := func(what string) call {
		return call{m.provider.WithLabelValues(name, what), m.providerFailed.WithLabelValues(name, what)}
	}
	g := &gateway{
		p: p, authorise: measured("authorise"), capture: measured("capture"), void: measured("void"), lookup: measured("lookup"),
	}
	g.batch, _ = p.(provider.Batch)
	_, g.forgets = p.(provider.Forgetful)
	return g
}

func (c call) of(do func() error) error {
	began := time.Now()
	err := do()
	c.took.Observe(time.Since(began).Seconds())
	if err != nil {
		c.failed.Inc()
	}
	return err
}

// ask finds out how attempts end and hands them to conclude as they do, some at a
// time, so that one call without an answer does not hold up the others. A result
// that stays 0 is unknown.
func (g *gateway) ask(ctx context.Context, tries []attempt, conclude func([]attempt)) {
	plain := g.batch != nil
	for i := range tries {
		plain = plain && !tries[i].Again && !tries[i].CancelWished
	}
	if plain {
		g.askAll(ctx, tries)
		conclude(tries)
		return
	}
	if g.serial {
		for i := range tries {
			tries[i].result = g.askOne(ctx, &tries[i])
		}
		conclude(tries)
		return
	}
	ended := make(chan attempt, len(tries))
	go func() {
		defer close(ended)
		g.eachOf(len(tries), func(i int) {
			t := tries[i]
			t.result = g.askOne(ctx, &t)
			ended <- t
		})
	}()
	tick := time.NewTicker(concludeEvery)
	defer tick.Stop()
	var some []attempt
	for open := true; open; {
		var t attempt
		select {
		case t, open = <-ended:
			if open {
				some = append(some, t)
			}
			if open && len(some) < len(tries) {
				continue
			}
		case <-tick.C:
		}
		if len(some) > 0 {
			conclude(some)
			some = nil
		}
	}
}

// concludeEvery is how often what has ended of a batch is written down while the
// rest is still asked for.
const concludeEvery = 50 * time.Millisecond

// eachOf runs f for each of n, at most MaxCalls at a time, and returns when all have
// ended.
func (g *gateway) eachOf(n int, f func(i int)) {
	if g.serial {
		for i := range n {
			f(i)
		}
		return
	}
	var next atomic.Int64
	var callers sync.WaitGroup
	for range min(n, MaxCalls) {
		callers.Go(func() {
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				f(i)
			}
		})
	}
	callers.Wait()
}

func (g *gateway) askAll(ctx context.Context, tries []attempt) {
	rs, out := make([]provider.Request, len(tries)), make([]provider.Auth, len(tries))
	for i := range tries {
		rs[i] = request(&tries[i])
	}
	if g.authorise.of(func() error { return g.batch.AuthoriseAll(ctx, rs, out) }) != nil {
		return
	}
	for i := range tries {
		tries[i].result = ended(out[i])
	}
}

func request(t *attempt) provider.Request {
	return provider.Request{Key: provider.Key(t.Order, t.Attempt), Order: t.Order, Buyer: t.Buyer, Amount: t.Amount}
}

func ended(a provider.Auth) orders.PaymentResult {
	switch a.Outcome {
	case provider.Approved:
		return orders.Confirmed
	case provider.Declined:
		return orders.Declined
	}
	return 0
}

// askOne finds out how one attempt ends. An error of the provider, whatever it is,
// leaves it unknown: nothing is confirmed or cancelled on a guess.
func (g *gateway) askOne(ctx context.Context, t *attempt) (result orders.PaymentResult) {
	key := provider.Key(t.Order, t.Attempt)
	if t.CancelWished {
		err := g.void.of(func() error { return g.p.Void(ctx, key) })
		if err == nil {
			return orders.Voided
		}
		if !errors.Is(err, provider.ErrRefused) {
			return 0
		}
	}
	if t.Again || t.CancelWished {
		var c provider.Charge
		err := g.lookup.of(func() (err error) { c, err = g.p.Lookup(ctx, key); return err })
		if err == nil {
			return resultOf(&c)
		}
		if !errors.Is(err, provider.ErrNotFound) {
			return 0
		}
		if t.Age > keyLife {
			if g.void.of(func() error { return g.p.Void(ctx, key) }) == nil {
				return orders.Declined
			}
			return 0
		}
	}
	_ = g.authorise.of(func() error {
		a, err := g.p.Authorise(ctx, request(t))
		if err == nil {
			result = ended(a)
		}
		return err
	})
	return result
}

// do captures or voids the charges of a task; errs is parallel to them.
func (g *gateway) do(ctx context.Context, t *ledger.Task) (errs []error) {
	errs = make([]error, len(t.Charges))
	switch {
	case t.Kind == ledger.Void:
		g.eachOf(len(errs), func(i int) {
			errs[i] = g.void.of(func() error { return g.p.Void(ctx, keyOf(&t.Charges[i])) })
		})
	case g.batch != nil:
		cs := make([]provider.Capture, len(errs))
		for i := range t.Charges {
			cs[i] = provider.Capture{Key: keyOf(&t.Charges[i]), Amount: amountOf(t, i)}
		}
		if err := g.capture.of(func() error { return g.batch.CaptureAll(ctx, cs, errs) }); err != nil {
			for i := range errs {
				errs[i] = err
			}
		}
	default:
		g.eachOf(len(errs), func(i int) {
			errs[i] = g.capture.of(func() error { return g.p.Capture(ctx, keyOf(&t.Charges[i]), amountOf(t, i)) })
		})
	}
	if t.Kind == ledger.Capture {
		g.eachOf(len(errs), func(i int) {
			if refuses(errs[i]) {
				errs[i] = g.verify(ctx, t, i, errs[i])
			}
		})
	}
	return errs
}

// refuses tells whether an answer is the provider's last word.
func refuses(err error) bool {
	return errors.Is(err, provider.ErrRefused) || errors.Is(err, provider.ErrNotFound) || errors.Is(err, provider.ErrMismatch)
}

// verify looks at a charge whose capture was refused: it may be taken already, by a
// capture of ours whose answer was lost, and providers differ in what they say then.
// nil: it is taken.
func (g *gateway) verify(ctx context.Context, t *ledger.Task, i int, refused error) error {
	var c provider.Charge
	err := g.lookup.of(func() (err error) { c, err = g.p.Lookup(ctx, keyOf(&t.Charges[i])); return err })
	switch want := amountOf(t, i); {
	case err != nil && !errors.Is(err, provider.ErrNotFound):
		return err
	case err == nil && (c.State == provider.StateCaptured || c.State == provider.StateRefunded) &&
		c.Captured == want.Amount && c.Currency == want.Currency:
		return nil
	}
	return refused
}

func keyOf(c *ledger.Charge) string { return provider.Key(c.Order, c.Attempt) }

func amountOf(t *ledger.Task, i int) engine.Money {
	return engine.Money{Amount: t.Charges[i].Amount, Currency: t.Book.Currency}
}
