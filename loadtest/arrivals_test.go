package loadtest_test

import (
	"context"
	"errors"
	"math"
	"slices"
	"testing"
	"time"

	"github.com/doorbuster/doorbuster/loadtest"
)

func TestArrivalsAreFixedByTheirSeed(t *testing.T) {
	t.Parallel()
	paces := []loadtest.Pace{{Rate: 1000, Lasts: 4 * time.Second}, {Lasts: time.Second}, {Rate: 10_000, Lasts: 2 * time.Second}}
	due := loadtest.Arrivals(7, paces...)
	if !slices.IsSorted(due) || !slices.Equal(due, loadtest.Arrivals(7, paces...)) || slices.Equal(due, loadtest.Arrivals(8, paces...)) {
		t.Error("not in order, or not by the seed")
	}
	count := func(from, to time.Duration) (n float64) {
		for _, at := range due {
			if at >= from && at < to {
				n++
			}
		}
		return n
	}
	for _, c := range []struct {
		from, to time.Duration
		want     float64
	}{{0, 4 * time.Second, 4000}, {4 * time.Second, 5 * time.Second, 0}, {5 * time.Second, 7 * time.Second, 20_000}, {7 * time.Second, time.Hour, 0}} {
		if got := count(c.from, c.to); math.Abs(got-c.want) > 5*math.Sqrt(c.want) {
			t.Errorf("%v arrivals from %v to %v, want about %v", got, c.from, c.to, c.want)
		}
	}
}

func TestRunArrivalsSendsEachOnceAndTellsWhatItHeard(t *testing.T) {
	t.Parallel()
	d := newFakeDoor(t, 200)
	d.overload, d.unknown = 50, 10
	cfg := pressing(d, 300)
	var log lines
	cfg.Log = &log
	due := loadtest.Arrivals(1, loadtest.Pace{Rate: 1000, Lasts: 300 * time.Millisecond})[:250]
	samples, err := loadtest.RunArrivals(t.Context(), cfg, due)
	if err != nil {
		t.Fatal(err)
	}
	sum := loadtest.Sum(samples, 0, time.Second)
	want := map[string]int{"overloaded": 50, "outcome-unknown": 10, "accepted": 190}
	for name, n := range want {
		if sum.Heard[name] != n {
			t.Errorf("%s heard %d times, want %d", name, sum.Heard[name], n)
		}
	}
	if len(sum.Heard) != len(want) || sum.Untimed != 10 || sum.Unheard != 0 || sum.Broken != 0 || sum.Accepted != 190 || sum.P99 <= 0 || sum.Refused <= 0 {
		t.Errorf("%+v", sum)
	}
	for i := range samples {
		if samples[i].Due != due[i] || samples[i].Took < samples[i].Sent || samples[i].Sent < 0 {
			t.Fatalf("%d: %+v, want it due at %v", i, samples[i], due[i])
		}
	}
	if len(d.asks) != 250 || len(log.all) != 250 {
		t.Errorf("%d keys, %d lines", len(d.asks), len(log.all))
	}
}

// With one connection the requests that are due at once wait for one another, and the
// wait is theirs.
func TestRunArrivalsCountsTheWait(t *testing.T) {
	t.Parallel()
	d := newFakeDoor(t, 1<<30)
	cfg := pressing(d, 100)
	cfg.Connections = 1
	began := time.Now()
	samples, err := loadtest.RunArrivals(t.Context(), cfg, make([]time.Duration, 100))
	took := time.Since(began)
	if err != nil {
		t.Fatal(err)
	}
	last := samples[99]
	if last.Took < took/2 || last.Sent < last.Took/2 {
		t.Errorf("the last of a run of %v took %v, sent after %v", took, last.Took, last.Sent)
	}
}

