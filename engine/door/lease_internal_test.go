package door

import (
	"testing"
	"time"

	"github.com/doorbuster/doorbuster/stock"
)

// step is one thing that happens to a lease, at a moment in milliseconds.
type step struct {
	at     int64
	epoch  int64
	number int64
	frozen bool
	fence  bool
}

func TestLease(t *testing.T) {
	for name, c := range map[string]struct {
		steps []step
		until int64 // ms; 0: none
	}{
		"one read says nothing":                   {[]step{{at: 10, epoch: 1, number: 7}}, 0},
		"a number that stays":                     {[]step{{at: 10, epoch: 1, number: 7}, {at: 60, epoch: 1, number: 7}}, 0},
		"a rise counts from the earlier read":     {[]step{{at: 10, epoch: 1, number: 7}, {at: 60, epoch: 1, number: 7}, {at: 110, epoch: 1, number: 8}}, 2060},
		"every rise renews":                       {[]step{{at: 10, epoch: 1, number: 7}, {at: 60, epoch: 1, number: 8}, {at: 110, epoch: 1, number: 8}, {at: 160, epoch: 1, number: 9}}, 2110},
		"a lower number ends it":                  {[]step{{at: 10, epoch: 1, number: 7}, {at: 60, epoch: 1, number: 8}, {at: 110, epoch: 1, number: 7}}, 0},
		"and begins anew":                         {[]step{{at: 10, epoch: 1, number: 7}, {at: 60, epoch: 1, number: 3}, {at: 110, epoch: 1, number: 4}}, 2060},
		"another epoch ends it":                   {[]step{{at: 10, epoch: 1, number: 7}, {at: 60, epoch: 1, number: 8}, {at: 110, epoch: 2, number: 9}}, 0},
		"another epoch begins anew":               {[]step{{at: 10, epoch: 1, number: 7}, {at: 60, epoch: 2, number: 9}, {at: 110, epoch: 2, number: 10}}, 2060},
		"an older epoch ends it":                  {[]step{{at: 10, epoch: 2, number: 7}, {at: 60, epoch: 2, number: 8}, {at: 110, epoch: 1, number: 9}}, 0},
		"frozen ends it":                          {[]step{{at: 10, epoch: 1, number: 7}, {at: 60, epoch: 1, number: 8}, {at: 110, epoch: 1, number: 9, frozen: true}}, 0},
		"a fence ends it":                         {[]step{{at: 10, epoch: 1, number: 7}, {at: 60, epoch: 1, number: 8}, {at: 110, fence: true}}, 0},
		"a read sent before the fence is nothing": {[]step{{at: 10, epoch: 1, number: 7}, {at: 110, fence: true}, {at: 60, epoch: 1, number: 8}, {at: 160, epoch: 1, number: 9}}, 0},
		"two reads after the fence renew":         {[]step{{at: 110, fence: true}, {at: 160, epoch: 1, number: 8}, {at: 210, epoch: 1, number: 9}}, 2160},
	} {
		var l lease
		for _, s := range c.steps {
			at := s.at * int64(time.Millisecond)
			if s.fence {
				l.fence(at)
			} else {
				l.read(&stock.Watch{Grip: stock.Grip{Epoch: s.epoch}, Heartbeat: s.number, Frozen: s.frozen}, at)
			}
		}
		epoch := c.steps[len(c.steps)-1].epoch
		until := c.until * int64(time.Millisecond)
		if l.holds(epoch, until) || (until > 0 && !l.holds(epoch, until-1)) || l.holds(epoch+1, until-1) || l.left(until-1) != min(until, 1) {
			t.Errorf("%s: held %+v, want until %d ms", name, l.held.Load(), c.until)
		}
	}
}

// The view refuses by the clock only what Redis' own clock must refuse too,
// wherever between sending and getting it was read.
func TestViewKnowsTheClockBothWays(t *testing.T) {
	ms := int64(time.Millisecond)
	v := newView(stock.Watch{Now: 5000, Opens: 5101, Closes: 6000}, nil, 10*ms, 40*ms) // Redis said 5000.x somewhere in these 30 ms
	for _, c := range []struct {
		at   int64 // ms
		want answer
	}{
		{109, notOpen},     // Redis' clock is below 5100 at most
		{110, unanswered},  // it may be 5101 already, if it was read when sent and 5000.9
		{1039, unanswered}, // it may yet be 5999
		{1040, saleClosed}, // it is 6000 at least
	} {
		if got := v.refusal(c.at * ms); got != c.want {
			t.Errorf("at %d ms: %d, want %d", c.at, got, c.want)
		}
	}
}

func TestBucketsErrInFavourOfTheBuyer(t *testing.T) {
	b := newBuckets(1, 2)
	for i := range 5 {
		if got := b.take([]byte("ann"), 0); got != (i < 2) {
			t.Errorf("token %d: %v", i+1, got)
		}
	}
	if !b.take([]byte("ann"), int64(time.Second)) || b.take([]byte("ann"), int64(time.Second)) {
		t.Error("a second is one token")
	}
	var other [8]byte
	for i := range 4 * bucketSets * bucketWays { // more buyers than there is room for
		for j := range 3 {
			other[j] = byte(i >> (8 * j))
		}
		if !b.take(other[:], int64(time.Second)) {
			t.Fatalf("buyer %d of a crowd has no first token", i)
		}
	}
}
