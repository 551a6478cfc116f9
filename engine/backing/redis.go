package backing

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
)

// FsyncDefault is Redis' appendfsync where Config.Fsync is empty: it may lose
// its last second, which the standard mode allows.
const FsyncDefault = "everysec"

// rewriteAt is the size of the AOF below which Redis does not rewrite it. A
// rewrite takes a core for seconds and every answer with it (measured: p99 from
// 25 ms to 140 ms on two cores), and at Redis' own 64 MiB it comes in the middle
// of any storm of 100,000 orders. Reading 1 GiB back takes a few seconds.
const rewriteAt = "1gb"

var redisKind = kind{
	name:     Redis,
	accounts: []string{"redis"},
	programs: []string{"redis-server"},
	ports:    []string{portMain},
	quit:     syscall.SIGTERM, // writes out the AOF and leaves
	boot:     60 * time.Second,
	prepare:  prepareRedis,
	commands: func(s site) []command {
		return []command{{role: roleServer, path: s.programs["redis-server"], args: []string{filepath.Join(s.dir, "redis.conf")}, env: s.environment(), dir: s.dir}}
	},
	url:    redisURL,
	ping:   pingRedis,
	settle: settleRedis,
}

func redisURL(s site) string {
	u := url.URL{Scheme: "redis", User: url.UserPassword("", s.password), Host: s.address(), Path: "/0"}
	return u.String()
}

// prepareRedis writes redis.conf. noeviction: a hold must never vanish to make
// room. No snapshots: the AOF is the only file, so that a test that truncates it
// really loses what it means to lose.
func prepareRedis(_ context.Context, s site) error {
	if err := s.who.makeDir(s.dataDir()); err != nil {
		return err
	}
	lines := []string{
		"bind " + loopback,
		fmt.Sprintf("port %d", s.ports[portMain]),
		"requirepass " + s.password,
		`dir "` + s.dataDir() + `"`,
		"daemonize no",
		"appendonly yes",
		"appendfsync " + s.fsync,
		"auto-aof-rewrite-min-size " + rewriteAt,
		`save ""`,
		"maxmemory-policy noeviction",
		fmt.Sprintf("maxmemory %d", s.memory),
		"tcp-backlog 511",
	}
	return s.who.writeFile(filepath.Join(s.dir, "redis.conf"), []byte(strings.Join(lines, "\n")+"\n"))
}

func redisClient(rawURL string) (*redis.Client, error) {
	opt, err := redis.ParseURL(rawURL)
	if err != nil {
		return nil, err
	}
	opt.MaxRetries, opt.DisableIdentity, opt.PoolSize = -1, true, 1
	opt.MaintNotificationsConfig = &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}
	return redis.NewClient(opt), nil
}

// pingRedis wants a PONG; while Redis reads its AOF it answers LOADING, an error.
// The plain dial comes first because the client writes every dial that fails to
// standard error.
func pingRedis(ctx context.Context, rawURL string) error {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", hostPort(rawURL))
	if err != nil {
		return err
	}
	_ = conn.Close()
	rdb, err := redisClient(rawURL)
	if err != nil {
		return err
	}
	defer func() { _ = rdb.Close() }()
	return rdb.Ping(ctx).Err()
}

// settleRedis tells a Redis that was running already what this Up wants of it.
func settleRedis(ctx context.Context, s site) error {
	rdb, err := redisClient(redisURL(s))
	if err != nil {
		return err
	}
	defer func() { _ = rdb.Close() }()
	if err := rdb.ConfigSet(ctx, "appendfsync", s.fsync).Err(); err != nil {
		return err
	}
	return rdb.ConfigSet(ctx, "maxmemory", fmt.Sprint(s.memory)).Err()
}
