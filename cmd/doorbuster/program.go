package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/redis/go-redis/v9"
	"github.com/valyala/fasthttp"

	"github.com/doorbuster/doorbuster/engine/orders"
	"github.com/doorbuster/doorbuster/engine/postgres"
	"github.com/doorbuster/doorbuster/engine/queue"
	"github.com/doorbuster/doorbuster/engine/recovery"
	"github.com/doorbuster/doorbuster/stock"
)

// Connections to PostgreSQL by role, and of status to Redis. Each role has a pool of
// its own, so that buyers asking for their orders never stand in the workers' way,
// nor either of them before a heartbeat.
const (
	doorConns     = 2 // for what Redis cannot say of sales that are over
	workerConns   = 12
	statusConns   = 6
	recoveryConns = 6
	leadConns     = 2 // leads and the word for heartbeats: nothing else waits in this pool
	relayConns    = 2
	pulseConns    = 16 // to each Redis server, for heartbeats alone
)

// program is a running server: its roles and what they share. Make it with
// newProgram, run it once.
type program struct {
	cmd        *ServeCmd
	cfg        programConfig
	log        *slog.Logger
	reg        *prometheus.Registry
	rdb        redis.UniversalClient
	stock      *stock.Store
	pub        *queue.Publisher
	pools      []*pgxpool.Pool
	slots      []redis.UniversalClient // of roles that must not wait in the doors' pool
	unreadable func(stock.Unreadable)

	listener, metrics net.Listener
	routes            []func(*fasthttp.RequestCtx) bool
	parts             []part
	recovery          *recovery.Recovery // nil without that role
}

const partHTTP = "http"

// stopOrder is the order in which parts stop: senders before receivers. Status
// comes first of all: its live streams are connections that HTTP's drain would
// wait for.
var stopOrder = []string{roleStatus, partHTTP, roleDoor, roleWorker, roleRelay, roleRecovery}

type programConfig struct {
	Roles    []string
	Backends Backends
	Globals  *Globals
}

// part is something that runs until its context ends.
type part struct {
	name string
	run  func(context.Context) error
}

// newProgram opens connections and listeners and wires the roles.
func newProgram(ctx context.Context, cmd *ServeCmd, cfg programConfig) (_ *program, err error) {
	p := &program{cmd: cmd, cfg: cfg, log: cfg.Globals.Logger(), reg: prometheus.NewRegistry()}
	p.reg.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	defer func() {
		if err != nil {
			p.close()
		}
	}()
	if p.rdb, err = stock.Open(cfg.Backends.Redis); err != nil {
		return nil, err
	}
	p.stock = stock.New(p.rdb)
	if p.unreadable, err = stock.ReportUnreadable(p.log, p.reg); err != nil {
		return nil, err
	}
	p.stock.OnUnreadable(p.unreadable)
	if p.has(roleDoor) || p.has(roleRelay) || p.has(roleRecovery) {
		p.pub = queue.NewPublisher(p.queueConfig())
	}
	for _, wire := range []struct {
		role string
		do   func(context.Context) error
	}{
		{roleDoor, p.wireDoor},
		{roleStatus, p.wireStatus},
		{roleRelay, p.wireRelay},
		{roleRecovery, p.wireRecovery}, // before the worker, which nudges it
		{roleWorker, p.wireWorker},
	} {
		if p.has(wire.role) {
			if err := wire.do(ctx); err != nil {
				return nil, fmt.Errorf("role %s: %w", wire.role, err)
			}
		}
	}
	return p, p.listen(ctx)
}

func (p *program) has(role string) bool { return slices.Contains(p.cfg.Roles, role) }

func (p *program) queueConfig() queue.Config {
	cfg := p.cfg.Backends.queue(p.log)
	cfg.Registerer = p.reg
	return cfg
}

func (p *program) add(name string, run func(context.Context) error) {
	p.parts = append(p.parts, part{name, run})
}

