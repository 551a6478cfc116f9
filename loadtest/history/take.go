package history

import "slices"

// take returns the states in which the order was taken. If there is no room for
// it, something must have made room that nobody saw: a cancelled order's units
// came back, a restock arrived. Every smallest set of such events is one way.
func (r *Rules) take(s *state, in *Input, out *Output, promised bool) []*state {
	if out.Order != "" && s.named(out.Order) >= 0 {
		return nil // it is the order of another key
	}
	k := known{key: in.Key, body: in.Body, units: in.Units, id: out.Order, hold: out.Hold, promised: promised}
	var next []*state
	for _, roomy := range r.makeRoom(s, in.Units) {
		i, _ := roomy.find(k.key)
		next = append(next, &state{
			orders:   slices.Insert(slices.Clone(roomy.orders), i, k),
			restocks: roomy.restocks, added: roomy.added,
		})
	}
	return next
}

// makeRoom returns s if there is room in it, else what follows from it by unseen
// events, none of which is more than it takes.
func (r *Rules) makeRoom(s *state, units int64) (found []*state) {
	for open := []*state{s}; len(open) > 0; open = open[1:] {
		if r.room(open[0], units) {
			found = append(found, open[0])
			continue
		}
		for _, n := range r.unseen(open[0]) {
			if !slices.ContainsFunc(open, n.equal) {
				open = append(open, n)
			}
		}
	}
	return found
}

// unseen returns what may have happened next without anybody seeing it, as far as
// it makes room.
func (r *Rules) unseen(s *state) (next []*state) {
	for i := range s.orders {
		k := s.orders[i]
		switch {
		case k.phase == cancelled || r.mayEnd(&k):
			k.phase = released
			next = append(next, s.with(i, k))
		case k.phase == live && r.Lossy && !k.promised:
			next = append(next, s.without(i))
		}
	}
	for i, n := range s.restocks {
		next = append(next, &state{
			orders: s.orders, added: s.added + n,
			restocks: slices.Delete(slices.Clone(s.restocks), i, i+1),
		})
	}
	return next
}
