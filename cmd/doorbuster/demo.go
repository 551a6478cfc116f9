package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/doorbuster/doorbuster/engine"
	"github.com/doorbuster/doorbuster/engine/audit"
	"github.com/doorbuster/doorbuster/engine/backing"
	"github.com/doorbuster/doorbuster/engine/control"
	"github.com/doorbuster/doorbuster/engine/ticket"
	"github.com/doorbuster/doorbuster/loadtest"
)

// The demo's sale and its troubles.
const (
	demoSKU       = "MUG"
	demoPrice     = 12_900 // won
	demoCurrency  = "KRW"
	demoLead      = 4 * time.Second // from the sale's creation to its open
	demoLasts     = 10 * time.Minute
	demoDeclines  = 30 // per mille
	demoUnknown   = 5  // per mille, of each of the two outcomes
	demoHang      = 2 * time.Second
	demoRest      = 60 * time.Second // for the sale to come to rest
	demoMaxUnits  = 1_000_000
	demoMaxBuyers = 2_000_000
)

// DemoCmd runs a whole sale.
type DemoCmd struct {
	Units       int64  `help:"Units for sale." default:"5000"`
	Buyers      int    `help:"Buyers, each with one request and as many repeats as he needs." default:"100000"`
	Connections int    `help:"Connections of the crowd." default:"512"`
	JSON        string `help:"Write the report to this file too." name:"json" placeholder:"FILE" type:"path"`
	Keep        bool   `help:"Leave everything up afterwards." env:"KEEP"`
	Monitoring  bool   `help:"Start Prometheus too." name:"with-monitoring"`
}

// demo is one run of it.
type demo struct {
	cmd  *DemoCmd
	g    *Globals
	b    Backends
	sale engine.Sale

	watch            func(loadtest.Snapshot) // nil: none; sees every snapshot of the crowd
	services         *backing.Services
	server, provider *child
	serving          servingAt
	sandbox          servingAt
}

// Run runs the demo; errVerdict if a law is broken.
func (c *DemoCmd) Run(ctx context.Context, g *Globals) (err error) {
	if c.Units < 1 || c.Units > demoMaxUnits || c.Buyers < 1 || c.Buyers > demoMaxBuyers {
		return fmt.Errorf("--units: want 1 to %d; --buyers: want 1 to %d", demoMaxUnits, demoMaxBuyers)
	}
	d := &demo{cmd: c, g: g}
	defer func() { err = errors.Join(err, d.stop()) }()
	r, err := d.run(ctx)
	if err != nil {
		return err
	}
	return g.verdict(r)
}

// run is the demo from the servers to the report.
func (d *demo) run(ctx context.Context) (*audit.Report, error) {
	if err := d.start(ctx); err != nil {
		return nil, err
	}
	if err := d.create(ctx); err != nil {
		return nil, err
	}
	logPath := filepath.Join(d.g.Dir, string(d.sale.ID)+".answers")
	if err := d.storm(ctx, logPath); err != nil {
		return nil, err
	}
	return d.prove(ctx, logPath)
}

func (d *demo) tell(format string, args ...any) { fmt.Fprintf(d.g.Stderr, format+"\n", args...) }

// start brings up servers, provider and roles.
func (d *demo) start(ctx context.Context) (err error) {
	env := environment()
	d.tell("Bringing up Redis, RabbitMQ and PostgreSQL of our own in %s …", d.g.Dir)
	d.services, err = backing.Up(ctx, backing.Config{
		Dir: d.g.Dir, URLs: backing.URLs{Redis: env.Redis, AMQP: env.AMQP, Database: env.Postgres},
		Monitoring: d.cmd.Monitoring, Progress: d.g.Stderr,
	})
	if err != nil {
		return err
	}
	u := d.services.URLs()
	d.b = Backends{Redis: u.Redis, AMQP: u.AMQP, Postgres: u.Database}
	if err := migrate(ctx, d.b); err != nil {
		return err
	}
	ledger := filepath.Join(d.g.Dir, "sandbox-"+strconv.FormatInt(time.Now().Unix(), 36)+".ledger")
	d.provider, err = startChild(ctx, d.g, spec{name: "sandbox", keep: d.cmd.Keep, ready: &d.sandbox, args: []string{
		"sandbox", "--listen", "127.0.0.1:0", "--ledger", ledger, "--hang", demoHang.String(), "--declines", strconv.Itoa(demoDeclines),
		"--timeouts-stored", strconv.Itoa(demoUnknown), "--timeouts-lost", strconv.Itoa(demoUnknown),
	}})
	if err != nil {
		return err
	}
	d.server, err = startChild(ctx, d.g, spec{name: "serve", keep: d.cmd.Keep, ready: &d.serving, args: []string{
		"serve", "--listen", "127.0.0.1:0", "--metrics", "127.0.0.1:0", "--sandbox", d.sandbox.URL,
	}})
	if err == nil {
		d.tell("Serving at %s, metrics at %s.", d.serving.URL, d.serving.Metrics)
	}
	return err
}

