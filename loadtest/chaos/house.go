package chaos

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/redis/go-redis/v9"

	"github.com/doorbuster/doorbuster/engine"
	"github.com/doorbuster/doorbuster/engine/backing"
	"github.com/doorbuster/doorbuster/engine/control"
	"github.com/doorbuster/doorbuster/engine/orders"
	"github.com/doorbuster/doorbuster/engine/postgres"
	"github.com/doorbuster/doorbuster/engine/queue"
	"github.com/doorbuster/doorbuster/engine/ticket"
	"github.com/doorbuster/doorbuster/loadtest"
	"github.com/doorbuster/doorbuster/loadtest/proxy"
	"github.com/doorbuster/doorbuster/payment/ledger"
	"github.com/doorbuster/doorbuster/stock"
)

// The sale of a run. At arrivals a second it is sold out after 3 s.
const (
	buyers   = 2_000
	arrivals = 600 // a second
	saleSKU  = "MUG"
	price    = 12_900 // won
	currency = "KRW"
	saleLead = 2500 * time.Millisecond
	longLead = 4 * time.Second // with time for a fault before the open
	saleLast = time.Hour       // longer than a clock is wrong
	declines = 30              // per mille of the payments
	hangs    = 2 * time.Second
	buildMax = 30 * time.Second // for recovery to load a new sale
	poll     = 2 * time.Millisecond

	redisOptions = 2 // connections of the nemesis' own
)

// The roles of a run, in the order in which they start, and the provider.
const (
	provider = "provider"
	recovery = "recovery"
	relay    = "relay"
	worker   = "worker"
	door     = "door"
)

// link names a link that a proxy stands in.
type link struct{ from, to string }

// crowdLink is the way of the buyers to the door.
var crowdLink = link{"crowd", door}

func (l link) String() string { return l.from + "-" + l.to }

// house is all that one run stands on.
type house struct {
	cfg    *Config
	cell   *Cell
	moment *Moment
	seed   uint64
	dice   *rand.Rand
	name   string // of database, queues and sale

	admin   backing.URLs // as the servers were found
	urls    backing.URLs // with the run's own database
	where   string       // " TABLESPACE …", "" for the server's own
	sale    engine.Sale
	proc    map[string]*process
	proxy   *proxy.Proxy // in the cell's link; nil: none
	ledger  string
	pool    *pgxpool.Pool
	orders  *orders.Store
	rdb     *redis.Client
	stock   *stock.Store
	ctl     *control.Control
	tally   *tally
	rate    float64 // accepts a second before anything was broken; set once
	struck  atomic.Bool
	memory  map[string]any                // what strike leaves for heal
	shift   string                        // file of the shift of a role's clock
	shifted string                        // the role
	closers []func(context.Context) error // what close calls last
}

func (h *house) prefix() string { return h.name + "." }

func (h *house) queue() queue.Config { return queue.Config{URL: h.admin.AMQP, Prefix: h.prefix()} }

// open makes everything up to a sale that recovery has built.
func (h *house) open(ctx context.Context) error {
	for _, step := range []struct {
		what string
		do   func(context.Context) error
	}{
		{"own", h.bring},
		{"redis", h.openRedis},
		{"postgresql", h.openPostgres},
		{"rabbitmq", func(ctx context.Context) error { return queue.Declare(ctx, h.queue()) }},
		{"link", h.openLink},
		{"roles", h.startRoles},
		{"arm", h.arm},
		{"sale", h.create},
	} {
		if err := step.do(ctx); err != nil {
			return fmt.Errorf("%s: %w", step.what, err)
		}
	}
	return nil
}

// bring brings what the cell needs of its own.
func (h *house) bring(ctx context.Context) error {
	if h.cell.own == nil {
		return nil
	}
	return h.cell.own(ctx, h)
}

// arm makes the fault ready. It may take longer than a sale takes to open, and so
// comes before there is one.
func (h *house) arm(ctx context.Context) error {
	if h.cell.arm == nil {
		return nil
	}
	return h.cell.arm(ctx, h)
}

// openRedis empties Redis: what earlier runs left is nobody's.
func (h *house) openRedis(ctx context.Context) error {
	opt, err := redis.ParseURL(h.admin.Redis)
	if err != nil {
		return err
	}
	opt.DisableIdentity, opt.PoolSize = true, redisOptions
	h.rdb = redis.NewClient(opt)
	if err := h.rdb.FlushAll(ctx).Err(); err != nil {
		return err
	}
	if err := h.rdb.ScriptFlush(ctx).Err(); err != nil {
		return err
	}
	// So that a suffix can be cut off by its time.
	if err := h.rdb.ConfigSet(ctx, "aof-timestamp-enabled", "yes").Err(); err != nil {
		return err
	}
	h.stock = stock.New(h.rdb)
	return nil
}

