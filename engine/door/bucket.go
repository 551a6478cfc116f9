package door

import (
	"hash/maphash"
	"sync"
	"time"
)

const (
	defaultBuyerRate  = 5.0
	defaultBuyerBurst = 10

	bucketWays  = 4
	bucketSets  = 1 << 16 // times bucketWays buyers are remembered, in 4 MiB
	bucketLocks = 1 << 8
)

// buckets are token buckets, one per buyer, in memory that never grows: a table
// of sets of four, as a processor's cache. A bucket is kept as the moment at
// which it will be full again (generic cell rate algorithm). A buyer whose place
// was taken by three others of his set begins anew with a full bucket: it errs in
// his favour. Seeded, so that nobody can choose his neighbours.
type buckets struct {
	seed  maphash.Seed
	rate  rate
	locks [bucketLocks]sync.Mutex
	sets  [][bucketWays]bucket
}

type bucket struct {
	buyer uint64 // hash; 0 is nobody
	full  int64  // on the door's clock
}

func newBuckets(perSecond float64, burst int) *buckets {
	return &buckets{seed: maphash.MakeSeed(), rate: newRate(perSecond, burst), sets: make([][bucketWays]bucket, bucketSets)}
}

// take takes a token of the buyer, or tells that there is none. It allocates
// nothing. Nil is no table: there is always one.
func (b *buckets) take(buyer []byte, now int64) bool {
	if b == nil {
		return true
	}
	h := maphash.Bytes(b.seed, buyer) | 1
	i := h >> 48 % bucketSets
	lock := &b.locks[i%bucketLocks]
	lock.Lock()
	defer lock.Unlock()
	set := &b.sets[i]
	oldest := 0
	for j := range set {
		if set[j].buyer == h {
			oldest = j
			break
		}
		if set[j].full < set[oldest].full {
			oldest = j
		}
	}
	e := &set[oldest]
	if e.buyer != h {
		*e = bucket{buyer: h, full: now}
	}
	return b.rate.take(&e.full, now)
}

// rate is what a bucket fills by.
type rate struct {
	step  int64 // nanoseconds per token
	burst int64 // nanoseconds of a full bucket
}

func newRate(perSecond float64, burst int) rate {
	step := int64(float64(time.Second) / perSecond)
	return rate{step: step, burst: step * int64(burst)}
}

// take takes a token out of the bucket that will be full at *full.
func (r rate) take(full *int64, now int64) bool {
	next := max(*full, now) + r.step
	if next-now > r.burst {
		return false
	}
	*full = next
	return true
}

// meter is a single bucket.
type meter struct {
	rate rate
	mu   sync.Mutex
	full int64
}

func newMeter(perSecond float64, burst int) *meter {
	return &meter{rate: newRate(perSecond, burst)}
}

func (m *meter) take(now int64) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.rate.take(&m.full, now)
}
