package bench_test

import (
	"math"
	"strings"
	"testing"
	"time"

	"github.com/doorbuster/doorbuster/loadtest/bench"
)

func TestSeries(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		s      bench.Series
		median float64
		met    string
	}{
		"odd":        {bench.Series{Values: []float64{3, 1, 2}, Target: 2}, 2, "met"},
		"even":       {bench.Series{Values: []float64{4, 1, 2, 3}, Target: 2.6}, 2.5, "**missed**"},
		"aim":        {bench.Series{Values: []float64{0.7}, Target: 0.4, Aim: 0.6}, 0.7, "met, aim reached"},
		"below aim":  {bench.Series{Values: []float64{0.5}, Target: 0.4, Aim: 0.6}, 0.5, "met"},
		"at most":    {bench.Series{Values: []float64{242}, Target: 400, Aim: 300, Most: true}, 242, "met, aim reached"},
		"above most": {bench.Series{Values: []float64{15.1}, Target: 15, Most: true}, 15.1, "**missed**"},
		"no target":  {bench.Series{Values: []float64{1}}, 1, "–"},
		"nothing":    {bench.Series{Target: 1}, math.NaN(), "not measured"},
	} {
		if got := c.s.Median(); got != c.median && !(math.IsNaN(got) && math.IsNaN(c.median)) {
			t.Errorf("%s: median %v, want %v", name, got, c.median)
		}
		if got := c.s.Met(); got != c.met {
			t.Errorf("%s: %q, want %q", name, got, c.met)
		}
	}
}

func result() *bench.Result {
	return &bench.Result{
		Began: time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC), Took: 10 * time.Minute, Machine: "a machine", Command: "make bench", Pairs: 5,
		Series: []bench.Series{
			{Name: "(a)", What: "fixed reply", Unit: "/s", Values: []float64{101234, 99000, 120000}},
			{Name: "(h) 50 % p99", What: "time", Unit: "ms", Values: []float64{12.345}, Target: 15, Most: true},
			{Name: "(i)", What: "Redis", Unit: "bytes", Values: []float64{410}, Target: 400, Aim: 300, Most: true},
			{Name: "(b)/(a)", What: "share", Values: []float64{0.512, 0.48}, Target: 0.4, Aim: 0.6},
			{Name: "(f2)", What: "sandbox", Unit: "/s"},
		},
	}
}

func TestPage(t *testing.T) {
	t.Parallel()
	page := bench.Page(result(), "")
	for _, row := range []string{
		"| (a) | fixed reply | 101,234/s | 99,000/s … 120,000/s | 3 | – | – |",
		"| (h) 50 % p99 | time | 12.35 ms | – | 1 | ≤ 15.00 ms | met |",
		"| (i) | Redis | 410 bytes | – | 1 | ≤ 400 bytes, aim 300 bytes | **missed** |",
		"| (b)/(a) | share | 0.50 | 0.48 … 0.51 | 2 | ≥ 0.40, aim 0.60 | met |",
		"| (f2) | sandbox | not measured | – | 0 | – | – |",
		"2026-11-21 12:00 UTC, by `make bench`, in 10m0s, on a machine",
	} {
		if !strings.Contains(page, row+"\n") && !strings.Contains(page, row) {
			t.Errorf("no row %q in\n%s", row, page)
		}
	}
	if strings.Contains(page, "short run") {
		t.Error("a full run is called short")
	}
	if got := result().Missed(); len(got) != 1 || got[0] != "(i)" {
		t.Errorf("missed %v", got)
	}
}

func TestNotesAreKept(t *testing.T) {
	t.Parallel()
	const notes = "Why (i) is missed:\n\n- because."
	page := bench.Page(result(), notes)
	again := bench.Page(result(), bench.Notes(page))
	if again != page || bench.Notes(again) != notes {
		t.Errorf("notes became %q", bench.Notes(again))
	}
	for _, without := range []string{"", "# Benchmarks", "<!-- end of notes -->"} {
		if got := bench.Notes(without); got != "" {
			t.Errorf("notes of %q: %q", without, got)
		}
	}
}
