package audit

import (
	"cmp"
	"math"
	"slices"
	"sort"

	"github.com/doorbuster/doorbuster/engine"
)

// shelf says how many units were surely there for whoever asked, from some moment to
// the end of the sale. It errs on the side of the door: an order has its units from
// its accept until its release row was seen done in Redis, and for good if it was
// never released; units that were restocked are there from when Redis had them.
type shelf struct {
	from  int64                  // Unix milliseconds; of what was before nothing can be said
	units map[engine.SKU][]stage // in order of time, the first one at the beginning of time
}

// stage is a number of units that were there from a moment on, at least.
type stage struct {
	at, units int64
}

// stocked is a unit count that changes at a moment.
type stocked struct {
	at, delta int64
}

// newShelf reads the sale's orders and release rows.
func newShelf(b *books) *shelf {
	s := &shelf{from: b.blindUntil, units: map[engine.SKU][]stage{}}
	changes := map[engine.SKU][]stocked{}
	for i := range b.rows {
		r := &b.rows[i]
		for _, l := range r.lines.lines {
			changes[l.SKU] = append(changes[l.SKU], stocked{r.accepted, -l.Quantity})
			if !r.state.Live() && r.back != 0 {
				changes[l.SKU] = append(changes[l.SKU], stocked{r.back, l.Quantity})
			}
		}
	}
	for _, it := range b.sale.Items {
		first := it.Units
		all := changes[it.SKU]
		for _, in := range b.restocks[it.SKU] {
			first -= in.delta
			all = append(all, in)
		}
		s.units[it.SKU] = stagesOf(first, all)
	}
	return s
}

// stagesOf turns changes into what was there from each of them to the end, at least.
func stagesOf(first int64, all []stocked) []stage {
	// Of changes in one millisecond those that take come first.
	slices.SortFunc(all, func(a, b stocked) int { return cmp.Or(cmp.Compare(a.at, b.at), cmp.Compare(a.delta, b.delta)) })
	out := make([]stage, 0, len(all)+1)
	out = append(out, stage{math.MinInt64, first})
	for _, c := range all {
		first += c.delta
		out = append(out, stage{c.at, first})
	}
	for i := len(out) - 2; i >= 0; i-- {
		out[i].units = min(out[i].units, out[i+1].units)
	}
	return out
}

// enough tells whether all of the lines could have been served at that moment and at
// any later one.
func (s *shelf) enough(lines []engine.Line, at int64) bool {
	if at < s.from {
		return false
	}
	for _, l := range lines {
		stages := s.units[l.SKU]
		n := sort.Search(len(stages), func(i int) bool { return stages[i].at > at })
		if n == 0 || stages[n-1].units < l.Quantity {
			return false
		}
	}
	return true
}
