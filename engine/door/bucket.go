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
	step  int64 // nanoseconds per token
	burst int64 // nanoseconds of a full bucket
	locks [bucketLocks]sync.Mutex
	sets  [][bucketWays]bucket
}

type bucket struct {
	buyer uint64 // hash; 0 is nobody
	full  int64  // on the door's clock
}

func newBuckets(rate float64, burst int) *buckets {
	step := int64(float64(time.Second) / rate)
	return &buckets{
		seed: maphash.MakeSeed(), step: step, burst: step * int64(burst),
		sets: make([][bucketWays]bucket, bucketSets),
	}
}

// take takes a token of the buyer, or tells that there is none. It allocates
// nothing.
func (b *buckets) take(buyer []byte, now int64) bool {
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
	full := max(e.full, now) + b.step
	if full-now > b.burst {
		return false
	}
	e.full = full
	return true
}
