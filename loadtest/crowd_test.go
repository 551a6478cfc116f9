package loadtest_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/doorbuster/doorbuster/engine/audit"
	"github.com/doorbuster/doorbuster/loadtest"
)

// What fasthttp starts for the fake door outlives it.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/valyala/fasthttp.(*workerPool).Start.func2"),
		goleak.IgnoreAnyFunction("github.com/valyala/fasthttp.updateServerDate.func1"))
}

// lines is a client log in memory.
type lines struct {
	mu  sync.Mutex
	all []audit.Answer
}

func (l *lines) Write(a *audit.Answer) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = append(l.all, *a)
	return nil
}

func (l *lines) count(ok func(*audit.Answer) bool) (n int) {
	for i := range l.all {
		if ok(&l.all[i]) {
			n++
		}
	}
	return n
}

func crowd(d *fakeDoor, buyers int, log loadtest.Log) loadtest.CrowdConfig {
	return loadtest.CrowdConfig{
		URLs: []string{d.url}, Sale: "drop", Basket: mug, Tickets: tickets(buyers),
		Connections: 16, Quiet: 3 * time.Second, Longest: 20 * time.Second, Log: log,
	}
}

func run(t *testing.T, cfg loadtest.CrowdConfig) loadtest.CrowdResult {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	res, err := loadtest.RunCrowd(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return res
}

func TestCrowdSellsOut(t *testing.T) {
	t.Parallel()
	d := newFakeDoor(t, 50)
	d.opens = time.Now().Add(500 * time.Millisecond)
	var log lines
	cfg := crowd(d, 400, &log)
	cfg.Requests, cfg.EarlyPerMille, cfg.RepeatPerMille, cfg.ChangePerMille = 1000, 50, 400, 400
	snaps := 0
	cfg.Progress = func(loadtest.Snapshot) { snaps++ }
	res := run(t, cfg)

	if res.End != loadtest.EndSold || res.Accepted != 50 || res.Sold != 50 || res.Waiting != 350 {
		t.Errorf("ended %q with %d accepted, %d sold, %d waiting", res.End, res.Accepted, res.Sold, res.Waiting)
	}
	if res.Early != 20 || res.Requests < 1000 || int(res.Requests) != len(log.all) {
		t.Errorf("%d early, %d requests, %d lines in the log", res.Early, res.Requests, len(log.all))
	}
	if snaps < 2 {
		t.Errorf("progress was told %d times", snaps)
	}
	accepted := log.count(func(a *audit.Answer) bool { return a.Status == 202 && !a.Replayed })
	repeated := log.count(func(a *audit.Answer) bool { return a.Status == 202 && a.Replayed })
	changed := log.count(func(a *audit.Answer) bool {
		return a.Status == 422 && a.Type == "idempotency-mismatch" && a.Total == 1501 && a.Body != log.all[0].Body
	})
	if accepted != 50 || repeated == 0 || changed == 0 {
		t.Errorf("log: %d accepted, %d repeated, %d changed", accepted, repeated, changed)
	}
	for key, n := range d.asks {
		if n > 20 {
			t.Errorf("key %s was asked %d times", key, n)
		}
	}
	if len(d.asks) != 400 {
		t.Errorf("%d keys for 400 buyers", len(d.asks))
	}
}

func TestCrowdComesBackForReturnedUnits(t *testing.T) {
	t.Parallel()
	d := newFakeDoor(t, 20)
	d.decline = 5
	res := run(t, crowd(d, 60, nil))
	// 20 were sold, 5 came back and were sold to others.
	if res.End != loadtest.EndSold || res.Accepted != 25 {
		t.Errorf("ended %q with %d accepted, want 25", res.End, res.Accepted)
	}
}

func TestCrowdRepeatsUntilItKnows(t *testing.T) {
	t.Parallel()
	d := newFakeDoor(t, 30)
	d.overload, d.unknown, d.cut = 10, 6, 4
	var log lines
	res := run(t, crowd(d, 30, &log))
	if res.End != loadtest.EndServed || res.Accepted != 30 {
		t.Errorf("ended %q with %d accepted", res.End, res.Accepted)
	}
	if res.Overloaded != 10 || res.Unknown != 10 || d.replays != 20 {
		t.Errorf("%d overloaded, %d unknown, %d repeats marked as such", res.Overloaded, res.Unknown, d.replays)
	}
	if res.Took < time.Second {
		t.Errorf("took %v: Retry-After of 1 s was not honoured", res.Took)
	}
	if n := log.count(func(a *audit.Answer) bool { return a.Status == 0 }); n != 4 {
		t.Errorf("%d lines without an answer, want 4", n)
	}
}

func TestCrowdGivesUpWhenNothingIsConfirmed(t *testing.T) {
	t.Parallel()
	d := newFakeDoor(t, 5)
	d.neverSell = true
	cfg := crowd(d, 10, nil)
	cfg.Quiet = 300 * time.Millisecond
	if res := run(t, cfg); res.End != loadtest.EndQuiet || res.Accepted != 5 || res.Waiting != 5 {
		t.Errorf("ended %q with %d accepted, %d waiting", res.End, res.Accepted, res.Waiting)
	}
}

func TestCrowdIsPatientWithEarlyTickets(t *testing.T) {
	t.Parallel()
	d := newFakeDoor(t, 10)
	d.early = 20
	res := run(t, crowd(d, 10, nil))
	if res.End != loadtest.EndServed || res.Early != 20 || res.Took < 400*time.Millisecond {
		t.Errorf("ended %q after %v with %d told that they are early: they did not wait", res.End, res.Took, res.Early)
	}
}

func TestCrowdLeavesWhenTheSaleIsClosed(t *testing.T) {
	t.Parallel()
	d := newFakeDoor(t, 5)
	d.neverSell, d.closed = true, true
	if res := run(t, crowd(d, 10, nil)); res.End != loadtest.EndClosed || res.Waiting != 5 {
		t.Errorf("ended %q with %d waiting", res.End, res.Waiting)
	}
}

func TestCrowdEndsWithItsContext(t *testing.T) {
	t.Parallel()
	d := newFakeDoor(t, 5)
	d.opens = time.Now().Add(time.Hour)
	ctx, cancel := context.WithCancel(t.Context())
	cfg := crowd(d, 10, nil)
	cfg.Progress = func(loadtest.Snapshot) { cancel() }
	if _, err := loadtest.RunCrowd(ctx, cfg); err == nil {
		t.Error("no error after the context had ended")
	}
}

func TestCrowdRefusesWrongConfigurations(t *testing.T) {
	t.Parallel()
	d := newFakeDoor(t, 1)
	for name, spoil := range map[string]func(*loadtest.CrowdConfig){
		"no URL":               func(c *loadtest.CrowdConfig) { c.URLs = nil },
		"https":                func(c *loadtest.CrowdConfig) { c.URLs = []string{"https://x"} },
		"a path":               func(c *loadtest.CrowdConfig) { c.URLs[0] += "/v1" },
		"no tickets":           func(c *loadtest.CrowdConfig) { c.Tickets = nil },
		"too many buyers":      func(c *loadtest.CrowdConfig) { c.Buyers = 11 },
		"too many connections": func(c *loadtest.CrowdConfig) { c.Connections = loadtest.MaxConnections + 1 },
		"no lines":             func(c *loadtest.CrowdConfig) { c.Basket.Lines = nil },
		"no currency":          func(c *loadtest.CrowdConfig) { c.Basket.Total.Currency = "" },
		"bad sale":             func(c *loadtest.CrowdConfig) { c.Sale = "DROP" },
	} {
		cfg := crowd(d, 10, nil)
		spoil(&cfg)
		if _, err := loadtest.RunCrowd(t.Context(), cfg); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
