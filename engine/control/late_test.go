package control_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/doorbuster/doorbuster/engine"
	"github.com/doorbuster/doorbuster/engine/control"
	"github.com/doorbuster/doorbuster/engine/orders"
	"github.com/doorbuster/doorbuster/stock"
)

// mail keeps what opens the sale: its sender has heard an error, and it comes later.
type mail struct {
	control.Orders
	control.Stock
	kept []func(ctx context.Context) error
}

var errUnheard = errors.New("no answer")

type mailOrders struct{ *mail }

func (m mailOrders) Redefine(ctx context.Context, def engine.Sale, n orders.Note) (int64, error) {
	m.kept = append(m.kept, func(ctx context.Context) error { _, err := m.Orders.Redefine(ctx, def, n); return err })
	return 0, errUnheard
}

func (m mailOrders) ResumeSale(ctx context.Context, id engine.SaleID, since time.Time, n orders.Note) error {
	m.kept = append(m.kept, func(ctx context.Context) error { return m.Orders.ResumeSale(ctx, id, since, n) })
	return errUnheard
}

type mailStock struct{ *mail }

func (m mailStock) Redefine(ctx context.Context, id engine.SaleID, g stock.Grip, def engine.Sale) error {
	return m.Stock.Redefine(ctx, id, g, def)
}

func (m mailStock) SetState(ctx context.Context, id engine.SaleID, g stock.Grip, to engine.SaleState) error {
	m.kept = append(m.kept, func(ctx context.Context) error { return m.Stock.SetState(ctx, id, g, to) })
	return errUnheard
}

func (b *bundle) late(m *mail, want error) {
	b.t.Helper()
	if len(m.kept) == 0 {
		b.t.Fatal("nothing is on its way")
	}
	for i, comes := range m.kept {
		if err := comes(b.t.Context()); !errors.Is(err, want) {
			b.t.Errorf("what comes late, %d of %d: %v, want %v", i+1, len(m.kept), err, want)
		}
	}
}

// A resume that nobody heard of, and that comes after the next pause, opens nothing:
// whoever heard that the sale is paused may go by that (law 14).
func TestLateResumeDoesNotUndoAPause(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.rebuild()
	b.ok(b.ctl.Pause(t.Context(), b.sale, note))
	whole, m := b.ctl, &mail{Orders: b.Store, Stock: b.stock}
	b.use(mailOrders{m}, b.stock)
	if err := b.ctl.Resume(t.Context(), b.sale, note); !errors.Is(err, errUnheard) {
		t.Fatal(err)
	}
	b.ok(whole.Pause(t.Context(), b.sale, note)) // it is paused, so far
	b.late(m, orders.ErrState)
	b.want(engine.SalePaused, engine.SalePaused)
	b.ok(whole.Resume(t.Context(), b.sale, note))
	b.ok(whole.Resume(t.Context(), b.sale, note))
	b.want(engine.SaleOpen, engine.SaleOpen)
}

// The same of what a resume, or recovery, sends to Redis.
func TestLateOpenInRedisDoesNotUndoAPause(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.rebuild()
	b.ok(b.ctl.Pause(t.Context(), b.sale, note))
	whole, m := b.ctl, &mail{Orders: b.Store, Stock: b.stock}
	b.use(b.Store, mailStock{m})
	if err := b.ctl.Resume(t.Context(), b.sale, note); !errors.Is(err, control.ErrUnsettled) {
		t.Fatal(err)
	}
	b.want(engine.SaleOpen, engine.SalePaused)
	b.ok(whole.Pause(t.Context(), b.sale, note)) // Redis says so already
	b.late(m, stock.ErrStale)
	b.want(engine.SalePaused, engine.SalePaused)
}

// A change that comes late takes back nothing that came before it, and changes no sale
// that is over.
func TestLateChange(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.rebuild()
	whole, m := b.ctl, &mail{Orders: b.Store, Stock: b.stock}
	b.use(mailOrders{m}, b.stock)
	one, later := int64(1), time.Now().Add(9*time.Hour).UTC().Truncate(time.Millisecond)
	if err := b.ctl.Redefine(t.Context(), b.sale, control.Change{LimitPerBuyer: &one}, note); !errors.Is(err, errUnheard) {
		t.Fatal(err)
	}
	b.ok(whole.Redefine(t.Context(), b.sale, control.Change{Closes: &later}, note))
	b.late(m, orders.ErrState)
	def, _, err := b.Sale(t.Context(), b.sale)
	b.ok(err)
	if !def.Closes.Equal(later) || def.LimitPerBuyer != 2 {
		t.Errorf("it closes at %s, %d each", def.Closes, def.LimitPerBuyer)
	}
	m.kept = nil
	if err := b.ctl.Redefine(t.Context(), b.sale, control.Change{LimitPerBuyer: &one}, note); !errors.Is(err, errUnheard) {
		t.Fatal(err)
	}
	b.ok(whole.Close(t.Context(), b.sale, note))
	b.late(m, orders.ErrState)
}

// faster lets another change the sale between reading and writing it, once.
type faster struct {
	control.Orders
	also func()
}

func (f *faster) Redefine(ctx context.Context, def engine.Sale, n orders.Note) (int64, error) {
	if also := f.also; also != nil {
		f.also = nil
		also()
	}
	return f.Orders.Redefine(ctx, def, n)
}

func TestTwoChangesAtOnce(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.rebuild()
	one, later, whole := int64(1), time.Now().Add(9*time.Hour).UTC().Truncate(time.Millisecond), b.ctl
	b.use(&faster{b.Store, func() { b.ok(whole.Redefine(t.Context(), b.sale, control.Change{Closes: &later}, note)) }}, b.stock)
	b.ok(b.ctl.Redefine(t.Context(), b.sale, control.Change{LimitPerBuyer: &one}, note))
	def, _, err := b.Sale(t.Context(), b.sale)
	b.ok(err)
	if !def.Closes.Equal(later) || def.LimitPerBuyer != 1 || def.Version != 3 {
		t.Errorf("version %d closes at %s, %d each", def.Version, def.Closes, def.LimitPerBuyer)
	}
}
