package chaos

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/doorbuster/doorbuster/engine"
	"github.com/doorbuster/doorbuster/engine/backing"
	"github.com/doorbuster/doorbuster/engine/control"
	"github.com/doorbuster/doorbuster/loadtest/proxy"
)

const (
	smallRedis  = 32 << 20 // bytes of disk
	fullTries   = 200 * time.Millisecond
	replicaLag  = time.Second      // what a promoted replica lacks
	replicaSync = 20 * time.Second // for it to have everything first
)

// A wrong clock must last until recovery has judged it three times, a second apart.
var wrongClock = span{4500 * time.Millisecond, 6500 * time.Millisecond}

const (
	clockNear   = 5 * time.Second // how exactly a clock must be where it was set
	clockJudged = 6 * time.Second // for recovery to have paused the sale
)

// redisOwnCells break a Redis of their own.
func redisOwnCells() []*Cell {
	const r = string(backing.Redis)
	cells := []*Cell{
		{Component: r, Fault: "disk-full", hold: full, own: redisOnSmallDisk, arm: ready, strike: fillRedis, heal: freeRedis},
		{Component: r, Fault: "replica-promoted", hold: quick, own: redisPair(replicaLag), arm: lagReplica, strike: promote, heal: promoted},
		{Component: r, Fault: "failover", hold: quick, own: redisPair(0), arm: lagReplica, strike: promote, heal: promoted},
	}
	for _, by := range []struct {
		fault string
		by    time.Duration
	}{{"clock+10m", 10 * time.Minute}, {"clock-10m", -10 * time.Minute}} {
		cells = append(cells, &Cell{
			Component: r, Fault: by.fault, hold: wrongClock, own: redisWithClock, arm: ready, strike: setRedisClock(by.by), heal: mendRedisClock, excuses: 14,
		})
	}
	for _, c := range cells {
		c.kind, c.lossy = r, true
	}
	return cells
}

// ready is the arm of a cell that is ready as soon as its own servers are up.
func ready(context.Context, *house) error { return nil }

// redisOnSmallDisk brings a Redis whose log is on a tmpfs.
func redisOnSmallDisk(ctx context.Context, h *house) error {
	disk, err := h.cfg.smallDisk("redis-small", smallRedis)
	if err != nil {
		return err
	}
	if err := unfill(disk); err != nil {
		return err
	}
	s, err := h.cfg.ownServer(ctx, "redis-small/home", backing.Redis, backing.Config{})
	if err != nil {
		return err
	}
	h.memory["disk"], h.admin.Redis = disk, s.URLs().Redis
	return nil
}

// fillRedis leaves Redis no room for its log. It refuses writes once it has noticed.
func fillRedis(ctx context.Context, h *house) (string, error) {
	n, err := fill(h.memory["disk"].(string), 0)
	if err != nil {
		return "", err
	}
	ctx, stop := context.WithTimeout(ctx, fullTries)
	defer stop()
	for err == nil {
		err = h.rdb.Set(ctx, "chaos:full", "1", 0).Err()
	}
	if !strings.Contains(err.Error(), "MISCONF") {
		return "", unproven("a write was answered %v", err)
	}
	return fmt.Sprintf("the last %d bytes of the disk taken, a write was refused: %s", n, err), nil
}

func freeRedis(ctx context.Context, h *house) (string, error) {
	disk, _ := h.memory["disk"].(string)
	if disk == "" {
		return "", nil
	}
	if err := unfill(disk); err != nil {
		return "", err
	}
	return "", until(ctx, func() bool { return h.rdb.Set(ctx, "chaos:full", "1", 0).Err() == nil })
}

// redisPair brings a Redis and its replica, both behind proxies: one between them,
// one before whichever is the primary.
func redisPair(lag time.Duration) func(context.Context, *house) error {
	return func(ctx context.Context, h *house) error {
		p := &redisTwo{lag: lag}
		var err error
		if p.primary, err = h.cfg.ownServer(ctx, "redis-primary", backing.Redis, backing.Config{}); err != nil {
			return err
		}
		if p.replica, err = h.cfg.ownServer(ctx, "redis-replica", backing.Redis, backing.Config{}); err != nil {
			return err
		}
		// They go with the run: who was what, and the passwords, are no longer as found.
		h.closers = append(h.closers, func(ctx context.Context) error {
			return errors.Join(h.cfg.forget(ctx, "redis-primary", p.primary), h.cfg.forget(ctx, "redis-replica", p.replica))
		})
		one, err := url.Parse(p.primary.URLs().Redis)
		if err != nil {
			return err
		}
		p.password, _ = one.User.Password()
		if p.between, err = proxy.New(one.Host); err != nil {
			return err
		}
		h.closers = append(h.closers, closing(p.between))
		if p.front, err = proxy.New(one.Host); err != nil {
			return err
		}
		h.closers = append(h.closers, closing(p.front))
		one.Host = p.front.Addr()
		h.memory["pair"], h.admin.Redis = p, one.String()
		return p.follow(ctx)
	}
}

