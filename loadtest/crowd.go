package loadtest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/doorbuster/doorbuster/engine"
)

// Bounds and defaults of a crowd.
const (
	DefaultQuiet    = 20 * time.Second // without a unit confirmed, after which refused buyers give up
	DefaultLongest  = 5 * time.Minute  // after the open, whatever happens
	MaxBuyers       = 5_000_000
	clockTick       = 5 * time.Millisecond
	pageEvery       = 100 * time.Millisecond
	pageWait        = time.Second
	progressEvery   = 200 * time.Millisecond
	pageMissing     = 30 * time.Second // how long the page may be missing before the open
	triesPerUnit    = 2                // waiting buyers that try again for each unit seen available
	earlyBy         = 300 * time.Millisecond
	perMille        = 1000
	defaultConnsMin = 1
)

// CrowdConfig says who the buyers are and how they behave. URLs, Sale, Basket
// and Tickets are needed.
type CrowdConfig struct {
	URLs        []string // http://host:port of doors, spread over the connections
	Sale        engine.SaleID
	Basket      Basket
	Tickets     []Ticket // one buyer each
	Buyers      int      // 0: as many as there are tickets
	Requests    int      // refused buyers press again at once until this many requests are out
	Connections int      // 0 is DefaultConnections
	Quiet       time.Duration
	Longest     time.Duration
	// EarlyPerMille of the buyers press before the open, RepeatPerMille of those who got an
	// order ask for it once more, ChangePerMille ask for another basket under their key (which must be refused).
	EarlyPerMille, RepeatPerMille, ChangePerMille int
	// Arrive says how many of the buyers have come so long after the open, whatever those before
	// them heard (an open loop); it never falls. nil: all come at once.
	Arrive   func(sinceOpen time.Duration) int
	Log      Log            // nil: none
	Progress func(Snapshot) // every 200 ms, from one goroutine, not after RunCrowd has returned; nil: none
	Logger   *slog.Logger
}

