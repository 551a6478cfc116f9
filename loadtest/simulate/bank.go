package simulate

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/doorbuster/doorbuster/engine"
	"github.com/doorbuster/doorbuster/payment/ledger"
	"github.com/doorbuster/doorbuster/payment/provider"
)

// bank is the simulated payment provider. What a charge may become is provider.Charge's.
type bank struct {
	service
	charges map[string]*provider.Charge
}

func newBank(w *world) *bank {
	return &bank{service: service{w: w, name: "bank", odds: odds{.05, .08, .05, .02}}, charges: map[string]*provider.Charge{}}
}

// do is a call whose outcome is unknown when nobody answers.
func (b *bank) do(ctx context.Context, op string, effect func() error) error {
	heard := false
	err := b.call(ctx, op, writes, func() error { err := effect(); heard = true; return err })
	if err != nil && (!heard || err == errTimeout) { //nolint:errorlint // it is returned bare
		return fmt.Errorf("%w: %w", provider.ErrUnknown, err)
	}
	return err
}

func (b *bank) Authorise(ctx context.Context, r provider.Request) (provider.Auth, error) {
	var auth provider.Auth
	err := b.do(ctx, "authorise "+r.Key[:6], func() (err error) {
		if c := b.charges[r.Key]; c != nil {
			auth, err = c.Repeat(r)
			return err
		}
		auth.Outcome = provider.Approved
		if b.w.rng.IntN(5) == 0 && !b.w.rushed {
			auth.Outcome = provider.Declined
		}
		c := provider.Authorised(r, auth.Outcome)
		b.charges[r.Key] = &c
		b.w.laws.money()
		return nil
	})
	return forget(auth, err)
}

func (b *bank) Capture(ctx context.Context, key string, amount engine.Money) error {
	return b.do(ctx, "capture "+key[:6], func() error {
		c := b.charges[key]
		if c == nil {
			return provider.ErrNotFound
		}
		_, err := c.Capture(amount)
		return err
	})
}

func (b *bank) Void(ctx context.Context, key string) error {
	return b.do(ctx, "void "+key[:6], func() error {
		c := b.charges[key]
		if c == nil {
			closed := provider.Closed(key)
			b.charges[key] = &closed
			return nil
		}
		_, err := c.Void()
		return err
	})
}

// Refund is not asked for in a story.
func (b *bank) Refund(context.Context, string, string, engine.Money) error {
	return provider.ErrRefused
}

func (b *bank) Lookup(ctx context.Context, key string) (provider.Charge, error) {
	var found provider.Charge
	err := b.do(ctx, "look up "+key[:6], func() error {
		c := b.charges[key]
		if c == nil {
			return provider.ErrNotFound
		}
		found = *c
		return nil
	})
	return forget(found, err)
}

// Book is ledger.Store.Book.
func (c conn) Book(ctx context.Context, sale engine.SaleID, name, currency string) (ledger.Book, error) {
	return ledger.Book{No: 1, Sale: sale, Provider: name, Currency: currency}, gone(ctx)
}

// Authorise is part of the transaction that settles: it is no call of its own.
func (c conn) Authorise(_ context.Context, _ pgx.Tx, book ledger.Book, charges []ledger.Charge, lease time.Duration) (ledger.Task, error) {
	for _, ch := range charges {
		if _, twice := c.books[ch]; twice {
			c.w.laws.breaks("law 6: order %s is charged twice in the ledger", ch.Order)
		}
		c.books[ch] = ledger.Authorised
	}
	return c.owe(ledger.Task{Kind: ledger.Capture, Book: book, Charges: charges}, lease), nil
}

func (c conn) owe(t ledger.Task, due time.Duration) ledger.Task {
	c.serial++
	t.ID = c.serial
	c.tasks = append(c.tasks, &task{t, c.time().Add(due)})
	return t
}

// OweVoid is ledger.Store.OweVoid.
func (c conn) OweVoid(ctx context.Context, book ledger.Book, charges []ledger.Charge, due time.Duration) error {
	charges = slices.Clone(charges)
	return c.put(ctx, "owe void", func() error {
		c.owe(ledger.Task{Kind: ledger.Void, Book: book, Charges: charges}, due)
		return nil
	})
}

// Due is ledger.Store.Due.
func (c conn) Due(ctx context.Context, most int, lease time.Duration) ([]ledger.Task, error) {
	var out []ledger.Task
	err := c.put(ctx, "due tasks", func() error {
		for _, t := range c.tasks {
			if !t.due.After(c.time()) && len(out) < most {
				t.due = c.time().Add(lease)
				t.Tries++
				out = append(out, t.Task)
			}
		}
		return nil
	})
	return forget(out, err)
}

// Finish is ledger.Store.Finish.
func (c conn) Finish(ctx context.Context, results []ledger.Result) (captured int, err error) {
	err = c.put(ctx, "finish tasks", func() error {
		were := slices.Clone(c.tasks)
		for _, r := range results {
			c.tasks = slices.DeleteFunc(c.tasks, func(t *task) bool { return t.ID == r.Task.ID })
			if r.Task.Kind == ledger.Capture {
				captured += c.move(r.Done, ledger.Captured)
				c.move(r.Refused, ledger.Refused)
			}
		}
		for _, r := range results {
			if len(r.Later) > 0 && slices.ContainsFunc(were, func(t *task) bool { return t.ID == r.Task.ID }) {
				c.owe(ledger.Task{Kind: r.Task.Kind, Book: r.Task.Book, Charges: r.Later, Tries: r.Task.Tries}, r.Next)
			}
		}
		return nil
	})
	return captured, err
}

func (c conn) move(charges []ledger.Charge, to ledger.State) (n int) {
	for _, ch := range charges {
		if st := c.books[ch]; st == ledger.Authorised || st == ledger.Refused && to == ledger.Captured {
			c.books[ch] = to
			n++
		}
	}
	return n
}

// Owed is for metrics only.
func (c conn) Owed(context.Context) (captures, voids int64, err error) { return 0, 0, nil }