// create creates the sale, which opens by itself a few seconds later.
func (d *demo) create(ctx context.Context) error {
	now := time.Now().UTC()
	opens := now.Add(demoLead).Truncate(time.Millisecond)
	d.sale = engine.Sale{
		ID: engine.SaleID("demo-" + strconv.FormatInt(now.Unix(), 36)), Name: "Demo drop",
		KeyNumber: 1, Mode: engine.ModeStandard, Payment: engine.PayAtOrder, Provider: sandboxProvider,
		Currency: demoCurrency, Opens: opens, Closes: opens.Add(demoLasts), LimitPerBuyer: 1,
		HoldFor: engine.DefaultHoldFor, ReplayWindow: engine.DefaultReplay,
		Items: []engine.Item{{SKU: demoSKU, Name: "Mug", Price: demoPrice, Units: d.cmd.Units}},
	}
	ctl, done, err := openController(ctx, d.b, d.g)
	if err != nil {
		return err
	}
	defer done()
	return ctl.Create(ctx, d.sale, control.Note{Who: "demo", Why: "to show it"})
}

// tickets mints a ticket for every buyer.
func (d *demo) tickets() ([]loadtest.Ticket, error) {
	keys, err := d.g.ticketKeys()
	if err != nil {
		return nil, err
	}
	out := make([]loadtest.Ticket, d.cmd.Buyers)
	t := ticket.Ticket{
		Sale: d.sale.ID, NotBefore: d.sale.Opens.Add(-time.Hour).UnixMilli(), NotAfter: d.sale.Closes.Add(time.Hour).UnixMilli(),
	}
	for i := range out {
		t.Buyer = engine.BuyerID("buyer-" + strconv.Itoa(i+1))
		if out[i].Token, err = keys.Mint(&t); err != nil {
			return nil, err
		}
		out[i].Buyer = t.Buyer
	}
	return out, nil
}

// storm lets the crowd in.
func (d *demo) storm(ctx context.Context, logPath string) (err error) {
	tickets, err := d.tickets()
	if err != nil {
		return err
	}
	f, err := os.Create(logPath)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	log := audit.NewLogWriter(f)
	d.tell("Sale %s: %d units, %d buyers, opens %s.", d.sale.ID, d.cmd.Units, d.cmd.Buyers, d.sale.Opens.Format("15:04:05.000 MST"))
	show := newProgress(d.g.Stderr)
	r, err := loadtest.RunCrowd(ctx, loadtest.CrowdConfig{
		URLs: []string{d.serving.URL}, Sale: d.sale.ID,
		Basket: loadtest.Single(demoSKU, 1, demoPrice, demoCurrency), Tickets: tickets, Connections: d.cmd.Connections,
		RepeatPerMille: 10, ChangePerMille: 2, EarlyPerMille: 5,
		Log: log, Logger: d.g.Logger(), Progress: func(s loadtest.Snapshot) {
			show.snapshot(s)
			if d.watch != nil {
				d.watch(s)
			}
		},
	})
	show.end()
	if err := errors.Join(err, log.Flush()); err != nil {
		return err
	}
	d.tell("The crowd is done after %.1f s: %s.", r.Took.Seconds(), r.End)
	return nil
}

// prove checks the laws and writes the report to the file that was asked for.
func (d *demo) prove(ctx context.Context, logPath string) (*audit.Report, error) {
	a, err := newAuditor(d.b, d.sandbox.URL, d.g)
	if err != nil {
		return nil, err
	}
	defer a.Close()
	d.tell("Waiting for the last payments, then checking the laws …")
	rest, cancel := context.WithTimeout(ctx, demoRest)
	waiting, err := a.WaitForRest(rest, d.sale.ID)
	cancel()
	tellUnrest(d.g.Stderr, demoRest, waiting, err)
	f, err := os.Open(logPath)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	r, err := a.AtRest(ctx, d.sale.ID, f)
	if err != nil || d.cmd.JSON == "" {
		return &r, err
	}
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return nil, err
	}
	return &r, os.WriteFile(d.cmd.JSON, append(b, '\n'), 0o644)
}

// stop ends what the demo started, or says how to.
func (d *demo) stop() error {
	if d.cmd.Keep && d.server != nil {
		for _, c := range []*child{d.server, d.provider} {
			if err := d.services.Adopt(c.name, c.cmd.Process.Pid); err != nil {
				return err
			}
		}
		d.tell("All of it stays up: %s, metrics %s. `bin/doorbuster --dir %s down` ends it.", d.serving.URL, d.serving.Metrics, d.g.Dir)
		return nil
	}
	err := errors.Join(d.server.stop(), d.provider.stop())
	if d.services != nil && environment() == (Backends{}) {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		err = errors.Join(err, d.services.Down(ctx))
	}
	return err
}
