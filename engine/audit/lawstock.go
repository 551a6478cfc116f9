package audit

import (
	"fmt"

	"github.com/doorbuster/doorbuster/engine"
)

// sums are units per SKU, added up over orders.
type sums struct {
	live, confirmed map[engine.SKU]int64 // confirmed and not returned
}

func (b *books) sums() sums {
	s := sums{live: map[engine.SKU]int64{}, confirmed: map[engine.SKU]int64{}}
	for i := range b.rows {
		r := &b.rows[i]
		if !r.live() {
			continue
		}
		for _, l := range r.lines.lines {
			s.live[l.SKU] += l.Quantity
			if r.state == engine.Confirmed {
				s.confirmed[l.SKU] += l.Quantity
			}
		}
	}
	return s
}

// law1 checks the slot against itself. Held records are looked at if they were
// read (at rest).
func law1(s *slot) Law {
	var f findings
	var units, held int64
	for _, u := range s.unread {
		f.add("%s", u)
	}
	for _, it := range s.watch.Items {
		units, held = units+it.Units, held+it.Held
		if it.Available+it.Held+it.Sold != it.Units {
			f.add("%s: available %d + held %d + sold %d is not units %d", it.SKU, it.Available, it.Held, it.Sold, it.Units)
		}
		if it.Available < 0 || it.Held < 0 || it.Sold < 0 || it.Units < 0 {
			f.add("%s: negative: available %d, held %d, sold %d, units %d", it.SKU, it.Available, it.Held, it.Sold, it.Units)
		}
		if s.held != nil && s.held[it.SKU] != it.Held {
			f.add("%s: held %d, but the held records add up to %d", it.SKU, it.Held, s.held[it.SKU])
		}
	}
	if s.held != nil {
		return f.law(1, "%d units of %d SKUs; %d held, as %d records say", units, len(s.watch.Items), held, s.heldN)
	}
	return f.law(1, "%d units of %d SKUs, %d held", units, len(s.watch.Items), held)
}

// claims checks what items say against their orders.
func claims(sale *engine.Sale, claimed map[engine.SKU]int64, s sums, f *findings) {
	for _, it := range sale.Items {
		if n := claimed[it.SKU]; n != s.live[it.SKU] {
			f.add("%s: claimed %d, but live orders have %d", it.SKU, n, s.live[it.SKU])
		}
		if max(claimed[it.SKU], s.live[it.SKU]) > it.Units {
			f.add("%s: %d units claimed and %d in live orders, of %d", it.SKU, claimed[it.SKU], s.live[it.SKU], it.Units)
		}
	}
	for sku, n := range s.live {
		if _, ok := sale.Item(sku); !ok && n != 0 {
			f.add("%s: %d units in live orders, but no such item", sku, n)
		}
	}
}

func total(m map[engine.SKU]int64) (n int64) {
	for _, v := range m {
		n += v
	}
	return n
}

func units(sale *engine.Sale) (n int64) {
	for i := range sale.Items {
		n += sale.Items[i].Units
	}
	return n
}

func law3(sale *engine.Sale, s sums) Law {
	var f findings
	for _, it := range sale.Items {
		if n := s.confirmed[it.SKU]; n > it.Units {
			f.add("%s: %d units confirmed, of %d", it.SKU, n, it.Units)
		}
	}
	return f.law(3, "%d of %d units confirmed", total(s.confirmed), units(sale))
}

// law10 compares the two at rest.
func law10(b *books, s *slot, sum sums) Law {
	var f findings
	if s.watch.Epoch != b.sale.Epoch {
		f.add("Redis is in epoch %d, PostgreSQL in %d", s.watch.Epoch, b.sale.Epoch)
	}
	seen := map[engine.SKU]bool{}
	for _, it := range s.watch.Items {
		seen[it.SKU] = true
		item, ok := b.sale.Item(it.SKU)
		if !ok {
			f.add("%s: in Redis only", it.SKU)
			continue
		}
		want := item.Units - sum.live[it.SKU]
		switch {
		case it.Available < want:
			f.add("%s: leak: available %d, want %d (units %d − live %d)", it.SKU, it.Available, want, item.Units, sum.live[it.SKU])
		case it.Available > want:
			f.add("%s: phantom: available %d, want %d (units %d − live %d)", it.SKU, it.Available, want, item.Units, sum.live[it.SKU])
		}
		if it.Units != item.Units {
			f.add("%s: units %d in Redis, %d in PostgreSQL", it.SKU, it.Units, item.Units)
		}
		if it.Held != 0 {
			f.add("%s: %d units still held", it.SKU, it.Held)
		}
	}
	for _, it := range b.sale.Items {
		if !seen[it.SKU] {
			f.add("%s: not in Redis", it.SKU)
		}
	}
	compareCounters(b, s, &f)
	return f.law(10, "available %d = units %d − live %d; held 0; %d buyers' counters agree",
		units(&b.sale)-total(sum.live), units(&b.sale), total(sum.live), len(s.buyers))
}

// compareCounters compares the limits' counters in Redis with live orders.
// Those of a settled sale go a while after it; then there is nothing to compare.
func compareCounters(b *books, s *slot, f *findings) {
	if s.watch.Retired && len(s.buyers) == 0 && len(s.identities) == 0 {
		return
	}
	used := b.used()
	for buyer, c := range s.buyers {
		if want := used[buyerKey(buyer)]; c.Units != want {
			f.add("buyer %s: counter %d in Redis, %d units in live orders", buyer, c.Units, want)
		}
	}
	for id, n := range s.identities {
		if want := used[identityKey(id)]; n != want {
			f.add("identity %x: counter %d in Redis, %d units in live orders", id, n, want)
		}
	}
	for key, n := range used {
		if n == 0 {
			continue
		}
		if key[0] == 'b' {
			if _, ok := s.buyers[engine.BuyerID(key[2:])]; !ok {
				f.add("buyer %s: no counter in Redis, %d units in live orders", key[2:], n)
			}
		} else if ids, err := engine.ParseIdentities(key[2:]); err == nil {
			if _, ok := s.identities[ids[0]]; !ok {
				f.add("identity %s: no counter in Redis, %d units in live orders", key[2:], n)
			}
		}
	}
}

func buyerKey(b engine.BuyerID) string { return "b:" + string(b) }

func identityKey(id engine.Identity) string { return fmt.Sprintf("i:%x", id[:]) }

// used adds up the units of live orders per buyer and identity, under the keys
// that PostgreSQL's counters have.
func (b *books) used() map[string]int64 {
	used := make(map[string]int64, len(b.rows))
	for i := range b.rows {
		r := &b.rows[i]
		if !r.live() {
			continue
		}
		n := engine.Units(r.lines.lines)
		used[buyerKey(r.buyer)] += n
		for id := range identitiesOf(r) {
			used["i:"+id] += n
		}
	}
	return used
}
