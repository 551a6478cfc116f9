package door

import (
	"sync"
	"sync/atomic"
	"testing"
)

// Those who are refused are never counted, however many come at once.
func TestWhoIsRefusedIsNotIn(t *testing.T) {
	t.Parallel()
	const places, crowd, tries = 8, 8, 300_000
	var g gate
	cfg := withDefaults(Config{GateMax: places})
	g.init(&cfg)
	for range places {
		if !g.enter() {
			t.Fatal("no place in an empty gate")
		}
	}
	var all sync.WaitGroup
	var in, most atomic.Int64
	for range crowd {
		all.Go(func() {
			for range tries {
				if g.enter() {
					in.Add(1)
				}
				if n := g.used.Load(); n > places {
					most.Store(n)
				}
			}
		})
	}
	all.Wait()
	if in.Load() != 0 || most.Load() != 0 {
		t.Errorf("%d got in, %d were counted, of %d places all of which are taken", in.Load(), most.Load(), places)
	}
	g.leave()
	if !g.enter() || g.enter() {
		t.Error("want one place after one has left")
	}
}