// openPostgres copies a database that has all tables and no rows.
func (h *house) openPostgres(ctx context.Context) error {
	if err := template(ctx, h.admin.Database); err != nil {
		return err
	}
	if err := execute(ctx, h.admin.Database, "CREATE DATABASE "+h.name+" TEMPLATE "+templateName+h.where); err != nil {
		return err
	}
	u, err := url.Parse(h.admin.Database)
	if err != nil {
		return err
	}
	u.Path = "/" + h.name
	h.urls.Database = u.String()
	if h.pool, err = postgres.Open(ctx, h.urls.Database, postgres.Options{MaxConns: 2, Name: "doorbuster chaos"}); err != nil {
		return err
	}
	h.orders = orders.New(h.pool)
	h.ctl = control.New(control.Config{Orders: h.orders, Stock: h.stock})
	return nil
}

// templateName is the database that runs are copied from.
const templateName = "chaos_template"

// template makes the database that runs are copied from, unless it is there.
func template(ctx context.Context, admin string) error {
	conn, err := pgx.Connect(ctx, admin)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(ctx) }()
	there := false
	if err := conn.QueryRow(ctx, `SELECT count(*) > 0 FROM pg_database WHERE datname = $1`, templateName).Scan(&there); err != nil {
		return err
	}
	if !there {
		if _, err := conn.Exec(ctx, "CREATE DATABASE "+templateName); err != nil {
			return err
		}
	}
	u, err := url.Parse(admin)
	if err != nil {
		return err
	}
	u.Path = "/" + templateName
	return errors.Join(orders.Migrate(ctx, u.String()), ledger.Migrate(ctx, u.String()))
}

// execute runs one command on a connection of its own.
func execute(ctx context.Context, url, command string) error {
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(ctx) }()
	_, err = conn.Exec(ctx, command)
	return err
}

// openLink puts a proxy into the cell's link. Those to provider and door come when
// their ends have an address.
func (h *house) openLink(context.Context) (err error) {
	var target string
	switch h.cell.link.to {
	case string(backing.Redis):
		target = h.admin.Redis
	case string(backing.RabbitMQ):
		target = h.admin.AMQP
	case string(backing.PostgreSQL):
		target = h.admin.Database
	default:
		return nil
	}
	h.proxy, err = proxyTo(target)
	return err
}

func proxyTo(rawURL string) (*proxy.Proxy, error) {
	u, err := url.Parse(rawURL)
	if err != nil {
		return nil, err
	}
	return proxy.New(u.Host)
}

// through is a URL as one end of a link sees it.
func (h *house) through(l link, rawURL string) string {
	if h.proxy == nil || h.cell.link != l {
		return rawURL
	}
	u, err := url.Parse(rawURL)
	if err != nil {
		return rawURL
	}
	u.Host = h.proxy.Addr()
	return u.String()
}

// startRoles starts the provider and then a process for each role.
func (h *house) startRoles(ctx context.Context) (err error) {
	h.ledger = filepath.Join(h.cfg.Dir, h.name+".ledger")
	if err := h.startProvider(ctx, "127.0.0.1:0", nil); err != nil {
		return err
	}
	if h.cell.link == (link{worker, provider}) {
		if h.proxy, err = proxyTo(h.proc[provider].url); err != nil {
			return err
		}
	}
	for _, role := range []string{recovery, relay, worker, door} {
		p := h.process(role, "serve", "--roles", role, "--no-migrate", "--metrics="+h.tells(role), "--listen", "127.0.0.1:0", "--drain", "3s", "--json")
		if role == worker {
			p.args = append(p.args, "--sandbox", h.through(link{worker, provider}, h.proc[provider].url))
		}
		if err := p.start(ctx); err != nil {
			return err
		}
	}
	at := h.proc[door]
	u, err := url.Parse(at.url)
	if err != nil {
		return err
	}
	at.args = append(at.args, "--listen", u.Host) // it comes back where it was
	if h.cell.link == crowdLink {
		h.proxy, err = proxyTo(at.url)
	}
	return err
}

// tells is where a role serves its metrics: nowhere, unless its clock is asked for.
func (h *house) tells(role string) string {
	if role == h.shifted {
		return tellsClock
	}
	return ""
}

