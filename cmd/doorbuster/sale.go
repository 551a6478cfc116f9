package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/user"
	"strconv"
	"text/tabwriter"
	"time"

	"github.com/doorbuster/doorbuster/engine"
	"github.com/doorbuster/doorbuster/engine/control"
	"github.com/doorbuster/doorbuster/engine/orders"
	"github.com/doorbuster/doorbuster/engine/postgres"
	"github.com/doorbuster/doorbuster/stock"
)

// SaleCmd groups what an operator does to a sale.
type SaleCmd struct {
	Create   SaleCreateCmd   `cmd:"" help:"Create a sale from a YAML file; it is loaded within a second or two where a recovery role runs."`
	Show     SaleShowCmd     `cmd:"" help:"Show a sale: definition, state, units."`
	Pause    SalePauseCmd    `cmd:"" help:"Refuse new orders at every door within a second."`
	Resume   SaleResumeCmd   `cmd:"" help:"Undo pause."`
	Change   SaleChangeCmd   `cmd:"" help:"Move the sale's window."`
	Close    SaleCloseCmd    `cmd:"" help:"End the sale; live orders go on."`
	Restock  SaleRestockCmd  `cmd:"" help:"Add units of an item."`
	Withdraw SaleWithdrawCmd `cmd:"" help:"Take unsold units of an item out of the sale."`
}

// SaleCreateCmd creates a sale.
type SaleCreateCmd struct {
	JSON JSONFlag `help:"Print JSON." name:"json"`
	File string   `short:"f" required:"" help:"Sale file (YAML)." placeholder:"sale.yaml" type:"existingfile"`
	Why  string   `help:"Reason, for the trail." default:"created by the command line"`
}

// SaleRef names a sale and the reason for what is done to it.
type SaleRef struct {
	JSON JSONFlag `help:"Print JSON." name:"json"`
	Sale string   `required:"" help:"Sale id."`
	Why  string   `help:"Reason, for the trail." default:"by the command line"`
}

// SaleUnits names a number of units of an item.
type SaleUnits struct {
	SaleRef
	SKU   string `required:"" name:"sku" help:"Item."`
	Units int64  `required:"" help:"Number of units, at least 1."`
}

// The commands on an existing sale.
type (
	SaleShowCmd struct {
		JSON JSONFlag `help:"Print JSON." name:"json"`
		Sale string   `required:"" help:"Sale id."`
	}
	SaleChangeCmd struct {
		SaleRef
		Opens  *time.Time `help:"New opening (RFC 3339)." placeholder:"TIME"`
		Closes *time.Time `help:"New end (RFC 3339)." placeholder:"TIME"`
	}
	SalePauseCmd    struct{ SaleRef }
	SaleResumeCmd   struct{ SaleRef }
	SaleCloseCmd    struct{ SaleRef }
	SaleRestockCmd  struct{ SaleUnits }
	SaleWithdrawCmd struct{ SaleUnits }
)

// controller opens what the sale commands need; the function closes it.
func (g *Globals) controller(ctx context.Context) (*control.Control, func(), error) {
	b, err := g.backends()
	if err != nil {
		return nil, nil, err
	}
	return openController(ctx, b, g)
}

func openController(ctx context.Context, b Backends, g *Globals) (*control.Control, func(), error) {
	pool, err := postgres.Open(ctx, b.Postgres, postgres.Options{})
	if err != nil {
		return nil, nil, err
	}
	rdb, err := stock.Open(b.Redis)
	if err != nil {
		pool.Close()
		return nil, nil, err
	}
	slot := stock.New(rdb)
	c := control.New(control.Config{Orders: orders.New(pool), Stock: slot, CheckDurable: slot.CheckDurable}) // the trail tells what was done
	return c, func() { pool.Close(); _ = rdb.Close() }, nil
}

func note(why string) control.Note {
	who := "cli"
	if u, err := user.Current(); err == nil {
		who = "cli:" + u.Username
	}
	return control.Note{Who: who, Why: why}
}

// Run creates the sale.
func (c *SaleCreateCmd) Run(ctx context.Context, g *Globals) error {
	b, err := os.ReadFile(c.File)
	if err != nil {
		return err
	}
	sale, err := control.ParseSale(c.File, b)
	if err != nil {
		return err
	}
	if err := payable(&sale); err != nil {
		return fmt.Errorf("%s: %w", c.File, err)
	}
	ctl, done, err := g.controller(ctx)
	if err != nil {
		return err
	}
	defer done()
	if err := ctl.Create(ctx, sale, note(c.Why)); err != nil {
		return err
	}
	return g.say(sale, "sale %s created: opens %s, closes %s, %d items\n", sale.ID,
		sale.Opens.Format(time.RFC3339Nano), sale.Closes.Format(time.RFC3339Nano), len(sale.Items))
}

// payable tells why no order of the sale could ever be paid, or nil: units would
// be held that nobody can buy.
func payable(sale *engine.Sale) error {
	if sale.Provider != instantProvider && sale.Provider != sandboxProvider {
		return fmt.Errorf("provider: %q is none of %s, %s", sale.Provider, instantProvider, sandboxProvider)
	}
	if sale.Payment != engine.PayAtOrder {
		return fmt.Errorf("payment: %q has no provider in this version; want %s", sale.Payment, engine.PayAtOrder)
	}
	return nil
}

