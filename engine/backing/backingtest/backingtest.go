// Package backingtest hands real servers to tests: a Redis client and an unused
// sale id, a database of the test's own, a queue prefix of the test's own. It
// finds the servers in REDIS_URL, AMQP_URL and DATABASE_URL, which `make test`
// sets; without them a test is skipped, or fails if DOORBUSTER_REQUIRE_SERVERS
// is set. Nothing is flushed: whatever a test makes carries a name that no other
// test has, and goes with the test.
package backingtest

import (
	"context"
	"crypto/rand"
	"fmt"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/redis/go-redis/v9"

	"github.com/doorbuster/doorbuster/engine"
)

const setupTimeout = 20 * time.Second

func need(t testing.TB, name string) string {
	t.Helper()
	v := os.Getenv(name)
	if v == "" {
		if os.Getenv("DOORBUSTER_REQUIRE_SERVERS") != "" {
			t.Fatalf("%s is not set, and DOORBUSTER_REQUIRE_SERVERS is: start the servers with `doorbuster up`", name)
		}
		t.Skipf("%s is not set: `make test` starts the servers and sets it", name)
	}
	return v
}

func unique() string { return strings.ToLower(rand.Text()[:12]) }

// RedisURL returns the URL of the Redis server for tests.
func RedisURL(t testing.TB) string { t.Helper(); return need(t, "REDIS_URL") }

// Redis returns a client of the Redis server for tests, closed with the test.
func Redis(t testing.TB) redis.UniversalClient {
	t.Helper()
	opt, err := redis.ParseURL(RedisURL(t))
	if err != nil {
		t.Fatal(err)
	}
	opt.MaxRetries = -1
	opt.DisableIdentity = true
	rdb := redis.NewClient(opt)
	t.Cleanup(func() { _ = rdb.Close() })
	return rdb
}

// Sale returns a sale id no other test has; its keys are deleted with the test.
func Sale(t testing.TB) engine.SaleID {
	t.Helper()
	id := engine.SaleID("t-" + unique())
	rdb := Redis(t)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), setupTimeout)
		defer cancel()
		keys := rdb.Scan(ctx, 0, "*{"+string(id)+"}*", 1000).Iterator()
		for keys.Next(ctx) {
			rdb.Unlink(ctx, keys.Val())
		}
	})
	return id
}

// AMQP returns the URL of the RabbitMQ server for tests.
func AMQP(t testing.TB) string { t.Helper(); return need(t, "AMQP_URL") }

// QueuePrefix returns a prefix for exchange and queue names no other test has.
// The test deletes what it declares.
func QueuePrefix(t testing.TB) string { t.Helper(); return "t-" + unique() + "." }

// Database creates an empty database and returns its URL; it is dropped with the
// test.
func Database(t testing.TB) string {
	t.Helper()
	admin := need(t, "DATABASE_URL")
	name := "t_" + unique()
	exec(t, admin, "CREATE DATABASE "+name)
	t.Cleanup(func() { exec(t, admin, fmt.Sprintf("DROP DATABASE IF EXISTS %s WITH (FORCE)", name)) })
	u, err := url.Parse(admin)
	if err != nil {
		t.Fatalf("DATABASE_URL: %v", err)
	}
	u.Path = "/" + name
	return u.String()
}

func exec(t testing.TB, url, sql string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), setupTimeout)
	defer cancel()
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		t.Fatalf("connect to PostgreSQL: %v", err)
	}
	defer func() { _ = conn.Close(ctx) }()
	if _, err := conn.Exec(ctx, sql); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}
