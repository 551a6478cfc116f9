package simulate

import (
	"context"
	"fmt"
	"io"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/doorbuster/doorbuster/engine/door"
	"github.com/doorbuster/doorbuster/engine/recovery"
	"github.com/doorbuster/doorbuster/payment"
	"github.com/doorbuster/doorbuster/payment/provider"
)

// Config says which stories are told.
type Config struct {
	Seeds   int    // how many
	From    uint64 // the first seed
	Workers int    // at once; 0 is one for each processor
	Most    int    // stop when a law was broken in so many; 0 never
	// Progress, if set, is told now and then how many are done.
	Progress func(done int)
}

// MaxFailing is how many failing seeds a report names.
const MaxFailing = 100

// Report is what came of the stories.
type Report struct {
	Seeds        int            `json:"seeds"`
	Violations   int            `json:"violations"` // stories in which a law was broken
	Faults       map[string]int `json:"faults"`
	Acknowledged int            `json:"acknowledged"` // orders whose buyer heard 202
	Confirmed    int            `json:"confirmed"`    // of all orders
	Failing      []Failure      `json:"failing"`
}

// Failure is a story in which a law was broken.
type Failure struct {
	Seed   uint64   `json:"seed"`
	Broken []string `json:"broken"`
}

// Run tells the stories of many seeds, each alone, until ctx ends. The error is ctx's.
func Run(ctx context.Context, cfg Config) (Report, error) {
	if cfg.Workers <= 0 {
		cfg.Workers = runtime.GOMAXPROCS(0)
	}
	sum := Report{Faults: map[string]int{}, Failing: []Failure{}}
	var mu sync.Mutex
	var next atomic.Int64
	var enough atomic.Bool
	var wg sync.WaitGroup
	for range cfg.Workers {
		wg.Go(func() {
			st := newStage()
			defer st.close()
			for i := next.Add(1) - 1; i < int64(cfg.Seeds) && ctx.Err() == nil && !enough.Load(); i = next.Add(1) - 1 {
				seed := cfg.From + uint64(i)
				w := newWorld(seed, nil, st)
				broken := w.run()
				mu.Lock()
				sum.add(seed, w, broken)
				enough.Store(cfg.Most > 0 && sum.Violations >= cfg.Most)
				if cfg.Progress != nil && sum.Seeds%1000 == 0 {
					cfg.Progress(sum.Seeds)
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	slices.SortFunc(sum.Failing, func(a, b Failure) int { return int(int64(a.Seed) - int64(b.Seed)) })
	return sum, ctx.Err()
}

func (r *Report) add(seed uint64, w *world, broken []string) {
	r.Seeds++
	r.Acknowledged += len(w.crowd.acked)
	for name, n := range w.faults {
		r.Faults[name] += n
	}
	for _, n := range w.db.books {
		if n != 0 {
			r.Confirmed++
		}
	}
	if len(broken) > 0 {
		r.Violations++
		if len(r.Failing) < MaxFailing {
			r.Failing = append(r.Failing, Failure{seed, broken})
		}
	}
}

// Tell tells the story of one seed, a line for each step, and returns which laws it
// broke.
func Tell(out io.Writer, seed uint64) ([]string, error) {
	s := &story{}
	st := newStage()
	defer st.close()
	broken := newWorld(seed, s, st).run()
	for _, line := range s.lines {
		if _, err := fmt.Fprintln(out, line); err != nil {
			return broken, err
		}
	}
	return broken, nil
}

// story is what happened, line by line.
type story struct{ lines []string }

func (s *story) add(line string) { s.lines = append(s.lines, line) }

// stage is what stories that are told one after another share, because making it costs
// more than a story: metrics that nobody reads, and coroutines.
type stage struct {
	door     *door.Steps
	worker   *payment.Steps
	recovery *recovery.Steps
	idle     []*coroutine

	// The memory of what was in the last story, and is in it no more.
	events    events
	deadlines []*deadline
}

func newStage() *stage {
	steps, err := door.NewSteps(door.Config{Registerer: registry{}}, saleID, door.Clock{}, nil)
	if err != nil {
		panic(err)
	}
	c := conn{}
	worker, err := payment.NewSteps(payment.Config{
		Orders: c, Stock: &redis{}, Ledger: c, Providers: map[string]provider.Provider{"bank": &bank{}}, Registerer: registry{},
	}, payment.Clock{}, nil)
	if err != nil {
		panic(err)
	}
	return &stage{door: steps, worker: worker, recovery: recovery.NewSteps(recovery.Config{Registerer: registry{}}, recovery.StepsClock{}, nil)}
}

func (s *stage) close() {
	for _, c := range s.idle {
		c.stop()
	}
}
