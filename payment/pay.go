package payment

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/doorbuster/doorbuster/engine"
	"github.com/doorbuster/doorbuster/engine/failpoint"
	"github.com/doorbuster/doorbuster/engine/orders"
	"github.com/doorbuster/doorbuster/engine/postgres"
	"github.com/doorbuster/doorbuster/payment/ledger"
	"github.com/doorbuster/doorbuster/payment/provider"
)

// When an attempt of unknown outcome is looked up: soon the first time, for most
// time-outs are over then, and later with more patience. It is asked for as long as it
// is unknown, and never guessed.
const (
	firstLook = 300 * time.Millisecond
	nextLook  = 2 * time.Second
	maxLook   = 5 * time.Minute // between two looks, at most
	lookShare = 4               // a look is no sooner than this part of the order's age
	strayLook = time.Minute     // of an order nobody here can pay

	// overdueAfter is the age from which on an order of unknown outcome is an
	// operator's business: it is logged, and each look is counted.
	overdueAfter = 10 * time.Minute
	overdueTold  = 10_000 // orders remembered, so as to be logged once

	// keyLife is how long an authorise is repeated under its key. Providers forget
	// idempotency keys after 24 hours or more (Stripe: "at least 24 hours", November
	// 2026): a repeat after that would be another charge. An attempt that the provider
	// does not know by then is voided, which closes its key for good, and so it ends as
	// declined by the provider's own word.
	keyLife = 20 * time.Hour
)

// lookAfter says when an attempt that stays unknown is looked up next: it doubles with
// the order's age, at most maxLook.
func lookAfter(age time.Duration) time.Duration {
	next := nextLook
	for next < age/lookShare && next < maxLook {
		next *= 2
	}
	return min(next, maxLook)
}

// claimLimit is how many orders one poll takes.
const claimLimit = 4 * engine.MaxGroup

func (w *Worker) nudgePayers(n int) {
	if n == 0 {
		return
	}
	select {
	case w.wakePay <- struct{}{}:
	default:
	}
}

// payLoop pays what ingest hands over and what comes due, until ctx has ended and
// toPay is closed and empty.
func (w *Worker) payLoop(ctx, work context.Context) {
	p := w.pace("pay")
	poll := time.NewTicker(jitter(pollEvery) + pollEvery/2)
	defer poll.Stop()
	for {
		select {
		case <-poll.C: // first, so that a full channel never starves what came due
			w.payDue(ctx, work, p)
			continue
		default:
		}
		select {
		case batch, open := <-w.toPay:
			if !open {
				return
			}
			w.payInHand(work, batch)
			<-w.slots
		case <-w.wakePay:
			w.payDue(ctx, work, p)
		case <-poll.C:
			w.payDue(ctx, work, p)
		}
	}
}

// payDue pays what has come due, batch by batch, until there is no more of it or
// ingest has handed something over.
func (w *Worker) payDue(ctx, work context.Context, p *pace) {
	for ctx.Err() == nil {
		n, err := w.payOnce(work, p.limit())
		if !p.met(ctx, err) || err != nil || n == 0 || len(w.toPay) > 0 {
			if n > 0 {
				w.nudgePayers(n) // there may be more
			}
			return
		}
	}
}

// payOnce claims one batch and pays it.
func (w *Worker) payOnce(ctx context.Context, limit time.Duration) (claimed int, err error) {
	failpoint.Hit("pay/before-claim")
	done := w.m.stage("claim")
	asking, cancel := w.within(ctx, limit)
	batch, err := w.cfg.Orders.Claim(asking, orders.ClaimOptions{Limit: claimLimit, Lease: payLease})
	cancel()
	done(err)
	if err != nil || len(batch) == 0 {
		return 0, err
	}
	failpoint.Hit("pay/after-claim")
	return len(batch), w.pay(ctx, batch)
}

// attempt is one order on its way through pay.
type attempt struct {
	orders.Payable
	result orders.PaymentResult // 0: unknown
}

