package loadtest_test

import (
	"errors"
	"testing"
	"time"

	"github.com/doorbuster/doorbuster/engine/audit"
	"github.com/doorbuster/doorbuster/loadtest"
)

func pressing(d *fakeDoor, n int) loadtest.PressConfig {
	return loadtest.PressConfig{
		URLs: []string{d.url}, Sale: "drop", Basket: mug, Tickets: tickets(n), Connections: 8, Duration: 10 * time.Second,
	}
}

func TestClosedLoopUsesEveryTicketOnce(t *testing.T) {
	t.Parallel()
	d := newFakeDoor(t, 100)
	cfg := pressing(d, 500)
	cfg.First = 20
	res, err := loadtest.RunClosed(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if res.Requests != 480 || res.Next != 500 || res.Errors != 0 {
		t.Errorf("%d requests, next ticket %d, %d errors (%s)", res.Requests, res.Next, res.Errors, res.Error)
	}
	if a, s := res.Outcomes.Count(loadtest.Accepted), res.Outcomes.Count(loadtest.SoldOut); a != 100 || s != 380 {
		t.Errorf("%d accepted, %d sold out", a, s)
	}
	if len(d.asks) != 480 {
		t.Errorf("%d keys", len(d.asks))
	}
	if res.PerSecond <= 0 || res.Rate(loadtest.Accepted) >= res.PerSecond {
		t.Errorf("rates: %v, accepted %v", res.PerSecond, res.Rate(loadtest.Accepted))
	}
}

func TestClosedLoopWrapsAndStopsAtRequests(t *testing.T) {
	t.Parallel()
	d := newFakeDoor(t, 0)
	cfg := pressing(d, 7)
	cfg.Wrap, cfg.Requests = true, 1000
	var log lines
	cfg.Log = &log
	res, err := loadtest.RunClosed(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if res.Outcomes.Count(loadtest.SoldOut) != 1000 || len(log.all) != 1000 {
		t.Errorf("%d sold out, %d lines", res.Outcomes.Count(loadtest.SoldOut), len(log.all))
	}
	if n := log.count(func(a *audit.Answer) bool { return a.Buyer == "buyer-6" }); n != 1000/7 {
		t.Errorf("the last ticket was used %d times", n)
	}
}

func TestOpenLoopKeepsItsRate(t *testing.T) {
	t.Parallel()
	d := newFakeDoor(t, 1<<30)
	cfg := pressing(d, 5000)
	cfg.Rate, cfg.Duration, cfg.Warm, cfg.Connections = 1000, time.Second, 200*time.Millisecond, 32
	res, err := loadtest.RunOpen(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if res.Requests < 790 || res.Requests > 801 {
		t.Errorf("%d requests counted in 0.8 s at 1000/s", res.Requests)
	}
	if res.Lag.Count != res.Requests || res.Outcomes["accepted"].P99 <= 0 {
		t.Errorf("lag %+v, latency %+v", res.Lag, res.Outcomes)
	}
}

// Latency must run from when a request was due: with one connection and a slow
// server the second request waits for the first.
func TestOpenLoopCountsTheWait(t *testing.T) {
	t.Parallel()
	d := newFakeDoor(t, 1<<30)
	cfg := pressing(d, 100)
	cfg.Rate, cfg.Connections, cfg.Requests = 1e6, 1, 100
	res, err := loadtest.RunOpen(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	took := time.Duration(res.Seconds * float64(time.Second))
	if got := res.Outcomes["accepted"].Max; got < took/2 {
		t.Errorf("slowest answer took %v of a run of %v: the wait for the connection was left out", got, took)
	}
}

func TestPressRefusesWrongConfigurations(t *testing.T) {
	t.Parallel()
	d := newFakeDoor(t, 1)
	if _, err := loadtest.RunClosed(t.Context(), loadtest.PressConfig{URLs: []string{d.url}, Sale: "drop", Basket: mug, Duration: 1}); !errors.Is(err, loadtest.ErrNoTickets) {
		t.Errorf("no tickets: %v", err)
	}
	cfg := pressing(d, 1)
	if _, err := loadtest.RunOpen(t.Context(), cfg); err == nil {
		t.Error("open loop without a rate: no error")
	}
	cfg.Duration = 0
	if _, err := loadtest.RunClosed(t.Context(), cfg); err == nil {
		t.Error("no duration: no error")
	}
}

func TestServerThatIsDownIsCounted(t *testing.T) {
	t.Parallel()
	d := newFakeDoor(t, 1)
	cfg := pressing(d, 50)
	cfg.URLs = []string{"http://127.0.0.1:1"}
	res, err := loadtest.RunClosed(t.Context(), cfg)
	if err != nil || res.Errors != 50 || res.Error == "" || res.Outcomes.Count(loadtest.Unknown) != 50 {
		t.Errorf("errors %d (%s), outcomes %v, %v", res.Errors, res.Error, res.Outcomes, err)
	}
}