func TestRunArrivalsRefusesWhatItCannotDo(t *testing.T) {
	t.Parallel()
	d := newFakeDoor(t, 1)
	for name, due := range map[string][]time.Duration{"none": nil, "out of order": {2, 1}, "more than tickets": make([]time.Duration, 11)} {
		if _, err := loadtest.RunArrivals(t.Context(), pressing(d, 10), due); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := loadtest.RunArrivals(ctx, pressing(d, 10), []time.Duration{time.Hour / 2}); !errors.Is(err, context.Canceled) {
		t.Errorf("after its end: %v", err)
	}
	cfg := pressing(d, 10)
	cfg.URLs = []string{"http://127.0.0.1:1"}
	samples, err := loadtest.RunArrivals(t.Context(), cfg, make([]time.Duration, 10))
	if sum := loadtest.Sum(samples, 0, 1); err != nil || sum.Unheard != 10 || sum.Heard["unknown"] != 10 {
		t.Errorf("a server that is down: %+v, %v", sum, err)
	}
}

// course is 100 requests a second, accepted after 10 ms, but for those from one time
// to another.
func course(seconds int, from, to time.Duration, harm func(i int, s *loadtest.Sample)) (out []loadtest.Sample) {
	for i := range seconds * 100 {
		s := loadtest.Sample{Due: time.Duration(i) * 10 * time.Millisecond, Took: 10 * time.Millisecond, Status: 202, Type: "accepted", Class: loadtest.Accepted}
		if s.Due >= from && s.Due < to {
			harm(i, &s)
		}
		out = append(out, s)
	}
	return out
}

func TestNormal(t *testing.T) {
	t.Parallel()
	refuse := func(_ int, s *loadtest.Sample) {
		s.Status, s.Type, s.Class, s.Retry = 503, "overloaded", loadtest.Overloaded, time.Second
	}
	delay := func(_ int, s *loadtest.Sample) { s.Took = 30 * time.Millisecond }
	const end = 2 * time.Second
	for name, c := range map[string]struct {
		samples []loadtest.Sample
		after   time.Duration
		found   bool
	}{
		"at once":         {course(8, 0, 0, nil), 0, true},
		"refused for 1 s": {course(8, end, end+time.Second, refuse), 900 * time.Millisecond, true}, // a tenth may be refused
		"slow for 500 ms": {course(8, end, end+500*time.Millisecond, delay), 500 * time.Millisecond, true},
		"every 50th slow": {course(8, end, 8*time.Second, func(i int, s *loadtest.Sample) {
			if i%50 == 0 {
				delay(i, s)
			}
		}), 0, false},
		"one of 100 slow": {course(8, end, 8*time.Second, func(i int, s *loadtest.Sample) {
			if i%100 == 0 {
				delay(i, s)
			}
		}), 0, true},
		"refused for ever": {course(8, end, 8*time.Second, refuse), 0, false},
		"nobody came":      {course(2, 0, 0, nil), 0, false},
	} {
		before := loadtest.Sum(c.samples, 0, end)
		if after, found := loadtest.Normal(c.samples, before, end, 8*time.Second); after != c.after || found != c.found {
			t.Errorf("%s: normal after %v, %v; want %v, %v", name, after, found, c.after, c.found)
		}
	}
}

func TestSum(t *testing.T) {
	t.Parallel()
	s := course(3, time.Second, 2*time.Second, func(i int, s *loadtest.Sample) {
		switch i % 4 {
		case 0:
			*s = loadtest.Sample{Due: s.Due, Took: time.Millisecond, Status: 429, Type: "throttled", Class: loadtest.Limited, Retry: time.Second}
		case 1:
			*s = loadtest.Sample{Due: s.Due, Status: 502, Class: loadtest.Unknown}
		default:
			s.Took, s.Sent = time.Duration(i)*time.Millisecond, 5*time.Millisecond
		}
	})
	got := loadtest.Sum(s, time.Second, 2*time.Second)
	if got.Offered != 100 || got.Accepted != 50 || got.Share != 0.5 || got.Throttled != 25 || got.Broken != 25 || got.Untimed != 0 ||
		got.Heard["unknown"] != 25 || got.P50 != 150*time.Millisecond || got.P99 != 199*time.Millisecond || got.Lag != 5*time.Millisecond || got.Refused != time.Millisecond {
		t.Errorf("%+v", got)
	}
	if none := loadtest.Sum(s, time.Hour, 2*time.Hour); none.Offered != 0 || none.P99 != 0 || none.Share != 0 {
		t.Errorf("of nothing: %+v", none)
	}
}
