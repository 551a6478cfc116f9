package door_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"strconv"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/doorbuster/doorbuster/engine"
	"github.com/doorbuster/doorbuster/engine/backing/backingtest"
	"github.com/doorbuster/doorbuster/engine/door"
	"github.com/doorbuster/doorbuster/stock"
)

// ofDurableMode makes the sale durable, on a Redis that is set as check says.
func ofDurableMode(check func() error) option {
	return func(cfg *door.Config, s *engine.Sale) {
		s.Mode = engine.ModeDurable
		cfg.CheckDurable = func(context.Context, engine.SaleID) error { return check() }
	}
}

// Nothing of a durable sale is sold while Redis does not write to disk at once; who
// changes that in the middle of a sale stops it within a second. Standard mode does
// not ask.
func TestDurableSaleNeedsItsDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var bad atomic.Bool
		var asked atomic.Int64
		bad.Store(true)
		b := setup(t, ofDurableMode(func() error {
			asked.Add(1)
			if bad.Load() {
				return fmt.Errorf("%w: appendfsync everysec", stock.ErrNotDurable)
			}
			return nil
		}))
		b.want(b.buy("ann", "k"), 503, "sale-frozen")
		if n := b.stock.reserves.Load(); n != 0 {
			t.Errorf("%d calls of the script", n)
		}
		bad.Store(false)
		time.Sleep(1200 * time.Millisecond)
		b.want(b.buy("ann", "k"), 202, "")
		asked.Store(0)
		time.Sleep(3 * time.Second)
		if n := asked.Load(); n > 4 {
			t.Errorf("asked %d times in 3 s", n)
		}
		bad.Store(true)
		time.Sleep(1200 * time.Millisecond)
		b.want(b.buy("bob", "k"), 503, "sale-frozen")
		b.sale.Mode = engine.ModeStandard
		b.build(2)
		time.Sleep(1200 * time.Millisecond)
		b.want(b.buy("bob", "k"), 202, "")
	})
}

// An answer that does not come changes nothing, but nothing is sold before the
// first that does.
func TestDurableSaleWaitsForTheFirstAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var away atomic.Bool
		away.Store(true)
		b := setup(t, ofDurableMode(func() error {
			if away.Load() {
				return errReset
			}
			return nil
		}))
		b.want(b.buy("ann", "k"), 503, "sale-frozen")
		away.Store(false)
		time.Sleep(200 * time.Millisecond)
		b.want(b.buy("ann", "k"), 202, "")
		away.Store(true)
		time.Sleep(3 * time.Second)
		b.want(b.buy("bob", "k"), 202, "")
	})
}

// What was taken and is not known to be safe is unknown to its buyer: 503, and no
// message. What was refused is refused. The repeat gets the same order.
func TestUnsafeIsUnknown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := setup(t, units(2), ofDurableMode(func() error { return nil }))
		b.buy("first", "k", replay) // warm: a lease
		b.stock.hook(&b.stock.lost, func(int) error { return fmt.Errorf("%w: no replica has it", stock.ErrUnsafe) })
		taken := b.buy("ann", "k")
		b.want(taken, 503, "outcome-unknown")
		sent := len(b.broker.orders(t))
		b.want(b.buy("bob", "k"), 409, "sold-out")
		b.want(b.buy("ann", "k", replay), 503, "outcome-unknown") // nor a repeat
		if n := len(b.broker.orders(t)); n != sent {
			t.Errorf("%d orders were published", n-sent)
		}
		b.stock.hook(&b.stock.lost, nil)
		again := b.buy("ann", "k", replay)
		b.want(again, 202, "")
		if again.order() != taken.order() && taken.order() != "" {
			t.Errorf("another order: %s, then %s", taken.raw, again.raw)
		}
		if n := len(b.broker.orders(t)); n != sent+1 {
			t.Errorf("%d orders were published by the repeat", n-sent)
		}
	})
}

// ownRedis starts a redis-server of the test's own that writes to disk at once.
func ownRedis(t *testing.T, args ...string) (*exec.Cmd, string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := strconv.Itoa(ln.Addr().(*net.TCPAddr).Port)
	_ = ln.Close()
	cmd := exec.Command("redis-server", append([]string{
		"--port", port, "--bind", "127.0.0.1", "--dir", t.TempDir(), "--save", "", "--appendonly", "yes", "--appendfsync", "always",
	}, args...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	return cmd, port
}

func clientAt(t *testing.T, port string) redis.UniversalClient {
	t.Helper()
	rdb, err := stock.Open("redis://127.0.0.1:" + port + "/0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = rdb.Close() })
	return rdb
}

// A durable sale on a Redis with a replica, and RabbitMQ: a paused replica means
// 503 and no 202; when the master is killed, the promoted replica has every order
// that somebody heard 202 for.
func TestRealDurableSale(t *testing.T) {
	t.Parallel()
	master, port := ownRedis(t)
	rdb := clientAt(t, port)
	backingtest.Eventually(t, "the master answers", func() bool { return rdb.Ping(t.Context()).Err() == nil })
	replica, replicaPort := ownRedis(t, "--replicaof", "127.0.0.1 "+port)
	promoted := clientAt(t, replicaPort)
	backingtest.Eventually(t, "the replica follows", func() bool {
		n, err := rdb.Do(t.Context(), "wait", 1, 100).Int()
		return err == nil && n == 1
	})
	r := setupOn(t, stock.New(rdb), backingtest.AMQP(t), func(s *engine.Sale) { s.Mode = engine.ModeDurable })
	until(t, func() bool { return r.buy("warm").status == 202 })
	promised := map[string]bool{}
	storm := func(name string, n int) (unknown int) {
		for _, rep := range all(n, func(i int) reply { return r.buy(name + strconv.Itoa(i)) }) {
			switch rep.status {
			case 202:
				promised[rep.order()] = true
			case 503:
				unknown++
			default:
				t.Error(rep.raw)
			}
		}
		return unknown
	}
	if n := storm("early", 40); n != 0 {
		t.Errorf("%d heard 503 with a replica that follows", n)
	}
	if err := replica.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	before := len(promised)
	if n := storm("paused", 10); n != 10 || len(promised) != before {
		t.Errorf("with a paused replica %d of 10 heard 503, %d heard 202", n, len(promised)-before)
	}
	if err := replica.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	until(t, func() bool { return r.buy("paused0", replay).status == 202 })
	storm("late", 40)
	if len(promised) < 60 {
		t.Errorf("only %d orders", len(promised))
	}
	if err := errors.Join(master.Process.Kill(), promoted.Do(t.Context(), "replicaof", "no", "one").Err()); err != nil {
		t.Fatal(err)
	}
	store := stock.New(promoted)
	for id := range promised {
		if rec, ok, err := store.Record(t.Context(), r.sale.ID, engine.OrderID(id)); !ok || err != nil || rec.State != engine.RecordHeld {
			t.Errorf("order %s, which heard 202, is missing: %v", id, err)
		}
	}
}