// pay asks the provider for a batch of one sale and writes down what is known. The
// rest is deferred. An error says that the batch was given up: its lease ends and
// somebody takes it again.
func (w *Worker) pay(ctx context.Context, batch []orders.Payable) error {
	w.m.inHand.Add(float64(len(batch)))
	defer w.m.inHand.Sub(float64(len(batch)))
	g := w.gateways[batch[0].Provider]
	if g == nil {
		w.log.Error("no such provider", "provider", batch[0].Provider, "sale", batch[0].Sale, "orders", len(batch))
		return w.later(ctx, batch[0].Sale, ids(batch), strayLook)
	}
	if g.forgets {
		w.warnForgetful(&batch[0])
	}
	tries := make([]attempt, len(batch))
	for i := range batch {
		tries[i].Payable = batch[i]
	}
	var errs []error
	unknown := 0
	lease := w.holdLease(ctx, batch)
	defer lease.stop()
	failpoint.Hit("pay/before-authorise")
	g.ask(ctx, tries, func(ended []attempt) {
		n, err := w.conclude(ctx, ended)
		lease.release(ended)
		unknown += n
		errs = append(errs, err)
	})
	if unknown == len(tries) {
		errs = append(errs, errSilent)
	}
	return errors.Join(errs...)
}

// warnForgetful says, once a sale, that its money is not real.
func (w *Worker) warnForgetful(p *orders.Payable) {
	if _, known := w.forgetful.LoadOrStore(p.Sale, true); !known {
		w.log.Warn("this sale is paid by a provider that moves no money and forgets its book when the process ends: for benches and demos only",
			"sale", p.Sale, "provider", p.Provider)
	}
}

// errSilent makes a payer slow down while a provider answers nothing.
var errSilent = errors.New("the provider gives no answer")

// conclude writes down how attempts ended, and counts those of unknown end.
func (w *Worker) conclude(ctx context.Context, tries []attempt) (unknown int, err error) {
	sale := tries[0].Sale
	var known []attempt
	next := map[time.Duration][]engine.OrderID{}
	for _, t := range tries {
		switch {
		case t.result != 0:
			known = append(known, t)
			continue
		case t.Again:
			next[lookAfter(t.Age)] = append(next[lookAfter(t.Age)], t.Order)
		default:
			next[firstLook] = append(next[firstLook], t.Order)
		}
		unknown++
		if t.Age >= overdueAfter {
			w.overdue(&t)
		}
	}
	w.m.unknown.Add(float64(unknown))
	if len(known) > 0 {
		failpoint.Hit("pay/after-authorise")
		err = w.settle(ctx, known)
	}
	for _, after := range slices.Sorted(maps.Keys(next)) {
		err = errors.Join(err, w.later(ctx, sale, next[after], min(w.jitter(2*after), maxLook)))
	}
	return unknown, err
}

// overdue tells an operator of an order whose payment is unknown for long.
func (w *Worker) overdue(t *attempt) {
	w.m.overdue.Inc()
	w.told.Lock()
	defer w.told.Unlock()
	if w.told.orders[t.Order] {
		return
	}
	if len(w.told.orders) >= overdueTold {
		clear(w.told.orders)
	}
	w.told.orders[t.Order] = true
	w.log.Error("the provider does not say how a payment ended: ask them", "sale", t.Sale, "order", t.Order,
		"key", provider.Key(t.Order, t.Attempt), "provider", t.Provider, "age", t.Age.Round(time.Second))
}

// later makes orders due again. If it fails, their lease makes them due.
func (w *Worker) later(ctx context.Context, sale engine.SaleID, ids []engine.OrderID, next time.Duration) error {
	if len(ids) == 0 {
		return nil
	}
	ctx, cancel := w.within(ctx, payLease)
	defer cancel()
	return w.cfg.Orders.Defer(ctx, sale, ids, next)
}

func ids(batch []orders.Payable) []engine.OrderID {
	out := make([]engine.OrderID, len(batch))
	for i := range batch {
		out[i] = batch[i].Order
	}
	return out
}

// settle writes known ends, trying for writeMost; the lease is renewed meanwhile. After
// that somebody else has the orders, finds the same answers at the provider and does it.
func (w *Worker) settle(ctx context.Context, known []attempt) error {
	ctx, cancel := w.within(ctx, writeMost)
	defer cancel()
	p := w.pace("settle")
	for {
		lost, err := w.settleOnce(ctx, known, p.limit())
		if err == nil {
			err = w.compensate(ctx, lost)
		}
		switch {
		case err == nil:
			p.met(ctx, nil)
			return nil
		case postgres.OfTheData(err) && len(known) > 1:
			half := len(known) / 2
			return errors.Join(w.settle(ctx, known[:half]), w.settle(ctx, known[half:]))
		case postgres.OfTheData(err):
			w.log.Error("cannot be settled", "sale", known[0].Sale, "order", known[0].Order, "err", err)
			return errors.Join(err, w.later(ctx, known[0].Sale, []engine.OrderID{known[0].Order}, strayLook))
		}
		if !p.met(ctx, err) {
			return err
		}
	}
}

