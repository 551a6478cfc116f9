package chaos

import (
	"math/rand/v2"
	"testing"
	"time"
)

// A soak takes away one copy of accepted orders at a time: the sweep needs a while to
// make a second one.
func TestSoakTakesOneCopyAtATime(t *testing.T) {
	t.Parallel()
	var last drops
	var at [inQueue + 1]time.Time
	var met [inQueue + 1]int
	dice, now := rand.New(rand.NewPCG(1, 2)), time.Unix(1_700_000_000, 0)
	for range 20_000 {
		now = now.Add(3 * time.Second)
		c := last.choose(dice, Cells(), now)
		if other := inRedis + inQueue - c.drops; c.drops != none && now.Sub(at[other]) < soakApart {
			t.Fatalf("%s %v after the other copy went", c.Name(), now.Sub(at[other]))
		}
		at[c.drops] = now
		met[c.drops]++
	}
	if met[inRedis] == 0 || met[inQueue] == 0 {
		t.Errorf("never chosen: of Redis %d, of the queue %d", met[inRedis], met[inQueue])
	}
}