func (c *CrowdConfig) fill() error {
	if c.Buyers == 0 {
		c.Buyers = len(c.Tickets)
	}
	if c.Connections == 0 {
		c.Connections = DefaultConnections
	}
	if c.Quiet == 0 {
		c.Quiet = DefaultQuiet
	}
	if c.Longest == 0 {
		c.Longest = DefaultLongest
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Buyers < 1 || c.Buyers > MaxBuyers || c.Buyers > len(c.Tickets) {
		return fmt.Errorf("%d buyers with %d tickets: want 1 to %d, a ticket each: %w", c.Buyers, len(c.Tickets), MaxBuyers, ErrNoTickets)
	}
	if c.Connections < defaultConnsMin || c.Connections > MaxConnections {
		return fmt.Errorf("connections: want 1 to %d", MaxConnections)
	}
	return errors.Join(c.Sale.Validate(), c.Basket.validate())
}

// Snapshot is where a crowd stands. Answers are counted as the buyers hear them.
type Snapshot struct {
	SinceOpen  time.Duration `json:"since_open_ns"` // negative before
	Requests   int64         `json:"requests"`      // answered or broken off
	Accepted   int64         `json:"accepted"`      // orders: 202 or found by a repeat, each once
	SoldOut    int64         `json:"sold_out"`
	Limited    int64         `json:"limited"`
	Early      int64         `json:"early"`
	Overloaded int64         `json:"overloaded"`
	Unknown    int64         `json:"unknown"`
	Other      int64         `json:"other"`
	Active     int           `json:"active"`    // buyers that ask, or will at their time
	Waiting    int           `json:"waiting"`   // refused, waiting for units to return
	Units      int64         `json:"units"`     // page: of the items asked for
	Available  int64         `json:"available"` // page
	Held       int64         `json:"held"`      // page
	Sold       int64         `json:"sold"`      // page: confirmed
	State      string        `json:"state"`     // page
}

// Reasons a crowd ended for.
const (
	EndSold    = "all units are confirmed"
	EndServed  = "every buyer had his answer"
	EndClosed  = "the sale was closed"
	EndQuiet   = "no unit was confirmed any more"
	EndLongest = "the time was over"
)

// CrowdResult is how it ended.
type CrowdResult struct {
	Snapshot
	Opened time.Time     `json:"opened"` // by this process' clock, UTC
	Took   time.Duration `json:"took_ns"`
	End    string        `json:"end"`
}

// crowd is one run.
type crowd struct {
	cfg    CrowdConfig
	lobby  *lobby
	forms  [2]Basket // asked for, and changed
	hashes [2]uint64
	keys   string
	opens  time.Time // by this process' clock
	closes time.Time
	again  atomic.Int64 // presses that refused buyers still have at once
	counts [Classes]atomic.Int64
	orders atomic.Int64
	replay []atomic.Bool // by buyer: his last answer was not final
	have   []atomic.Bool // by buyer: he knows his order
	page   Page
}

// RunCrowd waits for the sale to open, plays the buyers and returns when they
// are done (see the End constants) or ctx ends. The error is for a configuration
// that is wrong, a sale that has no page, or ctx; everything the server answers
// is a result.
func RunCrowd(ctx context.Context, cfg CrowdConfig) (CrowdResult, error) {
	if err := cfg.fill(); err != nil {
		return CrowdResult{}, fmt.Errorf("crowd: %w", err)
	}
	addrs, err := hosts(cfg.URLs)
	if err != nil {
		return CrowdResult{}, fmt.Errorf("crowd: %w", err)
	}
	c := &crowd{
		cfg: cfg, lobby: newLobby(), keys: randomKey() + "-",
		replay: make([]atomic.Bool, cfg.Buyers), have: make([]atomic.Bool, cfg.Buyers),
	}
	changed := cfg.Basket
	changed.Total.Amount++
	c.forms = [2]Basket{cfg.Basket, changed}
	c.hashes = [2]uint64{cfg.Basket.hash(), changed.hash()}
	c.again.Store(int64(max(0, cfg.Requests-cfg.Buyers)))

	pages := newConn(addrs, 0)
	pages.wait = pageWait
	defer pages.close()
	if err := c.firstPage(ctx, pages); err != nil {
		return CrowdResult{}, fmt.Errorf("crowd: %w", err)
	}
	work, stop := context.WithCancel(ctx)
	var workers sync.WaitGroup
	for i := range cfg.Connections {
		workers.Go(func() { newPlayer(c, addrs, i).play(work) })
	}
	end := c.conduct(ctx, pages)
	c.lobby.close()
	if end == EndQuiet || end == EndLongest || ctx.Err() != nil {
		stop() // else every request under way still gets its answer
	}
	workers.Wait()
	stop()
	return CrowdResult{Snapshot: c.snapshot(), Opened: c.opens.UTC(), Took: time.Since(c.opens), End: end}, ctx.Err()
}

// firstPage waits for the sale's page and reads from it when the sale opens, by
// this process' clock.
func (c *crowd) firstPage(ctx context.Context, pages *conn) error {
	giveUp := time.Now().Add(pageMissing)
	for {
		sent := time.Now()
		p, err := readPage(ctx, pages, c.cfg.Sale)
		if err == nil {
			c.page = p
			// The page is rendered up to 50 ms before it is sent, so the open may be that much later than it seems.
			c.opens, c.closes = sent.Add(p.Opens.Sub(p.Now)), sent.Add(p.Closes.Sub(p.Now))
			if p.Now.After(p.Opens) {
				c.opens = sent
			}
			return nil
		}
		if time.Now().After(giveUp) {
			return err
		}
		if !sleepUntil(ctx, sent.Add(pageEvery)) {
			return ctx.Err()
		}
	}
}

// conduct is the crowd's clock: it lets buyers in, sends them back when their
// time or a unit has come, and says why it ended.
func (c *crowd) conduct(ctx context.Context, pages *conn) string {
	early := c.cfg.Buyers * c.cfg.EarlyPerMille / perMille
	c.report()
	nextProgress := time.Now().Add(progressEvery)
	entered := 0
	var lastSale time.Time
	best := int64(-1) // units sold, the most seen
	clock := time.NewTicker(clockTick)
	defer clock.Stop()
	fresh, enough := c.pagesOf(ctx, pages)
	defer enough()
	for {
		freed := 0
		select {
		case <-ctx.Done():
			return ctx.Err().Error()
		case c.page = <-fresh:
			freed = int(c.page.stock(&c.cfg.Basket).Available) * triesPerUnit
		case <-clock.C:
		}
		now := time.Now()
		if entered < early && now.After(c.opens.Add(-earlyBy)) {
			c.lobby.enter(0, early)
			entered = early
		}
		if here := c.here(now); entered < here {
			c.lobby.enter(entered, here)
			entered, lastSale = here, now
		}
		c.lobby.tick(now, freed)
		if sold := c.page.stock(&c.cfg.Basket).Sold; sold > best {
			best, lastSale = sold, now
		}
		if now.After(nextProgress) {
			nextProgress = now.Add(progressEvery)
			c.report()
		}
		if entered == c.cfg.Buyers {
			if end := c.over(now, lastSale); end != "" {
				c.report()
				return end
			}
		}
	}
}

// pagesOf reads the sale's page again and again until the function it returns is
// called. A page that does not come holds nobody back: buyers arrive by the clock.
func (c *crowd) pagesOf(ctx context.Context, pages *conn) (fresh <-chan Page, enough func()) {
	out, ended := make(chan Page), make(chan struct{})
	ctx, stop := context.WithCancel(ctx)
	go func() {
		defer close(ended)
		for next := time.Now(); sleepUntil(ctx, next); next = time.Now().Add(pageEvery) {
			p, err := readPage(ctx, pages, c.cfg.Sale)
			if err != nil {
				c.cfg.Logger.Debug("crowd: the sale's page did not come", "sale", string(c.cfg.Sale), "error", err)
				continue
			}
			select {
			case out <- p:
			case <-ctx.Done():
			}
		}
	}()
	return out, func() { stop(); <-ended }
}

// here is how many buyers have come by now.
func (c *crowd) here(now time.Time) int {
	since := now.Sub(c.opens)
	if since < 0 {
		return 0
	}
	if c.cfg.Arrive == nil {
		return c.cfg.Buyers
	}
	return min(c.cfg.Arrive(since), c.cfg.Buyers)
}

// over tells why the crowd is done, "" if it is not.
func (c *crowd) over(now, lastSale time.Time) string {
	stock, in := c.page.stock(&c.cfg.Basket), c.lobby.census()
	switch {
	case in.active == 0 && in.waiting == 0:
		return EndServed
	case in.active == 0 && stock.Units > 0 && stock.Sold >= stock.Units:
		return EndSold
	case in.active == 0 && c.page.State == "closed":
		return EndClosed
	case now.Sub(lastSale) > c.cfg.Quiet:
		return EndQuiet
	case now.Sub(c.opens) > c.cfg.Longest:
		return EndLongest
	}
	return ""
}

func (c *crowd) report() {
	if c.cfg.Progress != nil {
		c.cfg.Progress(c.snapshot())
	}
}

func (c *crowd) snapshot() Snapshot {
	in, stock := c.lobby.census(), c.page.stock(&c.cfg.Basket)
	s := Snapshot{
		SinceOpen: time.Since(c.opens), Accepted: c.orders.Load(),
		SoldOut: c.counts[SoldOut].Load(), Limited: c.counts[Limited].Load(), Early: c.counts[Early].Load(),
		Overloaded: c.counts[Overloaded].Load(), Unknown: c.counts[Unknown].Load(), Other: c.counts[Other].Load(),
		Active: in.active, Waiting: in.waiting,
		Units: stock.Units, Available: stock.Available, Held: stock.Held, Sold: stock.Sold, State: c.page.State,
	}
	for i := range c.counts {
		s.Requests += c.counts[i].Load()
	}
	return s
}
