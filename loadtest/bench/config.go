package bench

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"time"

	"github.com/doorbuster/doorbuster/engine/ticket"
)

// Letters of the figures that can be measured alone, by Config.Only.
const (
	stepDoor     = "door"        // a, b, c, d, f, g
	stepStock    = "stock"       // e
	stepSandbox  = "sandbox"     // f2
	stepOpen     = "percentiles" // h
	stepMemory   = "memory"      // i
	stepDurable  = "durable"     // j
	stepOverload = "overload"    // k
	fullPairs    = 6
	shortPairs   = 1
	maxPairs     = 50
	loadSettling = 300 * time.Millisecond
)

// connections carry every closed loop, so (a) to (d) are compared at the same
// pressure. A group in a storm has about a quarter of them.
const connections = 512

var allSteps = []string{stepDoor, stepStock, stepSandbox, stepOpen, stepMemory, stepDurable, stepOverload}

// Config says what to measure and with what. Redis, AMQP, Database and Tickets
// are needed.
type Config struct {
	// Exe is the binary to start children from; "" is this process' own.
	// Commands come after Args: "serve", "sandbox", "bench-child".
	Exe  string
	Args []string
	// Env is the children's environment; it must name the same servers.
	Env []string

	Redis, AMQP, Database string // URLs
	Tickets               *ticket.Keys
	KeyNumber             int // of the order key that sales use; 0 is 1

	Dir   string   // for logs and the sandbox' ledger; must exist
	Out   string   // the page to write; "" writes none
	Only  []string // steps: door, stock, sandbox, percentiles, memory, durable, overload; none is all
	Pairs int      // rounds; 0 is 6, or 1 if Short
	Short bool     // seconds instead of minutes, for development: figures mean little

	Command  string // how this was started, for the page
	Machine  string // "" asks the system
	Progress io.Writer
	Logger   *slog.Logger
}

func (c *Config) fill() error {
	if c.Pairs == 0 {
		c.Pairs = fullPairs
		if c.Short {
			c.Pairs = shortPairs
		}
	}
	if c.KeyNumber == 0 {
		c.KeyNumber = 1
	}
	if c.Progress == nil {
		c.Progress = io.Discard
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if len(c.Only) == 0 {
		c.Only = allSteps
	}
	if c.Machine == "" {
		c.Machine = machine()
	}
	var errs []error
	if c.Pairs < 1 || c.Pairs > maxPairs {
		errs = append(errs, fmt.Errorf("pairs: want 1 to %d", maxPairs))
	}
	for _, s := range c.Only {
		if !slices.Contains(allSteps, s) {
			errs = append(errs, fmt.Errorf("step %q is none of %v", s, allSteps))
		}
	}
	if c.Redis == "" || c.AMQP == "" || c.Database == "" || c.Tickets == nil {
		errs = append(errs, errors.New("URLs of Redis, RabbitMQ and PostgreSQL and ticket keys are needed"))
	}
	if c.Exe == "" {
		exe, err := os.Executable()
		errs = append(errs, err)
		c.Exe = exe
	}
	return errors.Join(errs...)
}

func (c *Config) has(step string) bool { return slices.Contains(c.Only, step) }

// plan is how long everything takes.
type plan struct {
	warm     time.Duration // of each press, not counted
	press    time.Duration // of each press, warm-up included
	tickets  int           // of each sale that is pressed
	stock    time.Duration // of each group size in (e)
	tries    int           // refused tries in (i)
	idle     int           // idle connections, idle sales in (i)
	groups   []int
	open     time.Duration
	shares   []float64     // of (b), in (h)
	overload time.Duration // of each stretch of (k), without its warm-up
	calm     time.Duration // of the two around them
	settling time.Duration
}

func (c *Config) plan() plan {
	p := plan{
		warm: time.Second, press: 5 * time.Second, tickets: 400_000, stock: 2 * time.Second,
		tries: 10_000_000, idle: 10_000, groups: []int{1, 8, 64, 256},
		open: 10 * time.Second, shares: []float64{0.25, 0.50, 0.75},
		overload: 10 * time.Second, calm: 7 * time.Second, settling: loadSettling,
	}
	if c.Short {
		p.warm, p.press, p.tickets = 200*time.Millisecond, time.Second, 100_000
		p.stock, p.tries, p.idle, p.open = 200*time.Millisecond, 200_000, 500, time.Second
		p.overload, p.calm = time.Second, 2*time.Second
	}
	return p
}
