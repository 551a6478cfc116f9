package simulate_test

import (
	"syscall"
	"testing"
	"time"

	"github.com/doorbuster/doorbuster/loadtest/simulate"
)

// BenchmarkStories tells one story after another. What counts is seeds per second of
// processor time, user and system: a busy machine does not change it.
func BenchmarkStories(b *testing.B) {
	began := processorTime(b)
	r, err := simulate.Run(b.Context(), simulate.Config{Seeds: b.N, From: 1, Workers: 1})
	if err != nil || r.Violations > 0 {
		b.Fatal(err, r.Failing)
	}
	b.ReportMetric(float64(b.N)/(processorTime(b)-began).Seconds(), "seeds/cpu-s")
}

func processorTime(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