// redisTwo is a primary and its replica.
type redisTwo struct {
	primary, replica *backing.Services
	password         string // of the primary, and for a while of both
	between, front   *proxy.Proxy
	lag              time.Duration
}

// ask runs a command on one of them, past the proxies.
func (p *redisTwo) ask(ctx context.Context, s *backing.Services, args ...any) (string, error) {
	opt, err := redis.ParseURL(s.URLs().Redis)
	if err != nil {
		return "", err
	}
	opt.DisableIdentity, opt.MaxRetries, opt.PoolSize = true, -1, 1
	rdb := redis.NewClient(opt)
	defer func() { _ = rdb.Close() }()
	v, err := rdb.Do(ctx, args...).Result()
	return fmt.Sprint(v), err
}

// follow makes the replica one, and waits until it has everything.
func (p *redisTwo) follow(ctx context.Context) error {
	host, port, _ := strings.Cut(p.between.Addr(), ":")
	for _, args := range [][]any{
		{"CONFIG", "SET", "masterauth", p.password, "repl-diskless-sync-delay", "0"},
		{"REPLICAOF", host, port},
	} {
		if _, err := p.ask(ctx, p.replica, args...); err != nil {
			return err
		}
	}
	if _, err := p.ask(ctx, p.primary, "CONFIG", "SET", "repl-diskless-sync-delay", "0"); err != nil {
		return err
	}
	ctx, stop := context.WithTimeoutCause(ctx, replicaSync, errors.New("the replica did not catch up"))
	defer stop()
	return until(ctx, func() bool {
		info, err := p.ask(ctx, p.replica, "INFO", "replication")
		return err == nil && strings.Contains(info, "master_link_status:up") && strings.Contains(info, "master_sync_in_progress:0")
	})
}

// lagReplica lets everything reach the replica later than it should.
func lagReplica(_ context.Context, h *house) error {
	if p := h.memory["pair"].(*redisTwo); p.lag > 0 {
		p.between.Set(proxy.Slow, p.lag)
	}
	return nil
}

// promote cuts the replica off, kills the primary, and makes the replica the primary
// for everybody. What had not arrived is lost.
func promote(ctx context.Context, h *house) (string, error) {
	p := h.memory["pair"].(*redisTwo)
	if p.lag > 0 {
		p.between.Set(proxy.Blackhole, 0)
	}
	had, err := p.ask(ctx, p.primary, "INFO", "replication")
	if err != nil {
		return "", err
	}
	pid := p.primary.PID(backing.Redis)
	if err := p.primary.Kill(ctx, backing.Redis); err != nil {
		return "", err
	}
	has, err := p.ask(ctx, p.replica, "INFO", "replication")
	if err != nil {
		return "", err
	}
	if _, err := p.ask(ctx, p.replica, "REPLICAOF", "NO", "ONE"); err != nil {
		return "", err
	}
	// The one password that everybody has.
	if _, err := p.ask(ctx, p.replica, "CONFIG", "SET", "requirepass", p.password); err != nil {
		return "", err
	}
	to, err := url.Parse(p.replica.URLs().Redis)
	if err != nil {
		return "", err
	}
	p.front.Aim(true, to.Host)
	behind := number(had, "master_repl_offset") - number(has, "slave_repl_offset")
	if p.lag > 0 && behind <= 0 {
		return "", unproven("the replica had everything")
	}
	return fmt.Sprintf("primary pid %d killed, its replica promoted %d bytes behind", pid, behind), nil
}

// promoted sees that everybody talks to the new primary.
func promoted(ctx context.Context, h *house) (string, error) {
	if !h.struck.Load() {
		return "", nil
	}
	role, err := h.rdb.Do(ctx, "ROLE").Slice()
	if err == nil && (len(role) == 0 || role[0] != "master") {
		err = unproven("behind the proxy is %v", role)
	}
	return "", err
}

// number reads a number of INFO.
func number(info, field string) (n int64) {
	_, rest, _ := strings.Cut(info, "\n"+field+":")
	_, _ = fmt.Sscan(rest, &n)
	return n
}

// faketimes are where Debian and Ubuntu put the library that lies about the time.
const faketimes = "/usr/lib/*/faketime/libfaketime.so.1"