// settleOnce writes known ends in one transaction, with the charges of those
// confirmed, and returns the attempts that were approved in vain.
func (w *Worker) settleOnce(ctx context.Context, known []attempt, limit time.Duration) (lost []attempt, err error) {
	done := w.m.stage("settle")
	defer func() { done(err) }()
	defer w.giveWay.take(ctx)()
	ctx, cancel := w.within(ctx, limit)
	defer cancel()
	sale, first := known[0].Sale, known[0]
	book, err := w.cfg.Ledger.Book(ctx, sale, first.Provider, first.Amount.Currency)
	if err != nil {
		return nil, err
	}
	payments := make([]orders.Payment, len(known))
	for i, k := range known {
		payments[i] = orders.Payment{Order: k.Order, Attempt: k.Attempt, Result: k.result}
	}
	lease, hand := captureLease, len(w.toCapture) < tasksInHand/2
	if !hand {
		lease = 0 // the capturers are behind: their poll takes it in its turn
	}
	var task ledger.Task
	settled, err := w.cfg.Orders.Settle(ctx, sale, payments, func(ctx context.Context, tx pgx.Tx, confirmed []orders.Payable) (err error) {
		charges := make([]ledger.Charge, len(confirmed))
		for i := range confirmed {
			charges[i] = charge(&confirmed[i])
		}
		task, err = w.cfg.Ledger.Authorise(ctx, tx, book, charges, lease)
		return err
	})
	if err != nil {
		return nil, err
	}
	failpoint.Hit("pay/after-settle")
	if w.cfg.Moved != nil {
		w.cfg.Moved(sale)
	}
	// A transaction that PostgreSQL made run twice may have confirmed nobody the
	// second time: then the task is of the first, which was rolled back.
	if hand && slices.ContainsFunc(settled, func(s orders.Settled) bool { return s.Won && s.State == engine.Confirmed }) {
		select {
		case w.toCapture <- task:
		default: // its row comes due
		}
	}
	return w.judge(known, settled), nil
}

func charge(p *orders.Payable) ledger.Charge {
	return ledger.Charge{Order: p.Order, Attempt: p.Attempt, Amount: p.Amount.Amount}
}

// judge counts what was won, and returns the attempts that were approved although
// their order was not confirmed by them.
func (w *Worker) judge(known []attempt, settled []orders.Settled) (lost []attempt) {
	for i, s := range settled {
		k := known[i]
		approved := k.result == orders.Confirmed
		switch {
		case s.Won:
			w.m.paid[k.result].Inc()
		case approved && s.State == engine.Confirmed && s.Attempt == k.Attempt:
			w.m.repeated.Inc() // somebody was faster, with the same charge
		case approved:
			lost = append(lost, k)
		case s.State == engine.Confirmed && s.Attempt == k.Attempt:
			w.m.contradicted.Inc()
			w.log.Error("confirmed, but the provider says declined or voided", "sale", k.Sale, "order", k.Order, "attempt", k.Attempt)
		default:
			w.m.repeated.Inc()
		}
	}
	return lost
}

// compensate has approved attempts voided whose orders were lost. It is written
// down first, so that a crash does not leave money authorised for nothing.
func (w *Worker) compensate(ctx context.Context, lost []attempt) error {
	if len(lost) == 0 {
		return nil
	}
	w.m.lost.Add(float64(len(lost)))
	book, err := w.cfg.Ledger.Book(ctx, lost[0].Sale, lost[0].Provider, lost[0].Amount.Currency)
	if err != nil {
		return err
	}
	charges := make([]ledger.Charge, len(lost))
	for i := range lost {
		charges[i] = charge(&lost[i].Payable)
	}
	return w.cfg.Ledger.OweVoid(ctx, book, charges, 0)
}

// resultOf reads the end of an attempt from the provider's charge.
func resultOf(c *provider.Charge) orders.PaymentResult {
	switch c.State {
	case provider.StateAuthorised, provider.StateCaptured:
		return orders.Confirmed
	case provider.StateDeclined, provider.StateVoided, provider.StateRefunded:
		return orders.Declined
	}
	return 0
}
