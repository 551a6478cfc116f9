package stock_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/doorbuster/doorbuster/engine"
	"github.com/doorbuster/doorbuster/stock"
)

// durable is a sale of durable mode on a server of the test's own.
type durable struct {
	*world
	t    *testing.T
	def  engine.Sale
	grip stock.Grip
}

func openDurable(t *testing.T, w *world, epoch int64) *durable {
	t.Helper()
	d := &durable{world: w, t: t, def: definition()}
	d.def.Mode, d.def.Items[0].Units = engine.ModeDurable, 1000
	d.build(epoch)
	return d
}

func (d *durable) build(epoch int64) {
	d.t.Helper()
	must(d.t, d.store.Build(d.t.Context(), stock.Image{Sale: d.def, Epoch: epoch, Incarnation: incarnation}))
	must(d.t, d.store.Load(d.t.Context(), d.def.ID, incarnation))
	d.watch()
}

func (d *durable) watch() {
	d.t.Helper()
	w, err := d.store.Watch(d.t.Context(), d.def.ID, 0)
	must(d.t, err)
	d.grip = w.Grip
}

func (d *durable) take(n int) (stock.Decision, error) {
	d.t.Helper()
	var got stock.Decision
	err := d.store.Reserve(d.t.Context(), d.def.ID, d.grip, []engine.Basket{basket(n, fmt.Sprint("b", n), "MUG")}, &got)
	return got, err
}

// always writes to disk before it answers.
var always = []string{"--appendfsync", "always"}

// startReplica starts a server that follows the master and waits until it does.
func startReplica(t *testing.T, master *server) *server {
	t.Helper()
	s := startRedis(t, append([]string{"--replicaof", fmt.Sprintf("127.0.0.1 %d", master.port)}, always...)...)
	c := redis.NewClient(&redis.Options{Addr: fmt.Sprint("127.0.0.1:", master.port), DisableIdentity: true})
	defer func() { _ = c.Close() }()
	eventually(t, "the replica follows", func() error {
		if info := c.Info(context.Background(), "replication").Val(); !strings.Contains(info, ",state=online,") {
			return errors.New(info)
		}
		return nil
	})
	return s
}

func (s *server) signal(t *testing.T, sig syscall.Signal) {
	t.Helper()
	must(t, s.cmd.Process.Signal(sig))
}

func TestCheckDurable(t *testing.T) {
	t.Parallel()
	w := worldAt(t, startRedis(t).url())
	err := w.store.CheckDurable(t.Context(), "x")
	if !errors.Is(err, stock.ErrNotDurable) || !strings.Contains(err.Error(), "appendfsync everysec") || !strings.Contains(err.Error(), "CONFIG SET") {
		t.Errorf("a Redis that writes each second: %v", err)
	}
	must(t, w.rdb.ConfigSet(t.Context(), "appendfsync", "always").Err())
	must(t, w.store.CheckDurable(t.Context(), "x"))
	must(t, w.rdb.ConfigSet(t.Context(), "appendonly", "no").Err())
	if err := w.store.CheckDurable(t.Context(), "x"); !errors.Is(err, stock.ErrNotDurable) {
		t.Errorf("without an AOF: %v", err)
	}
	gone := worldAt(t, "redis://127.0.0.1:1/0")
	if err := gone.store.CheckDurable(t.Context(), "x"); err == nil || errors.Is(err, stock.ErrNotDurable) {
		t.Errorf("nobody answers: %v", err)
	}
}

// Standard mode waits for nothing, durable for what the server has: Build asks, and
// Secure adds a replica that came later. A replica that is gone is waited for until
// the next Build.
func TestSafety(t *testing.T) {
	t.Parallel()
	master := startRedis(t, always...)
	w := worldAt(t, master.url())
	if b := w.open(t, nil); b.grip.Safety != (stock.Safety{}) {
		t.Errorf("standard: %+v", b.grip.Safety)
	}
	d := openDurable(t, w, 1)
	equal(t, "without a replica", d.grip.Safety, stock.Safety{Durable: true})
	is, err := w.store.Secure(t.Context(), d.def.ID, d.grip)
	must(t, err)
	equal(t, "nothing to add", is, d.grip.Safety)
	replica := startReplica(t, master)
	is, err = w.store.Secure(t.Context(), d.def.ID, d.grip)
	must(t, err)
	d.watch()
	equal(t, "with a replica", d.grip.Safety, stock.Safety{Durable: true, Replica: true})
	equal(t, "what Secure says", is, d.grip.Safety)
	if _, err := d.take(1); err != nil {
		t.Error(err)
	}
	replica.kill()
	if _, err := d.take(2); !errors.Is(err, stock.ErrUnsafe) {
		t.Errorf("the replica is gone: %v", err)
	}
	is, err = w.store.Secure(t.Context(), d.def.ID, d.grip)
	must(t, err)
	equal(t, "it is still asked for", is.Replica, true)
	eventually(t, "the master knows", func() error {
		if strings.Contains(w.rdb.Info(t.Context(), "replication").Val(), ",state=online,") {
			return errors.New("not yet")
		}
		return nil
	})
	d.build(2)
	equal(t, "built anew", d.grip.Safety, stock.Safety{Durable: true})
	if _, err := d.take(3); err != nil {
		t.Error(err)
	}
}