// orders opens a role's own pool. A door starts without PostgreSQL, too.
func (p *program) orders(ctx context.Context, role string, conns int32) (*orders.Store, *pgxpool.Pool, error) {
	pool, err := postgres.Open(ctx, p.cfg.Backends.Postgres, postgres.Options{MaxConns: conns, Name: "doorbuster " + role, Lazy: role == roleDoor})
	if err != nil {
		return nil, nil, err
	}
	p.pools = append(p.pools, pool)
	return orders.New(pool), pool, nil
}

// slot opens a pool to Redis of its own.
func (p *program) slot(conns int) (*stock.Store, error) {
	rdb, err := stock.OpenPool(p.cfg.Backends.Redis, conns)
	if err != nil {
		return nil, err
	}
	p.slots = append(p.slots, rdb)
	s := stock.New(rdb)
	s.OnUnreadable(p.unreadable)
	return s, nil
}

// Addr is where the API listens; empty if no role needs it.
func (p *program) Addr() string { return addr(p.listener) }

// MetricsAddr is where the metrics are; empty if there are none.
func (p *program) MetricsAddr() string { return addr(p.metrics) }

func addr(ln net.Listener) string {
	if ln == nil {
		return ""
	}
	return ln.Addr().String()
}

func (p *program) listen(ctx context.Context) (err error) {
	var lc net.ListenConfig
	if len(p.routes) > 0 {
		if p.listener, err = lc.Listen(ctx, "tcp", p.cmd.Listen); err != nil {
			return fmt.Errorf("%w (another address: --listen)", err)
		}
	}
	if p.cmd.Metrics != "" {
		if p.metrics, err = lc.Listen(ctx, "tcp", p.cmd.Metrics); err != nil {
			return fmt.Errorf("metrics: %w (another address: --metrics; none: --metrics=)", err)
		}
	}
	return nil
}

// Run serves until ctx ends or a part fails, then stops the parts one after
// another: first no new requests, then the roles, last the publisher that they
// publish with. It returns after everything has ended.
func (p *program) Run(ctx context.Context) error {
	defer p.close()
	parts := append([]part{{partHTTP, p.serveHTTP}}, p.parts...)
	slices.SortStableFunc(parts, func(a, b part) int {
		return slices.Index(stopOrder, a.name) - slices.Index(stopOrder, b.name)
	})
	if p.pub != nil {
		parts = append(parts, part{"publisher", p.pub.Run})
	}
	parts = append(parts, part{"metrics", p.serveMetrics})

	type ended struct {
		name string
		err  error
	}
	ends := make(chan ended, len(parts))
	stops := make([]context.CancelFunc, len(parts))
	dones := make([]chan struct{}, len(parts))
	for i, part := range parts {
		own, cancel := context.WithCancel(context.WithoutCancel(ctx))
		stops[i], dones[i] = cancel, make(chan struct{})
		go func() {
			defer close(dones[i])
			ends <- ended{part.name, part.run(own)}
		}()
	}
	var failed error
	select {
	case <-ctx.Done():
		p.log.Info("stopping", "roles", p.cfg.Roles)
	case end := <-ends:
		failed = fmt.Errorf("%s ended: %w", end.name, or2(end.err, errors.New("without being asked to")))
	}
	for i := range parts {
		stops[i]()
		<-dones[i]
	}
	return failed
}

func or2(err, other error) error {
	if err != nil {
		return err
	}
	return other
}

func (p *program) close() {
	for _, pool := range p.pools {
		pool.Close()
	}
	if p.rdb != nil {
		_ = p.rdb.Close()
	}
	for _, rdb := range p.slots {
		_ = rdb.Close()
	}
	for _, ln := range []net.Listener{p.listener, p.metrics} {
		if ln != nil {
			_ = ln.Close()
		}
	}
}

// drainContext is for what must end soon after ctx has.
func (p *program) drainContext() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), max(p.cmd.Drain, time.Second))
}
