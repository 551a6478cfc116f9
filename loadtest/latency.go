package loadtest

import (
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

const (
	slowest   = int64(60 * time.Second / time.Microsecond) // what is slower counts as this
	precision = 2                                          // significant digits
)

// Quantiles sum up a distribution of times.
type Quantiles struct {
	Count int64         `json:"count"`
	Mean  time.Duration `json:"mean_ns"`
	P50   time.Duration `json:"p50_ns"`
	P99   time.Duration `json:"p99_ns"`
	P999  time.Duration `json:"p999_ns"`
	Max   time.Duration `json:"max_ns"`
}

// times is a histogram of durations, microseconds wide. For one goroutine.
type times struct{ h *hdrhistogram.Histogram }

func newTimes() times { return times{hdrhistogram.New(1, slowest, precision)} }

func (t times) add(d time.Duration) {
	_ = t.h.RecordValue(min(max(int64(d/time.Microsecond), 1), slowest)) // in range, so never an error
}

func (t times) merge(other times) { t.h.Merge(other.h) }

func (t times) quantiles() Quantiles {
	at := func(q float64) time.Duration { return time.Duration(t.h.ValueAtQuantile(q)) * time.Microsecond }
	return Quantiles{
		Count: t.h.TotalCount(), Mean: time.Duration(t.h.Mean() * float64(time.Microsecond)),
		P50: at(50), P99: at(99), P999: at(99.9), Max: time.Duration(t.h.Max()) * time.Microsecond,
	}
}

// byClass holds a histogram per class of answer, made when first needed: 2,000
// workers with all of them would take a gigabyte.
type byClass struct {
	count [Classes]int64
	times [Classes]times
}

func (b *byClass) add(c Class, d time.Duration) {
	b.count[c]++
	if b.times[c].h == nil {
		b.times[c] = newTimes()
	}
	b.times[c].add(d)
}

func (b *byClass) merge(other *byClass) {
	for c := range Classes {
		b.count[c] += other.count[c]
		if other.times[c].h == nil {
			continue
		}
		if b.times[c].h == nil {
			b.times[c] = newTimes()
		}
		b.times[c].merge(other.times[c])
	}
}

// Outcomes are answers by class: how many, and how long they took.
type Outcomes map[string]Quantiles

func (b *byClass) outcomes() Outcomes {
	out := Outcomes{}
	for c := range Classes {
		if b.count[c] > 0 {
			out[c.String()] = b.times[c].quantiles()
		}
	}
	return out
}

// Count returns how many answers of a class there were.
func (o Outcomes) Count(c Class) int64 { return o[c.String()].Count }
