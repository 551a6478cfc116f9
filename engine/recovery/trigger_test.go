package recovery_test

import (
	"crypto/sha1"
	"encoding/hex"
	"fmt"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/doorbuster/doorbuster/engine"
	"github.com/doorbuster/doorbuster/engine/orders"
	"github.com/doorbuster/doorbuster/engine/recovery"
	"github.com/doorbuster/doorbuster/stock"
)

// counted runs recovery with this change of its config, and tells what set off the
// rebuilds that it completed.
func (w *world) counted(change func(*recovery.Config)) (rebuilds func() map[string]int, stop func()) {
	w.t.Helper()
	reg := prometheus.NewRegistry()
	cfg := w.config()
	cfg.Registerer = reg
	if change != nil {
		change(&cfg)
	}
	stop = w.run("recovery", recovery.New(cfg).Run)
	return func() map[string]int {
		families, err := reg.Gather()
		w.ok(err)
		all := map[string]int{}
		for _, f := range families {
			if f.GetName() != "doorbuster_recovery_rebuilds_total" {
				continue
			}
			for _, m := range f.GetMetric() {
				if n := int(m.GetCounter().GetValue()); n > 0 {
					all[m.GetLabel()[0].GetValue()] = n
				}
			}
		}
		return all
	}, stop
}

func (w *world) stateKey(epoch int64) string { return fmt.Sprintf("s:{%s}:%d:st", w.sale, epoch) }

// Each sign of a loss, met alone on a server of the test's own, is healed, and for
// that reason.
func TestEachTriggerHeals(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		why  recovery.Trigger
		lose func(w *world, s *server, at stock.Watch)
	}{
		{recovery.TriggerMissing, func(w *world, _ *server, at stock.Watch) {
			w.ok(w.rdb.Del(w.t.Context(), w.stateKey(at.Epoch)).Err())
		}},
		{recovery.TriggerNoScript, func(w *world, _ *server, _ stock.Watch) { w.ok(w.rdb.ScriptFlush(w.t.Context()).Err()) }},
		{recovery.TriggerRunID, func(w *world, s *server, at stock.Watch) { // somebody loads the scripts before anybody looks
			s.kill()
			s.start()
			w.ok(w.stock.Load(w.t.Context(), w.sale, at.Incarnation))
		}},
		{recovery.TriggerReplID, func(w *world, _ *server, _ stock.Watch) {
			w.ok(w.rdb.Do(w.t.Context(), "debug", "change-repl-id").Err())
		}},
		{recovery.TriggerBehind, func(w *world, _ *server, at stock.Watch) {
			w.ok(w.rdb.HSet(w.t.Context(), w.stateKey(at.Epoch), "seq", 2).Err())
		}},
		{recovery.TriggerOther, func(w *world, _ *server, at stock.Watch) {
			w.ok(w.rdb.HSet(w.t.Context(), w.stateKey(at.Epoch), "inc", at.Incarnation+1).Err())
		}},
	} {
		t.Run(string(c.why), func(t *testing.T) {
			t.Parallel()
			s := startServer(t)
			s.kill()
			s.args = append(s.args[:len(s.args)-1], "yes", "--appendfsync", "always", "--enable-debug-command", "yes")
			s.start()
			w := setup(t, s.url())
			gate := &stopped{at: make(chan string, 1)}
			rebuilds, _ := w.counted(func(cfg *recovery.Config) { cfg.Stock = stoppedStock{cfg.Stock, gate} })
			at := w.sells(1)
			w.known(w.buy(6))
			gate.halt() // nobody looks meanwhile
			<-gate.at
			c.lose(w, s, at)
			gate.wake()
			w.sells(2)
			w.counts(mugs-6, 6, 0)
			if got := rebuilds(); got[string(c.why)] != 1 {
				t.Errorf("rebuilt because of %v, want %s", got, c.why)
			}
			w.known(w.buy(2))
			w.counts(mugs-8, 8, 0)
		})
	}
}

// A sale in which nothing happens is asked about in Redis alone. What Redis gave out
// and lost between two such probes is noticed by the round, and not only when
// PostgreSQL is asked about that sale again, 40 rounds later.
func TestQuietSaleThatFallsBehind(t *testing.T) {
	t.Parallel()
	w := setup(t, "")
	var c counts
	gate := &stopped{at: make(chan string, 1)}
	rebuilds, _ := w.counted(func(cfg *recovery.Config) {
		cfg.Stock, cfg.Lead = stoppedStock{cfg.Stock, gate}, countedLead{cfg.Lead, &c}
	})
	at := w.sells(1)
	from := c.rounds.Load()
	w.eventually("probes that find nothing new", func() bool { return c.rounds.Load() >= from+6 })
	gate.halt()
	<-gate.at
	w.known(w.buy(6))
	w.ok(w.rdb.HSet(t.Context(), w.stateKey(at.Epoch), "seq", 0).Err()) // as it was at each probe
	from = c.rounds.Load()
	gate.wake()
	w.eventually("it is rebuilt", func() bool { return rebuilds()[string(recovery.TriggerBehind)] == 1 })
	if n := c.rounds.Load() - from; n > 24 {
		t.Errorf("it took %d rounds", n)
	}
	w.sells(2)
	w.counts(mugs-6, 6, 0)
}

