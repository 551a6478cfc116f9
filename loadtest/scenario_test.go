package loadtest_test

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/doorbuster/doorbuster/engine/audit"
	"github.com/doorbuster/doorbuster/loadtest"
)

func TestSchedule(t *testing.T) {
	t.Parallel()
	s := loadtest.Schedule{{"idle", 10, time.Second}, {"spike", 1000, time.Second}, {"after", 0, time.Second}, {"late", 5, time.Second}}
	for _, c := range []struct {
		hits    uint64
		elapsed time.Duration
		wait    time.Duration
		stop    bool
	}{
		{0, 0, 0, false},
		{1, 0, 100 * time.Millisecond, false},
		{1, time.Second, 0, false}, // behind its schedule: at once
		{10, 0, time.Second, false},
		{11, time.Second, time.Millisecond, false},
		{1010, 2 * time.Second, time.Second, false}, // nothing in the phase of rate 0
		{1014, 0, 3800 * time.Millisecond, false},
		{1015, 0, 0, true},
	} {
		if wait, stop := s.Pace(c.elapsed, c.hits); wait != c.wait || stop != c.stop {
			t.Errorf("Pace(%v, %d) = %v, %v, want %v, %v", c.elapsed, c.hits, wait, stop, c.wait, c.stop)
		}
	}
	for at, rate := range map[time.Duration]float64{0: 10, 1500 * time.Millisecond: 1000, 2 * time.Second: 0, 5 * time.Second: 0} {
		if got := s.Rate(at); got != rate {
			t.Errorf("rate at %v is %v, want %v", at, got, rate)
		}
	}
}

func TestScenarioTalliesOutcomes(t *testing.T) {
	t.Parallel()
	d := newFakeDoor(t, 300)
	d.opens = time.Now().Add(300 * time.Millisecond)
	var log lines
	rep, err := loadtest.RunScenario(t.Context(), loadtest.ScenarioConfig{
		URLs: []string{d.url}, Sale: "drop", Basket: mug, Tickets: tickets(5000), Workers: 64, Log: &log,
		Phases: loadtest.FlashSale(2000, 200*time.Millisecond, 400*time.Millisecond, 400*time.Millisecond),
	})
	if err != nil {
		t.Fatal(err)
	}
	o := rep.Outcomes
	if o.Count(loadtest.Accepted) != 300 || o.Count(loadtest.SoldOut) == 0 || o.Count(loadtest.Early) == 0 || o.Count(loadtest.Unknown) != 0 {
		t.Errorf("outcomes %v, first error %q", o, rep.Error)
	}
	if rep.Requests != 1110 || len(log.all) != 1110 || len(rep.Phases) != 4 || rep.Phases[1].Requests != 800 {
		t.Errorf("%d requests, %d in the log, phases %+v", rep.Requests, len(log.all), rep.Phases)
	}
	if n := log.count(func(a *audit.Answer) bool { return a.Status == 202 && a.Type == "accepted" && a.Order != "" }); n != 300 {
		t.Errorf("log has %d accepted orders", n)
	}
	if q := o["sold-out"]; q.P50 <= 0 || q.P99 < q.P50 || q.Max < q.P99 || rep.Lag.Count != 1110 {
		t.Errorf("latencies %+v, lag %+v", q, rep.Lag)
	}
}

func TestScenarioStopsWithItsContextAndCountsErrors(t *testing.T) {
	t.Parallel()
	cfg := loadtest.ScenarioConfig{
		URLs: []string{"http://127.0.0.1:1"}, Sale: "drop", Basket: mug, Tickets: tickets(1), Workers: 4,
		Phases: []loadtest.Phase{{"only", 100, 100 * time.Millisecond}},
	}
	var log lines
	cfg.Log = &log
	rep, err := loadtest.RunScenario(t.Context(), cfg)
	if err != nil || rep.Errors != 10 || rep.Error == "" || log.count(func(a *audit.Answer) bool { return a.Status == 0 }) != 10 {
		t.Errorf("%v, report %+v, %d lines", err, rep, len(log.all))
	}
	cfg.Phases = []loadtest.Phase{{"only", 0, time.Second}}
	if _, err := loadtest.RunScenario(t.Context(), cfg); err == nil {
		t.Error("a scenario without requests: no error")
	}
}

func TestReport(t *testing.T) {
	t.Parallel()
	two := int64(2)
	q := loadtest.Quantiles{Count: 40, P50: 1500 * time.Microsecond, P99: 12345 * time.Microsecond, P999: 2 * time.Second, Max: 3 * time.Second}
	rep := loadtest.Report{
		Sale: "drop", Seconds: 2, Requests: 80, PerSecond: 40, Outcomes: loadtest.Outcomes{"accepted": q, "sold-out": q},
		Phases: []loadtest.PhaseReport{{Phase: loadtest.Phase{Name: "spike", Rate: 40, For: time.Second}, Outcomes: loadtest.Outcomes{"accepted": q}}},
	}
	var text bytes.Buffer
	if err := rep.WriteText(&text); err != nil {
		t.Fatal(err)
	}
	if s := text.String(); !strings.Contains(s, "?") || strings.Contains(s, "laws") {
		t.Errorf("before the audit:\n%s", s)
	}
	rep.Judged(&audit.Report{Figures: audit.Figures{Oversold: 1, Undersold: &two}, Verdict: audit.Fail})
	text.Reset()
	if err := rep.WriteText(&text); err != nil {
		t.Fatal(err)
	}
	rows := strings.Split(text.String(), "\n")
	if got := strings.Fields(rows[1]); strings.Join(got, " ") != "spike accepted 40 40 1.5ms 12.35ms 2s 3s 0s" {
		t.Errorf("first row: %q", got)
	}
	if got := strings.Fields(rows[3]); strings.Join(got, " ") != "all sold-out 40 20 1.5ms 12.35ms 2s 3s 0s 1 2" {
		t.Errorf("last row: %q", got)
	}
	if !strings.HasSuffix(text.String(), "laws: fail\n") {
		t.Errorf("no verdict in\n%s", text.String())
	}
	b, err := json.Marshal(&rep)
	if err != nil || !strings.Contains(string(b), `"oversold":1,"undersold":2`) || !strings.Contains(string(b), `"p999_ns"`) {
		t.Errorf("%v: %s", err, b)
	}
}