// Run shows the sale.
func (c *SaleShowCmd) Run(ctx context.Context, g *Globals) error {
	ctl, done, err := g.controller(ctx)
	if err != nil {
		return err
	}
	defer done()
	v, err := ctl.Show(ctx, engine.SaleID(c.Sale))
	if err != nil {
		return err
	}
	if g.JSON {
		return json.NewEncoder(g.Stdout).Encode(v)
	}
	return printSale(g.Stdout, &v)
}

// acts say what is so when an act has succeeded.
var acts = map[string]string{
	"pause":    "paused: every door refuses new orders",
	"change":   "changed: doors and scripts go by the new window",
	"resume":   "resumed: it sells again, within its window",
	"close":    "closed for good: live orders go on to their end",
	"restock":  "restocked: recovery takes the units to the doors",
	"withdraw": "withdrawal noted: recovery takes out what is unsold then; `doorbuster sale show` tells how many",
}

// act runs one action on a sale and says what was done.
func (g *Globals) act(ctx context.Context, r SaleRef, what string, do func(*control.Control, engine.SaleID, control.Note) error) error {
	ctl, done, err := g.controller(ctx)
	if err != nil {
		return err
	}
	defer done()
	if err := do(ctl, engine.SaleID(r.Sale), note(r.Why)); err != nil {
		return err // it names sale and act
	}
	return g.say(map[string]string{"sale": r.Sale, "done": what}, "sale %s: %s\n", r.Sale, acts[what])
}

// Run pauses the sale.
func (c *SalePauseCmd) Run(ctx context.Context, g *Globals) error {
	return g.act(ctx, c.SaleRef, "pause", func(ctl *control.Control, id engine.SaleID, n control.Note) error { return ctl.Pause(ctx, id, n) })
}

// Run resumes the sale.
func (c *SaleResumeCmd) Run(ctx context.Context, g *Globals) error {
	return g.act(ctx, c.SaleRef, "resume", func(ctl *control.Control, id engine.SaleID, n control.Note) error { return ctl.Resume(ctx, id, n) })
}

// Run moves the sale's window.
func (c *SaleChangeCmd) Run(ctx context.Context, g *Globals) error {
	if c.Opens == nil && c.Closes == nil {
		return errors.New("say what is to change: --opens, --closes, or both")
	}
	return g.act(ctx, c.SaleRef, "change", func(ctl *control.Control, id engine.SaleID, n control.Note) error {
		return ctl.Redefine(ctx, id, control.Change{Opens: c.Opens, Closes: c.Closes}, n)
	})
}

// Run closes the sale.
func (c *SaleCloseCmd) Run(ctx context.Context, g *Globals) error {
	return g.act(ctx, c.SaleRef, "close", func(ctl *control.Control, id engine.SaleID, n control.Note) error { return ctl.Close(ctx, id, n) })
}

// Run adds units.
func (c *SaleRestockCmd) Run(ctx context.Context, g *Globals) error {
	return g.act(ctx, c.SaleRef, "restock", func(ctl *control.Control, id engine.SaleID, n control.Note) error {
		return c.checked(func() error { return ctl.Restock(ctx, id, engine.SKU(c.SKU), c.Units, n) })
	})
}

// Run takes units out.
func (c *SaleWithdrawCmd) Run(ctx context.Context, g *Globals) error {
	return g.act(ctx, c.SaleRef, "withdraw", func(ctl *control.Control, id engine.SaleID, n control.Note) error {
		return c.checked(func() error { return ctl.Withdraw(ctx, id, engine.SKU(c.SKU), c.Units, n) })
	})
}

func (u *SaleUnits) checked(do func() error) error {
	if u.Units < 1 || u.Units > engine.MaxUnits {
		return errors.New("--units: want a number from 1 to 1,000,000,000")
	}
	return do()
}

// say prints v as JSON if that was asked for, else the sentence.
func (g *Globals) say(v any, format string, args ...any) error {
	if g.JSON {
		return json.NewEncoder(g.Stdout).Encode(v)
	}
	_, err := fmt.Fprintf(g.Stdout, format, args...)
	return err
}

// printSale prints a sale for people.
func printSale(w io.Writer, v *control.View) error {
	fmt.Fprintf(w, "sale %s (%s): %s, epoch %d, version %d, mode %s, payment %s by %s\n",
		v.Sale, v.Name, v.State, v.Epoch, v.Version, v.Mode, v.Payment, v.Provider)
	fmt.Fprintf(w, "opens %s, closes %s, limit per buyer %d, per identity %d, release rows pending %d\n",
		v.Opens.Format(time.RFC3339Nano), v.Closes.Format(time.RFC3339Nano), v.LimitPerBuyer, v.LimitPerIdentity, v.PendingMoves)
	if v.Epoch == 0 {
		fmt.Fprintln(w, "not loaded yet: a server with the role recovery loads it within a second or two")
	} else if v.RedisProblem != "" {
		fmt.Fprintf(w, "Redis: %s\n", v.RedisProblem)
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "sku\tprice\tunits\tclaimed\tavailable\theld\tsold")
	for _, i := range v.Items {
		fmt.Fprintf(t, "%s\t%d %s\t%d\t%d\t%s\t%s\t%s\n", i.SKU, i.Price, v.Currency, i.Units, i.Claimed, count(i.Available), count(i.Held), count(i.Sold))
	}
	return t.Flush()
}

func count(n *int64) string {
	if n == nil {
		return "-"
	}
	return strconv.FormatInt(*n, 10)
}