// plainMalloc is loaded right behind it. Debian's Redis allocates by jemalloc, which
// asks for the time while it begins, and the lying library allocates to answer: with
// the C library's allocator in front they do not wait for each other for ever
// (github.com/wolfcw/libfaketime, issue 130).
const plainMalloc = "libc.so.6"

// redisWithClock brings a Redis that takes its time from a file.
func redisWithClock(ctx context.Context, h *house) error {
	libs, err := filepath.Glob(faketimes)
	if err != nil || len(libs) == 0 {
		return errors.New("libfaketime is missing; as root: apt-get install libfaketime")
	}
	root, err := h.cfg.ownRoot()
	if err != nil {
		return err
	}
	file := filepath.Join(root, "redis-clock.time")
	if err := os.WriteFile(file, []byte("+0\n"), 0o644); err != nil { // Redis' account reads it
		return err
	}
	s, err := h.cfg.ownServer(ctx, "redis-clock", backing.Redis, backing.Config{Env: map[backing.Name][]string{backing.Redis: {
		"LD_PRELOAD=" + libs[0] + " " + plainMalloc, "FAKETIME_TIMESTAMP_FILE=" + file, "FAKETIME_NO_CACHE=1", "FAKETIME_DONT_FAKE_MONOTONIC=1",
	}}})
	if err != nil {
		return err
	}
	h.memory["clock"], h.admin.Redis = file, s.URLs().Redis
	return nil
}

// setRedisClock makes the clock of the running Redis jump.
func setRedisClock(by time.Duration) deed {
	return func(ctx context.Context, h *house) (string, error) {
		proof, err := h.redisClock(ctx, by)
		if err == nil {
			h.memory["paused"] = h.awaitPause(ctx)
		}
		return proof, err
	}
}

// paused tells when recovery paused the sale, and what buyers had been told by then.
type paused struct {
	after   time.Duration
	accepts int64 // since the strike, until a while after the pause
	late    func() int64
	err     error
}

// awaitPause watches from now on for the sale to be paused.
func (h *house) awaitPause(ctx context.Context) <-chan paused {
	out := make(chan paused, 1)
	began, had := time.Now(), h.tally.accepts.load()
	ctx, stop := context.WithTimeout(context.WithoutCancel(ctx), clockJudged)
	go func() {
		defer stop()
		var p paused
		p.err = until(ctx, func() bool {
			sale, _, err := h.orders.Sale(ctx, h.sale.ID)
			return err == nil && sale.State == engine.SalePaused
		})
		p.after = time.Since(began)
		rest(ctx, promptly) // for answers that are on their way
		told := h.tally.accepts.load()
		p.accepts, p.late = told-had, func() int64 { return h.tally.accepts.load() - told }
		out <- p
	}()
	return out
}

func (h *house) redisClock(ctx context.Context, by time.Duration) (string, error) {
	file := h.memory["clock"].(string)
	fresh := file + ".new"
	if err := os.WriteFile(fresh, fmt.Appendf(nil, "%+d\n", int(by.Seconds())), 0o644); err != nil { // Redis' account reads it
		return "", err
	}
	if err := os.Rename(fresh, file); err != nil { // never half of it
		return "", err
	}
	now, err := h.rdb.Time(ctx).Result()
	if err != nil {
		return "", err
	}
	off := time.Until(now)
	if (off - by).Abs() > clockNear {
		return "", unproven("Redis' clock is %s off, not %s", off, by)
	}
	return fmt.Sprintf("Redis' clock is %s off", off.Round(time.Millisecond)), nil
}

// mendRedisClock sees that recovery has paused the sale, sets the clock right, and
// does what an operator does then: recovery leaves it to somebody to let it go on.
// Orders that were accepted before the pause bear a wrong time, which law 14 tells.
func mendRedisClock(ctx context.Context, h *house) (string, error) {
	watched, ok := h.memory["paused"].(<-chan paused)
	if !ok {
		return "", nil
	}
	p := <-watched
	late := p.late()
	if _, err := h.redisClock(ctx, 0); err != nil {
		return "", err
	}
	switch {
	case p.err != nil:
		return "", fmt.Errorf("%w: the clock was wrong for %s and nobody paused the sale", errBroken, p.after.Round(time.Millisecond))
	case late > 0:
		return "", fmt.Errorf("%w: %d orders were accepted after the sale was paused", errBroken, late)
	}
	if err := h.ctl.Resume(ctx, h.sale.ID, control.Note{Who: "chaos", Why: "the clock is right again"}); err != nil {
		return "", err
	}
	return fmt.Sprintf("recovery paused the sale after %d ms, until when %d orders were accepted", p.after.Milliseconds(), p.accepts), nil
}