// Redis is handed over and back, and has lost something, while nobody led: the same
// process has the same scripts, and who leads next never saw another.
func TestFailoverWithoutALeader(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	s.kill()
	s.args = append(s.args, "--enable-debug-command", "yes")
	s.start()
	w := setup(t, s.url())
	_, stop := w.recover()
	before := w.sells(1)
	stop()
	// Another sale of this server, rebuilt at the same time, raised its number too.
	srv, err := w.stock.Server(t.Context(), w.sale)
	w.ok(err)
	from, err := w.orders.Incarnation(t.Context(), srv.Name())
	w.ok(err)
	_, err = w.orders.RaiseIncarnation(t.Context(), srv.Name(), from)
	w.ok(err)
	rebuilds, stop := w.counted(nil)
	w.eventually("the next leader has looked", func() bool {
		now, err := w.stock.Watch(t.Context(), w.sale, 0)
		return err == nil && (now.Heartbeat > before.Heartbeat+2 || now.Epoch > before.Epoch)
	})
	w.known(w.buy(1))
	stop()
	if n := rebuilds(); len(n) > 0 {
		t.Fatalf("another leader rebuilt what was sound: %v", n)
	}
	w.ok(w.rdb.Do(t.Context(), "debug", "change-repl-id").Err())
	rebuilds, _ = w.counted(nil)
	w.eventually("the next leader rebuilds", func() bool { return rebuilds()[string(recovery.TriggerReplID)] == 1 })
}

// older brings a sale to what a release with other texts of the same scripts had
// made of it: its texts are loaded, and the state names them.
func (w *world) older(at stock.Watch) {
	w.t.Helper()
	var named []string
	for op := range stock.NumOps {
		text := stock.Text(op, at.Incarnation) + "-- as the release before had it\n"
		w.ok(w.rdb.ScriptLoad(w.t.Context(), text).Err())
		sum := sha1.Sum([]byte(text))
		named = append(named, op.String()+"="+hex.EncodeToString(sum[:]))
	}
	w.ok(w.rdb.HSet(w.t.Context(), w.stateKey(at.Epoch), "sha", strings.Join(named, ",")).Err())
}

// A release changes the text of every script. Its recovery leads a sale of the
// release before without a freeze, its doors serve it, and doors of the release
// before go on, while the new texts are loaded beside theirs for another sale.
func TestNewReleaseFencesNobody(t *testing.T) {
	t.Parallel()
	w := setup(t, startServer(t).url())
	_, stop := w.recover()
	at := w.sells(1)
	stop()
	w.ok(w.rdb.ScriptFlush(t.Context()).Err())
	w.older(at)
	old, err := w.stock.Watch(t.Context(), w.sale, 1) // the grip of a door of the release before
	w.ok(err)
	if old.SHA == stock.ScriptSHAs(at.Incarnation) {
		t.Fatal("the state names the present texts")
	}

	rebuilds, _ := w.counted(nil)
	next := w.more(1, engine.SaleScheduled)
	w.eventually("the new release loads a sale of its own", func() bool {
		watch, err := w.stock.Watch(t.Context(), next, 1)
		return err == nil && watch.Heartbeat > 0 && watch.SHA == stock.ScriptSHAs(watch.Incarnation)
	})
	b := w.buy(9) // a door of the new release
	w.known(b)
	w.pay(b[:4], orders.Confirmed)
	w.pay(b[4:6], orders.Declined)
	w.counts(mugs-7, 3, 4) // its applier
	var d stock.Decision
	w.ok(w.stock.Reserve(t.Context(), w.sale, old.Grip, w.baskets(3), &d))
	w.publish()
	w.counts(mugs-10, 6, 4)
	beat := w.sells(1).Heartbeat
	w.eventually("the heartbeat goes on", func() bool { return w.sells(1).Heartbeat > beat+3 })
	f, err := w.orders.Fence(t.Context(), w.sale)
	if got := rebuilds(); err != nil || f.Epoch != 1 || f.Frozen || len(got) != 1 || got["new"] != 1 {
		t.Errorf("fence %+v, %v; rebuilt because of %v, want only the new sale", f, err, got)
	}

	// After a loss everybody goes over to the new texts.
	w.ok(w.rdb.ScriptFlush(t.Context()).Err())
	watch := w.sells(2)
	if watch.SHA != stock.ScriptSHAs(watch.Incarnation) {
		t.Error("the rebuilt sale names old texts")
	}
	w.known(w.buy(1))
	w.counts(mugs-11, 7, 4)
}
