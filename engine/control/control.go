package control

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/doorbuster/doorbuster/engine"
	"github.com/doorbuster/doorbuster/engine/orders"
	"github.com/doorbuster/doorbuster/stock"
)

// Refusals of this package. They come wrapped with the sale they are about.
var (
	// ErrNote says that an act came without who or why.
	ErrNote = errors.New("say who does this and why")
	// ErrIllegal says that the sale's present state does not allow the act.
	ErrIllegal = errors.New("not possible in the sale's present state")
	// ErrInvalid says that a number or a definition is out of its bounds.
	ErrInvalid = errors.New("invalid")
	// ErrUnsettled says that PostgreSQL has recorded the act and Redis has not
	// followed in SettleWithin: it is down, or being rebuilt. A rebuild will use
	// what PostgreSQL says; repeat the act to be sure.
	ErrUnsettled = errors.New("recorded, but Redis has not followed yet: repeat it")
)

// Bounds of an act.
const (
	MaxNoteLen   = 500              // bytes of who, and of why
	SettleWithin = 10 * time.Second // until an act gives up on Redis
	settlePause  = 50 * time.Millisecond
	trailShown   = 50 // lines of the trail in a View
)

// Note says who does something, and why. Both are needed.
type Note = orders.Note

// Orders is what it asks of engine/orders; *orders.Store has it.
type Orders interface {
	CreateSale(ctx context.Context, sale engine.Sale, note orders.Note) error
	Sale(ctx context.Context, id engine.SaleID) (engine.Sale, orders.Status, error)
	SetSaleState(ctx context.Context, sale engine.SaleID, to engine.SaleState, note orders.Note) error
	ResumeSale(ctx context.Context, sale engine.SaleID, since time.Time, note orders.Note) error
	Redefine(ctx context.Context, def engine.Sale, note orders.Note) (version int64, err error)
	Restock(ctx context.Context, sale engine.SaleID, sku engine.SKU, n int64, note orders.Note) (move int64, err error)
	RequestWithdraw(ctx context.Context, sale engine.SaleID, sku engine.SKU, n int64, note orders.Note) (move int64, err error)
	Backlog(ctx context.Context, sale engine.SaleID) (int64, error)
	Trail(ctx context.Context, sale engine.SaleID, limit int) ([]orders.TrailEntry, error)
}

// Stock is what it asks of stock; *stock.Store has it.
type Stock interface {
	Watch(ctx context.Context, sale engine.SaleID, epoch int64) (stock.Watch, error)
	SetState(ctx context.Context, sale engine.SaleID, g stock.Grip, state engine.SaleState) error
	Redefine(ctx context.Context, sale engine.SaleID, g stock.Grip, def engine.Sale) error
}

// Config wires a Control. Orders and Stock are needed.
type Config struct {
	Orders       Orders
	Stock        Stock
	KeyNumber    int           // of the master key for order ids of sales created here; 0 is 1
	SettleWithin time.Duration // 0 is SettleWithin
	Logger       *slog.Logger  // nil: none

	// CheckDurable tells why Redis is not fit for a sale of durable mode; such a
	// sale is not created then. nil: nobody looks.
	CheckDurable func(ctx context.Context, sale engine.SaleID) error

	// Clock is what waits go by; nil is the real one.
	Clock *Clock
}

// Clock is for a caller who steps through time (a simulator).
type Clock struct {
	Now   func() time.Time
	Sleep func(ctx context.Context, d time.Duration) bool // false if ctx has ended
}

func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

// Control acts on sales.
type Control struct{ cfg Config }

