package bench

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	amqp "github.com/rabbitmq/amqp091-go"
	"github.com/redis/go-redis/v9"

	"github.com/doorbuster/doorbuster/engine"
	"github.com/doorbuster/doorbuster/engine/audit"
	"github.com/doorbuster/doorbuster/engine/orders"
	"github.com/doorbuster/doorbuster/engine/postgres"
	"github.com/doorbuster/doorbuster/engine/queue"
	"github.com/doorbuster/doorbuster/stock"
)

// bench is one run.
type bench struct {
	cfg      Config
	plan     plan
	rdb      redis.UniversalClient
	stock    *stock.Store
	began    time.Time
	pool     *pgxpool.Pool
	orders   *orders.Store
	audit    *audit.Auditor
	children []*child
	values   map[string][]float64
	mode     engine.Mode // of the sales that are made

	lastOrders int64 // of (f), for (g) beside it
	lastGroup  int   // orders per message of (f)
}

// Result is what a run measured.
type Result struct {
	Began   time.Time     `json:"began"` // UTC
	Took    time.Duration `json:"took_ns"`
	Machine string        `json:"machine"`
	Command string        `json:"command"`
	Short   bool          `json:"short"`
	Pairs   int           `json:"pairs"`
	Servers string        `json:"servers"`
	Series  []Series      `json:"series"`
}

// Find returns the series with this name, nil if there is none.
func (r *Result) Find(name string) *Series {
	for i := range r.Series {
		if r.Series[i].Name == name {
			return &r.Series[i]
		}
	}
	return nil
}

// Missed returns the names of the series below their target, or not measured.
func (r *Result) Missed() []string {
	var out []string
	for i := range r.Series {
		if s := &r.Series[i]; s.Target != 0 && !strings.HasPrefix(s.Met(), "met") {
			out = append(out, s.Name)
		}
	}
	return out
}

// Run measures what cfg asks for and writes the page. It takes about twenty minutes
// (Short: under one). The servers named must be private ones: Redis' appendfsync
// is changed for (j) and a part of (e), and put back. When ctx ends, everything is stopped
// and nothing is written.
func Run(ctx context.Context, cfg Config) (_ Result, err error) {
	if err := cfg.fill(); err != nil {
		return Result{}, fmt.Errorf("bench: %w", err)
	}
	b := &bench{cfg: cfg, plan: cfg.plan(), began: time.Now(), values: map[string][]float64{}, mode: engine.ModeStandard}
	defer func() { err = errors.Join(err, b.close()) }()
	if err := b.open(ctx); err != nil {
		return Result{}, fmt.Errorf("bench: %w", err)
	}
	res := Result{Began: time.Now().UTC(), Machine: cfg.Machine, Command: cfg.Command, Short: cfg.Short, Pairs: cfg.Pairs}
	res.Servers = b.servers(ctx)
	for _, step := range []struct {
		name string
		do   func(context.Context) error
	}{
		{stepDoor, b.doorRounds},
		{stepStock, b.stockRounds},
		{stepSandbox, b.sandboxRounds},
		{stepOpen, b.openLoops},
		{stepMemory, b.memory},
		{stepDurable, b.durableRounds},
		{stepOverload, b.overload},
	} {
		if !cfg.has(step.name) {
			continue
		}
		if err := step.do(ctx); err != nil {
			return res, fmt.Errorf("bench: %s: %w", step.name, err)
		}
	}
	res.Took = time.Since(res.Began)
	res.Series = b.series()
	if cfg.Out != "" {
		err = writePage(cfg.Out, &res)
	}
	return res, err
}

func (b *bench) open(ctx context.Context) (err error) {
	if b.rdb, err = stock.Open(b.cfg.Redis); err != nil {
		return err
	}
	b.stock = stock.New(b.rdb)
	if b.pool, err = postgres.Open(ctx, b.cfg.Database, postgres.Options{Name: "doorbuster bench", Analytical: true}); err != nil {
		return err
	}
	b.orders = orders.New(b.pool)
	b.audit, err = audit.Open(audit.Config{
		DatabaseURL: b.cfg.Database, RedisURL: b.cfg.Redis, Queue: queue.Config{URL: b.cfg.AMQP}, Logger: b.cfg.Logger,
	})
	return err
}

// close stops all children, the last started first, and closes connections.
func (b *bench) close() error {
	var errs []error
	for i := len(b.children) - 1; i >= 0; i-- {
		errs = append(errs, b.children[i].stop())
	}
	if b.audit != nil {
		b.audit.Close()
	}
	if b.pool != nil {
		b.pool.Close()
	}
	if b.rdb != nil {
		errs = append(errs, b.rdb.Close())
	}
	return errors.Join(errs...)
}

func (b *bench) doorRounds(ctx context.Context) error {
	d, err := b.startDoors(ctx)
	if err != nil {
		return err
	}
	for i := range b.cfg.Pairs {
		b.say("round %d of %d", i+1, b.cfg.Pairs)
		if err := b.round(ctx, &d); err != nil {
			return err
		}
	}
	return errors.Join(d.single.stop(), d.door.stop(), d.back.stop(), d.bare.stop())
}

func (b *bench) add(name string, v float64) { b.values[name] = append(b.values[name], v) }

func (b *bench) say(format string, args ...any) {
	fmt.Fprintf(b.cfg.Progress, "%6.1f s  "+format+"\n", append([]any{time.Since(b.began).Seconds()}, args...)...)
}

// servers names the versions of the three servers.
func (b *bench) servers(ctx context.Context) string {
	var pg string
	_ = b.pool.QueryRow(ctx, `SHOW server_version`).Scan(&pg) // an empty version is told as such
	redisVersion := "?"
	if info, err := b.rdb.Info(ctx, "server").Result(); err == nil {
		redisVersion = infoField(info, "redis_version")
	}
	return fmt.Sprintf("Redis %s, PostgreSQL %s, RabbitMQ %s", redisVersion, strings.Fields(pg + " ?")[0], b.brokerVersion())
}

func (b *bench) brokerVersion() string {
	conn, err := amqp.Dial(b.cfg.AMQP)
	if err != nil {
		return "?"
	}
	version, _ := conn.Properties["version"].(string)
	_ = conn.Close() // it has told what was asked
	return version
}

func infoField(info, name string) string {
	for line := range strings.SplitSeq(info, "\r\n") {
		if v, ok := strings.CutPrefix(line, name+":"); ok {
			return v
		}
	}
	return ""
}

// redisMemory returns what Redis uses, in bytes.
func (b *bench) redisMemory(ctx context.Context) (int64, error) {
	info, err := b.rdb.Info(ctx, "memory").Result()
	if err != nil {
		return 0, err
	}
	return strconv.ParseInt(infoField(info, "used_memory"), 10, 64)
}

// messagesSent reads from a child's metrics how many messages it has published.
func messagesSent(ctx context.Context, c *child) float64 {
	page, err := get(ctx, c.urls[len(c.urls)-1]+"/metrics")
	if err != nil {
		return 0
	}
	const confirmed = `doorbuster_queue_publish_total{result="confirmed"} `
	_, rest, ok := strings.Cut(page, "\n"+confirmed)
	if !ok {
		return 0
	}
	line, _, _ := strings.Cut(rest, "\n")
	n, _ := strconv.ParseFloat(line, 64) // 0 means unknown to the caller
	return n
}
