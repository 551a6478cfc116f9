package chaos

import (
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"path"
	"slices"
	"strings"
)

// Ways to choose pairs.
const (
	Pairwise = "pairwise" // every cell once at least; every component, and every shared fault, at every moment
	All      = "all"      // every cell at every moment
	Each     = "each"     // every cell once, at a moment that the seed chooses
)

// Pair is a cell at a moment.
type Pair struct {
	Cell   *Cell
	Moment *Moment
}

// Name is as people write it.
func (p Pair) Name() string { return p.Cell.Name() + " @ " + p.Moment.Name }

// seed is the run's own, from the plan's: the same for the same pair, whatever else
// the plan holds.
func (p Pair) seed(plan uint64) uint64 {
	h := fnv.New64a()
	fmt.Fprintf(h, "%d %s", plan, p.Name())
	return h.Sum64() >> 1 // room for attempts, and for a signed number
}

// Plan chooses pairs and their order by the seed. cells and moments are globs over
// names ("*/kill", "door*/*", "half-*"); empty means all.
func Plan(cfg *Config) ([]Pair, error) {
	pool, err := matching(cfg.Cells, cfg.Moments)
	if err != nil {
		return nil, err
	}
	if len(pool) == 0 {
		return nil, fmt.Errorf("no cell is named %q at a moment named %q: see --list", cfg.Cells, cfg.Moments)
	}
	dice := rand.New(rand.NewPCG(cfg.Seed, 1))
	dice.Shuffle(len(pool), func(i, j int) { pool[i], pool[j] = pool[j], pool[i] })
	switch cfg.Pairs {
	case "", Pairwise:
		pool = cover(pool)
	case All:
	case Each:
		seen := map[string]bool{}
		pool = slices.DeleteFunc(pool, func(p Pair) bool {
			again := seen[p.Cell.Name()]
			seen[p.Cell.Name()] = true
			return again
		})
	default:
		return nil, fmt.Errorf("pairs: %q is none of %s, %s, %s", cfg.Pairs, Pairwise, All, Each)
	}
	pool = pool[min(cfg.From, len(pool)):]
	if cfg.Runs > 0 {
		pool = pool[:min(cfg.Runs, len(pool))]
	}
	return pool, nil
}

func matching(cells, moments string) (pool []Pair, err error) {
	for _, c := range Cells() {
		fits, err := fitsAny(cells, c.Name())
		if err != nil {
			return nil, err
		}
		for _, m := range Moments {
			when, err := fitsAny(moments, m.Name)
			if err != nil {
				return nil, err
			}
			if fits && when && (m.flows || !c.flows) {
				pool = append(pool, Pair{c, m})
			}
		}
	}
	return pool, nil
}

// fitsAny matches a name against globs with commas between; a star passes slashes.
func fitsAny(globs, name string) (bool, error) {
	if globs == "" {
		return true, nil
	}
	flat := strings.NewReplacer("/", ":")
	for _, g := range strings.Split(globs, ",") {
		ok, err := path.Match(flat.Replace(g), flat.Replace(name))
		if err != nil {
			return false, fmt.Errorf("glob %q: %w", g, err)
		}
		if ok {
			return true, nil
		}
	}
	return false, nil
}

// covers are what a pair stands for: its component at its moment, the kind of its
// fault at its moment where several components share it, and its cell.
func (p Pair) covers(shared map[string]bool) []string {
	all := []string{p.Cell.Name(), p.Cell.kind + " @ " + p.Moment.Name}
	if p.Cell.kind == "link" {
		// Thirteen links with five toxics each are covered as the link and the toxic.
		all[0] = p.Cell.Component
	}
	if shared[p.Cell.Fault] {
		all = append(all, p.Cell.Fault+" @ "+p.Moment.Name)
	}
	return all
}

// cover takes greedily what covers most that is not covered yet, the first of equals.
func cover(pool []Pair) (chosen []Pair) {
	of := map[string]map[string]bool{}
	for _, p := range pool {
		if of[p.Cell.Fault] == nil {
			of[p.Cell.Fault] = map[string]bool{}
		}
		of[p.Cell.Fault][p.Cell.Component] = true
	}
	shared := map[string]bool{}
	for fault, components := range of {
		shared[fault] = len(components) > 2
	}
	open := map[string]bool{}
	for _, p := range pool {
		for _, c := range p.covers(shared) {
			open[c] = true
		}
	}
	for len(open) > 0 {
		best, most := 0, 0
		for i, p := range pool {
			n := 0
			for _, c := range p.covers(shared) {
				if open[c] {
					n++
				}
			}
			if n > most {
				best, most = i, n
			}
		}
		for _, c := range pool[best].covers(shared) {
			delete(open, c)
		}
		chosen = append(chosen, pool[best])
	}
	return chosen
}