// New returns a Control.
func New(cfg Config) *Control {
	if cfg.SettleWithin <= 0 {
		cfg.SettleWithin = SettleWithin
	}
	if cfg.KeyNumber <= 0 {
		cfg.KeyNumber = 1
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Clock == nil {
		cfg.Clock = &Clock{Now: time.Now, Sleep: sleep}
	}
	return &Control{cfg: cfg}
}

// Create writes a new sale to PostgreSQL, scheduled; recovery loads it into
// Redis. orders.ErrSaleExists, ErrInvalid, ErrNote, and of a durable sale what
// CheckDurable says.
func (c *Control) Create(ctx context.Context, sale engine.Sale, note Note) error {
	if err := checkNote(note); err != nil {
		return fmt.Errorf("create sale %s: %w", sale.ID, err)
	}
	if err := Validate(&sale); err != nil {
		return fmt.Errorf("create sale %s: %w", sale.ID, err)
	}
	if sale.Mode == engine.ModeDurable && c.cfg.CheckDurable != nil {
		if err := c.cfg.CheckDurable(ctx, sale.ID); err != nil {
			return fmt.Errorf("create sale %s: %w", sale.ID, err)
		}
	}
	if sale.KeyNumber == 0 {
		sale.KeyNumber = c.cfg.KeyNumber
	}
	if err := c.cfg.Orders.CreateSale(ctx, sale, note); err != nil {
		return fmt.Errorf("create sale %s: %w", sale.ID, err)
	}
	c.done(sale.ID, "create", note)
	return nil
}

// Pause makes every door refuse new orders within a second. Live orders go on.
// ErrIllegal, ErrUnsettled, ErrNote, orders.ErrNoSale.
func (c *Control) Pause(ctx context.Context, sale engine.SaleID, note Note) error {
	return c.tighten(ctx, sale, engine.SalePaused, note)
}

// Close ends the sale for good; live orders go on to their end. Errors as Pause.
func (c *Control) Close(ctx context.Context, sale engine.SaleID, note Note) error {
	return c.tighten(ctx, sale, engine.SaleClosed, note)
}

// Resume lets a paused sale sell again, within its window. ErrIllegal also when that
// is over: it would be closed for good at once. Redefine can move its end. Errors as
// Pause.
func (c *Control) Resume(ctx context.Context, sale engine.SaleID, note Note) error {
	const to = engine.SaleOpen
	since, err := c.allowed(ctx, sale, to, note)
	if err != nil {
		return err
	}
	if err := c.cfg.Orders.ResumeSale(ctx, sale, since, note); err != nil {
		return stateError(sale, to, err)
	}
	c.done(sale, string(to), note)
	return c.settle(ctx, sale, false)
}

// tighten stops the doors first. What dies before PostgreSQL knows leaves a sale
// that refuses too much, and an operator who heard an error.
func (c *Control) tighten(ctx context.Context, sale engine.SaleID, to engine.SaleState, note Note) error {
	if _, err := c.allowed(ctx, sale, to, note); err != nil {
		return err
	}
	c.stopDoors(ctx, sale, to)
	if err := c.cfg.Orders.SetSaleState(ctx, sale, to, note); err != nil {
		if errors.Is(err, orders.ErrState) {
			// Somebody else moved the sale in between: Redis must say what PostgreSQL says.
			return errors.Join(stateError(sale, to, err), c.settle(ctx, sale, false))
		}
		return stateError(sale, to, err)
	}
	c.done(sale, string(to), note)
	return c.settle(ctx, sale, true)
}

// allowed refuses what the transition table does, before anything is written.
// To be in the state already is allowed: acts may be repeated. It returns since when
// the sale is in its state.
func (c *Control) allowed(ctx context.Context, id engine.SaleID, to engine.SaleState, note Note) (since time.Time, err error) {
	if err := checkNote(note); err != nil {
		return since, fmt.Errorf("%s sale %s: %w", verbs[to], id, err)
	}
	sale, st, err := c.cfg.Orders.Sale(ctx, id)
	if err != nil {
		return since, fmt.Errorf("%s sale %s: %w", verbs[to], id, err)
	}
	resumable := to != engine.SaleOpen || sale.State == engine.SalePaused
	if sale.State != to && (!sale.State.CanBecome(to) || !resumable) {
		return since, fmt.Errorf("%s sale %s: it is %s: %w", verbs[to], id, sale.State, ErrIllegal)
	}
	if to == engine.SaleOpen && sale.State == engine.SalePaused && !sale.Closes.After(st.Now) {
		return since, fmt.Errorf("%s sale %s: its window ended at %s: give it a later end (`doorbuster sale change --closes`) or close it: %w",
			verbs[to], id, sale.Closes.Format(time.RFC3339), ErrIllegal)
	}
	return st.Since, nil
}

var verbs = map[engine.SaleState]string{
	engine.SaleOpen: "resume", engine.SalePaused: "pause", engine.SaleClosed: "close",
}

func stateError(sale engine.SaleID, to engine.SaleState, err error) error {
	if errors.Is(err, orders.ErrState) {
		return fmt.Errorf("%s sale %s: %w: %w", verbs[to], sale, ErrIllegal, err)
	}
	return fmt.Errorf("%s sale %s: %w", verbs[to], sale, err)
}

// stopDoors tries once: settle makes sure afterwards.
func (c *Control) stopDoors(ctx context.Context, sale engine.SaleID, to engine.SaleState) {
	w, err := c.cfg.Stock.Watch(ctx, sale, 0)
	if err == nil && w.State != to {
		err = c.cfg.Stock.SetState(ctx, sale, w.Grip, to)
	}
	if err != nil {
		c.cfg.Logger.Warn("the doors could not be stopped before PostgreSQL is told", "sale", sale, "to", to, "error", err)
	}
}

// settle makes Redis say what PostgreSQL says. PostgreSQL is read after Redis, whose
// script takes nothing from who read before another wrote: so who read PostgreSQL before
// another changed it is refused, or the other writes after him. firmly also writes what
// Redis says already: a word to open the sale may still be on its way there, from one who
// read before, and then does nothing.
func (c *Control) settle(ctx context.Context, id engine.SaleID, firmly bool) error {
	return c.until(ctx, id, func(ctx context.Context, sale *engine.Sale) (bool, error) {
		if _, loaded := stateInRedis[sale.State]; !loaded || sale.Epoch == 0 {
			return true, nil // what loads it will read the state from PostgreSQL
		}
		w, err := c.cfg.Stock.Watch(ctx, id, sale.Epoch)
		if err != nil {
			return false, err
		}
		now, _, err := c.cfg.Orders.Sale(ctx, id)
		if err != nil {
			return false, err
		}
		want := stateInRedis[now.State]
		if w.State == want && !w.Frozen && !firmly {
			return true, nil
		}
		err = c.cfg.Stock.SetState(ctx, id, w.Grip, want)
		firmly = firmly && err != nil
		return false, err
	})
}

// stateInRedis is what the slot of a sale says; the window decides whether an
// open one sells.
var stateInRedis = map[engine.SaleState]engine.SaleState{
	engine.SaleScheduled: engine.SaleOpen, engine.SaleOpen: engine.SaleOpen,
	engine.SalePaused: engine.SalePaused, engine.SaleClosed: engine.SaleClosed, engine.SaleSettled: engine.SaleClosed,
}

// until repeats step with the sale as PostgreSQL has it until step is done, for
// at most SettleWithin. A rebuild, a restart and another operator are all met by
// reading again.
func (c *Control) until(ctx context.Context, id engine.SaleID, step func(context.Context, *engine.Sale) (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.SettleWithin)
	defer cancel()
	var last error
	for ends := c.cfg.Clock.Now().Add(c.cfg.SettleWithin); ; {
		sale, _, err := c.cfg.Orders.Sale(ctx, id)
		done := false
		if err == nil {
			done, err = step(ctx, &sale)
		}
		if done {
			return nil
		}
		if err != nil && ctx.Err() == nil {
			last = err
		}
		if !c.cfg.Clock.Sleep(ctx, settlePause) || !c.cfg.Clock.Now().Before(ends) {
			return fmt.Errorf("sale %s: %w (%w)", id, ErrUnsettled, cmp.Or(last, ctx.Err(), context.DeadlineExceeded))
		}
	}
}

// Restock adds units, PostgreSQL first; recovery takes them to Redis, where they
// are for sale a moment later. Calling again adds again. ErrInvalid, ErrIllegal
// of a sale that is over, orders.ErrNoSale, orders.ErrNoSKU.
func (c *Control) Restock(ctx context.Context, sale engine.SaleID, sku engine.SKU, units int64, note Note) error {
	if err := c.movable(ctx, "restock", sale, units, note); err != nil {
		return err
	}
	if _, err := c.cfg.Orders.Restock(ctx, sale, sku, units, note); err != nil {
		return fmt.Errorf("restock sale %s, %d of %s: %w", sale, units, sku, err)
	}
	c.done(sale, "restock", note)
	return nil
}

// Withdraw asks for unsold units to be taken out: min(units, available) when
// recovery applies it, Redis first; then PostgreSQL knows how many. Calling again
// takes out again. Errors as Restock.
func (c *Control) Withdraw(ctx context.Context, sale engine.SaleID, sku engine.SKU, units int64, note Note) error {
	if err := c.movable(ctx, "withdraw", sale, units, note); err != nil {
		return err
	}
	if _, err := c.cfg.Orders.RequestWithdraw(ctx, sale, sku, units, note); err != nil {
		return fmt.Errorf("withdraw from sale %s, %d of %s: %w", sale, units, sku, err)
	}
	c.done(sale, "withdraw", note)
	return nil
}

func (c *Control) movable(ctx context.Context, verb string, id engine.SaleID, units int64, note Note) error {
	if err := checkNote(note); err != nil {
		return fmt.Errorf("%s sale %s: %w", verb, id, err)
	}
	if units < 1 || units > engine.MaxUnits {
		return fmt.Errorf("%s sale %s: %d units, want 1 to %d: %w", verb, id, units, engine.MaxUnits, ErrInvalid)
	}
	sale, _, err := c.cfg.Orders.Sale(ctx, id)
	if err != nil {
		return fmt.Errorf("%s sale %s: %w", verb, id, err)
	}
	if sale.State == engine.SaleClosed || sale.State == engine.SaleSettled {
		return fmt.Errorf("%s sale %s: it is %s: %w", verb, id, sale.State, ErrIllegal)
	}
	return nil
}

func checkNote(n Note) error {
	if n.Who == "" || n.Why == "" {
		return ErrNote
	}
	if len(n.Who) > MaxNoteLen || len(n.Why) > MaxNoteLen {
		return fmt.Errorf("%w, in at most %d bytes each", ErrNote, MaxNoteLen)
	}
	return nil
}

func (c *Control) done(sale engine.SaleID, what string, note Note) {
	c.cfg.Logger.Info("sale changed by hand", "sale", sale, "what", what, "who", note.Who, "why", note.Why)
}
