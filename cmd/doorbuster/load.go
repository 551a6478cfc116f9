package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"time"

	"github.com/doorbuster/doorbuster/engine"
	"github.com/doorbuster/doorbuster/engine/audit"
	"github.com/doorbuster/doorbuster/loadtest"
)

const pageTimeout = 10 * time.Second // for the sale's page

// LoadCmd presses a door.
type LoadCmd struct {
	JSON        JSONFlag      `help:"Print JSON." name:"json"`
	URL         []string      `help:"Doors, http://host:port; several are pressed in turn." default:"http://127.0.0.1:8080"`
	Sale        string        `required:"" help:"Sale id."`
	Tickets     string        `required:"" help:"File of tickets, one a line: see ticket mint." placeholder:"FILE" type:"existingfile"`
	SKU         string        `name:"sku" help:"Item to ask for; the sale's first if empty."`
	Quantity    int64         `help:"Units to ask for." default:"1"`
	Mode        string        `help:"flash: open loop, idle, spike at the open, plateau, sell-out, by vegeta. open: open loop at a fixed rate. closed: as many as the connections carry." enum:"flash,open,closed" default:"flash"`
	Rate        float64       `help:"flash: requests a second in the spike; open: at all times." default:"2000"`
	Duration    time.Duration `help:"open, closed: how long; flash: of the plateau." default:"10s"`
	Connections int           `help:"open, closed: connections; flash: workers." default:"256"`
	ClientLog   string        `help:"Write every answer to this file, for audit --client-log." placeholder:"FILE" type:"path"`
	Judge       bool          `help:"Audit the sale afterwards and show what was oversold and undersold."`
	Sandbox     string        `help:"With --judge: URL of the sandbox provider whose ledger to compare." env:"SANDBOX_URL" placeholder:"URL"`
}

// Run presses, and prints what was heard.
func (c *LoadCmd) Run(ctx context.Context, g *Globals) (err error) {
	if c.Quantity < 1 || c.Quantity > engine.MaxQuantity {
		return fmt.Errorf("--quantity: want 1 to %d", engine.MaxQuantity)
	}
	for _, at := range c.URL {
		if u, err := url.Parse(at); err != nil || u.Scheme != "http" || u.Host == "" {
			return fmt.Errorf("--url: %q is not http://host:port", at)
		}
	}
	tickets, err := readTickets(c.Tickets)
	if err != nil {
		return err
	}
	basket, err := c.basket(ctx)
	if err != nil {
		return err
	}
	log, done, err := c.log()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, done()) }()
	if c.Mode == "flash" {
		return c.flash(ctx, g, loadtest.ScenarioConfig{
			URLs: c.URL, Sale: engine.SaleID(c.Sale), Basket: basket, Tickets: tickets, Workers: c.Connections, Log: log,
			Phases: loadtest.FlashSale(c.Rate, 2*time.Second, 3*time.Second, c.Duration),
		})
	}
	press := loadtest.PressConfig{
		URLs: c.URL, Sale: engine.SaleID(c.Sale), Basket: basket, Tickets: tickets,
		Connections: c.Connections, Duration: c.Duration, Rate: c.Rate, Log: log,
	}
	run := loadtest.RunClosed
	if c.Mode == "open" {
		run = loadtest.RunOpen
	}
	r, err := run(ctx, press)
	if err != nil {
		return err
	}
	if g.JSON {
		return json.NewEncoder(g.Stdout).Encode(r)
	}
	return printPress(g.Stdout, &r)
}

// flash runs the phases of a flash sale.
func (c *LoadCmd) flash(ctx context.Context, g *Globals, cfg loadtest.ScenarioConfig) error {
	r, err := loadtest.RunScenario(ctx, cfg)
	if err != nil {
		return err
	}
	if c.Judge {
		judged, err := c.judge(ctx, g)
		if err != nil {
			return err
		}
		r.Judged(&judged)
	}
	if g.JSON {
		return json.NewEncoder(g.Stdout).Encode(r)
	}
	return r.WriteText(g.Stdout)
}

// judge audits the sale when it has come to rest.
func (c *LoadCmd) judge(ctx context.Context, g *Globals) (audit.Report, error) {
	b, err := g.backends()
	if err != nil {
		return audit.Report{}, err
	}
	a, err := newAuditor(b, c.Sandbox, g)
	if err != nil {
		return audit.Report{}, err
	}
	defer a.Close()
	rest, cancel := context.WithTimeout(ctx, demoRest)
	waiting, err := a.WaitForRest(rest, engine.SaleID(c.Sale))
	cancel()
	tellUnrest(g.Stderr, demoRest, waiting, err)
	return a.AtRest(ctx, engine.SaleID(c.Sale), nil)
}

func readTickets(path string) ([]loadtest.Ticket, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	tickets, err := loadtest.ReadTickets(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w (want the output of `doorbuster ticket mint`)", path, err)
	}
	return tickets, nil
}

// log opens the client log; nil if none was asked for.
func (c *LoadCmd) log() (loadtest.Log, func() error, error) {
	if c.ClientLog == "" {
		return nil, func() error { return nil }, nil
	}
	f, err := os.Create(c.ClientLog)
	if err != nil {
		return nil, nil, err
	}
	w := audit.NewLogWriter(f)
	return w, func() error { return errors.Join(w.Flush(), f.Close()) }, nil
}

// salePage is what the load generator reads of GET /v1/sales/{id}.
type salePage struct {
	Currency string `json:"currency"`
	Items    []struct {
		SKU   string `json:"sku"`
		Price int64  `json:"price"`
	} `json:"items"`
}

// basket asks the door for the price of what is to be asked for.
func (c *LoadCmd) basket(ctx context.Context) (loadtest.Basket, error) {
	ctx, cancel := context.WithTimeout(ctx, pageTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.URL[0]+"/v1/sales/"+c.Sale, nil)
	if err != nil {
		return loadtest.Basket{}, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return loadtest.Basket{}, noDoor(c.URL[0], err)
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		return loadtest.Basket{}, fmt.Errorf("sale %s at %s: status %d: %s", c.Sale, c.URL[0], resp.StatusCode, detail(b))
	}
	var page salePage
	if err := json.Unmarshal(b, &page); err != nil {
		return loadtest.Basket{}, fmt.Errorf("page of sale %s: %w", c.Sale, err)
	}
	for _, item := range page.Items {
		if c.SKU == "" || c.SKU == item.SKU {
			return loadtest.Single(engine.SKU(item.SKU), c.Quantity, item.Price, page.Currency), nil
		}
	}
	return loadtest.Basket{}, fmt.Errorf("sale %s has no item %q", c.Sale, c.SKU)
}

// detail is what a problem says to people; the whole body if it is none.
func detail(body []byte) string {
	var p struct{ Detail string }
	if json.Unmarshal(body, &p) != nil || p.Detail == "" {
		return string(body)
	}
	return p.Detail
}

func printPress(w io.Writer, r *loadtest.PressResult) error {
	fmt.Fprintf(w, "%d requests in %.1f s: %.0f/s, accepted %.0f/s, lag p99 %v, errors %d %s\n",
		r.Requests, r.Seconds, r.PerSecond, r.Accepted, r.Lag.P99, r.Errors, r.Error)
	for class := range loadtest.Classes {
		if q, ok := r.Outcomes[class.String()]; ok {
			fmt.Fprintf(w, "  %-12s %8d  p50 %v  p99 %v  p99.9 %v  max %v\n", class, q.Count, q.P50, q.P99, q.P999, q.Max)
		}
	}
	return nil
}