// process prepares a child; its servers are the run's own.
func (h *house) process(role string, args ...string) *process {
	env := append([]string(nil), h.cfg.Env...)
	env = append(env,
		"REDIS_URL="+h.through(link{role, string(backing.Redis)}, h.admin.Redis),
		"AMQP_URL="+h.through(link{role, string(backing.RabbitMQ)}, h.admin.AMQP),
		"DATABASE_URL="+h.through(link{role, string(backing.PostgreSQL)}, h.urls.Database),
		"DOORBUSTER_QUEUE_PREFIX="+h.prefix())
	exe := h.cfg.Exe
	if role == h.shifted {
		exe, env = h.cfg.Shifted, append(env, "DOORBUSTER_CLOCK_SHIFT="+h.shift)
	}
	p := &process{
		name: role, exe: exe, args: append(append([]string(nil), h.cfg.Args...), args...), env: env,
		log: filepath.Join(h.cfg.Dir, role+".log"),
	}
	_ = os.Remove(p.log) // of the run before
	h.proc[role] = p
	return p
}

// startProvider starts the sandbox with the faults given beside the usual ones.
func (h *house) startProvider(ctx context.Context, listen string, faults []string) error {
	share := declines
	if h.moment.noDeclines {
		share = 0
	}
	args := append([]string{
		"sandbox", "--listen", listen, "--ledger", h.ledger, "--hang", hangs.String(),
		"--seed", strconv.FormatUint(h.seed, 10), "--declines", strconv.Itoa(share), "--json",
	}, faults...)
	old := h.proc[provider]
	p := h.process(provider, args...)
	if err := p.start(ctx); err != nil {
		return err
	}
	if old != nil {
		_ = old.stop()
	}
	return nil
}

// create creates the sale and waits until recovery has built it.
func (h *house) create(ctx context.Context) error {
	lead := saleLead
	if h.moment.lead > 0 {
		lead = h.moment.lead
	}
	opens := time.Now().UTC().Add(lead).Truncate(time.Millisecond)
	h.sale = engine.Sale{
		ID: engine.SaleID(h.name), Name: "Chaos", KeyNumber: 1, Mode: engine.ModeStandard, Payment: engine.PayAtOrder,
		Provider: "sandbox", Currency: currency, Opens: opens, Closes: opens.Add(saleLast), LimitPerBuyer: 1,
		HoldFor: engine.DefaultHoldFor, ReplayWindow: engine.DefaultReplay,
		Items: []engine.Item{{SKU: saleSKU, Name: "Mug", Price: price, Units: h.moment.units}},
	}
	if err := h.ctl.Create(ctx, h.sale, control.Note{Who: "chaos", Why: "to break it"}); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, buildMax)
	defer cancel()
	return until(ctx, func() bool {
		_, err := h.stock.Watch(ctx, h.sale.ID, 0)
		return err == nil
	})
}

// tickets mints one for every buyer.
func (h *house) tickets(prefix string, n int) ([]loadtest.Ticket, error) {
	out := make([]loadtest.Ticket, n)
	t := ticket.Ticket{Sale: h.sale.ID, NotBefore: h.sale.Opens.Add(-time.Hour).UnixMilli(), NotAfter: h.sale.Closes.Add(time.Hour).UnixMilli()}
	for i := range out {
		t.Buyer = engine.BuyerID(prefix + strconv.Itoa(i+1))
		token, err := h.cfg.Tickets.Mint(&t)
		if err != nil {
			return nil, err
		}
		out[i] = loadtest.Ticket{Buyer: t.Buyer, Token: token}
	}
	return out, nil
}

// measure notes at what rate the sale sells, the first time it is called.
func (h *house) measure() {
	if h.rate == 0 {
		h.rate = float64(h.tally.accepts.load()) / max(time.Since(h.sale.Opens).Seconds(), float64(poll)/float64(time.Second))
	}
}

// until asks again until done says so or ctx ends.
func until(ctx context.Context, done func() bool) error {
	tick := time.NewTicker(poll)
	defer tick.Stop()
	for !done() {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
	return nil
}

// close ends everything that open made. ok tells that nothing needs to be looked at
// afterwards.
func (h *house) close(ctx context.Context) error {
	var errs []error
	for _, role := range []string{door, worker, relay, recovery, provider} {
		if p := h.proc[role]; p != nil {
			errs = append(errs, p.stop())
		}
	}
	if h.proxy != nil {
		h.proxy.Close()
	}
	if h.pool != nil {
		h.pool.Close()
	}
	if h.rdb != nil {
		errs = append(errs, h.rdb.Close())
	}
	if h.urls.Database != "" {
		errs = append(errs, execute(ctx, h.admin.Database, "DROP DATABASE IF EXISTS "+h.name+" WITH (FORCE)"))
	}
	errs = append(errs, queue.Delete(ctx, h.queue()))
	if h.ledger != "" {
		errs = append(errs, os.Remove(h.ledger))
	}
	for _, end := range h.closers {
		errs = append(errs, end(ctx))
	}
	return errors.Join(errs...)
}