// A paused replica: what is taken is not known to be safe, and so is a repeat on
// another connection that writes nothing itself. When the master dies, nothing that
// was known to be safe is missing on the replica.
func TestReplicaHasWhatWasSafe(t *testing.T) {
	t.Parallel()
	master := startRedis(t, always...)
	replica := startReplica(t, master)
	d := openDurable(t, worldAt(t, master.url()), 1)
	equal(t, "safety", d.grip.Safety, stock.Safety{Durable: true, Replica: true})
	safe := map[engine.OrderID]bool{}
	take := func(from, n int) (unsafe int) {
		for i := from; i < from+n; i++ {
			got, err := d.take(i)
			switch {
			case err == nil:
				safe[basket(i, "", "MUG").Order] = true
			case errors.Is(err, stock.ErrUnsafe) && len(got.Verdicts) == 1 && got.Verdicts[0].Outcome.Took():
				unsafe++
			default:
				t.Fatalf("%d: %+v %v", i, got.Verdicts, err)
			}
		}
		return unsafe
	}
	equal(t, "unsafe", take(0, 50), 0)
	replica.signal(t, syscall.SIGSTOP)
	equal(t, "unsafe while the replica is paused", take(50, 2), 2)
	other := *d
	other.world = worldAt(t, master.url())
	if _, err := other.take(50); !errors.Is(err, stock.ErrUnsafe) {
		t.Errorf("a repeat elsewhere: %v", err)
	}
	replica.signal(t, syscall.SIGCONT)
	equal(t, "unsafe when it goes on", take(50, 20), 0)
	replica.signal(t, syscall.SIGSTOP)
	equal(t, "unsafe while it is paused again", take(70, 1), 1)
	replica.signal(t, syscall.SIGCONT)
	equal(t, "unsafe at the end", take(71, 20), 0)
	master.kill()

	after := worldAt(t, replica.url())
	must(t, after.rdb.Do(t.Context(), "replicaof", "no", "one").Err())
	d.world = after
	for id := range safe {
		if r, ok, err := after.store.Record(t.Context(), d.def.ID, id); !ok || err != nil || r.State != engine.RecordHeld {
			t.Errorf("order %s is missing: %v", id, err)
		}
	}
	if _, err := d.take(200); !errors.Is(err, stock.ErrFenced) {
		t.Errorf("the promoted replica has no scripts: %v", err)
	}
}

// newer lets a Redis 7.0 pass for one that has WAITAOF.
type newer struct{ disk []any }

func (n newer) DialHook(next redis.DialHook) redis.DialHook { return next }

func (n newer) ProcessHook(next redis.ProcessHook) redis.ProcessHook { return next }

func (n newer) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		var rest []redis.Cmder
		for _, c := range cmds {
			if c.Name() != "waitaof" {
				rest = append(rest, c)
				continue
			}
			if args := c.Args(); len(args) != 4 || args[1] != 1 || args[2] != 0 {
				return fmt.Errorf("waitaof %v: want one local, no replica, a time-out", args)
			}
			c.(*redis.Cmd).SetVal(n.disk)
		}
		err := next(ctx, rest)
		for _, c := range rest {
			if s, ok := c.(*redis.StringCmd); ok {
				s.SetVal(strings.Replace(s.Val(), "redis_version:7.0", "redis_version:7.2", 1))
			}
		}
		return err
	}
}

func TestWaitAOF(t *testing.T) {
	t.Parallel()
	url := startRedis(t, always...).url()
	for _, c := range []struct {
		disk []any
		want error
	}{{[]any{int64(1), int64(0)}, nil}, {[]any{int64(0), int64(0)}, stock.ErrUnsafe}, {nil, stock.ErrUnsafe}} {
		w := worldAt(t, url)
		w.rdb.AddHook(newer{c.disk})
		d := openDurable(t, w, 1)
		equal(t, "safety", d.grip.Safety, stock.Safety{Durable: true, WaitAOF: true})
		if got, err := d.take(1); !errors.Is(err, c.want) || len(got.Verdicts) != 1 {
			t.Errorf("%v: %+v %v, want %v", c.disk, got.Verdicts, err, c.want)
		}
		if ttl := w.rdb.TTL(t.Context(), "s:{"+string(d.def.ID)+"}:1:w").Val(); ttl <= 0 || ttl > time.Minute {
			t.Errorf("the key that is waited for lives %v", ttl)
		}
	}
}

// A fenced call is fenced, whatever it would have waited for; a dead server is
// neither.
func TestUnsafeIsNotFenced(t *testing.T) {
	t.Parallel()
	master := startRedis(t, always...)
	startReplica(t, master)
	d := openDurable(t, worldAt(t, master.url()), 1)
	must(t, d.store.Freeze(t.Context(), d.def.ID, 1))
	if _, err := d.take(1); !errors.Is(err, stock.ErrFenced) || errors.Is(err, stock.ErrUnsafe) {
		t.Errorf("frozen: %v", err)
	}
	master.kill()
	_, err := d.take(1)
	var op *net.OpError
	if err == nil || errors.Is(err, stock.ErrFenced) || errors.Is(err, stock.ErrUnsafe) {
		t.Errorf("dead: %v (%t)", err, errors.As(err, &op))
	}
}
