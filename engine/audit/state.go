package audit

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"iter"
	"maps"
	"time"

	"github.com/doorbuster/doorbuster/engine"
	"github.com/doorbuster/doorbuster/stock"
)

// State is what a sale's slot in Redis says at rest, without what every rebuild
// begins anew (numbers, heartbeat, outbox) and the times at which orders ended. It
// keeps what it was read from.
type State struct {
	Hash string // hex; equal for equal states, whatever the epoch
	each iter.Seq2[string, string]
}

// newState hashes things that may come in any order: the sum of their hashes.
func newState(each iter.Seq2[string, string]) State {
	var sum [sha256.Size / 8]uint64
	var text []byte
	for key, value := range each {
		text = append(append(append(text[:0], key...), 0), value...)
		h := sha256.Sum256(text)
		for i := range sum {
			sum[i] += binary.BigEndian.Uint64(h[8*i:])
		}
	}
	var out []byte
	for _, n := range sum {
		out = binary.BigEndian.AppendUint64(out, n)
	}
	return State{hex.EncodeToString(out), each}
}

// Differs returns the first thing, by name, that is not the same in both: what it is
// here and what it is in other, "" where it is not there. No key if nothing differs.
func (s State) Differs(other State) (key, here, there string) {
	if s.Hash == other.Hash {
		return "", "", ""
	}
	left := maps.Collect(s.each)
	see := func(k, a, b string) {
		if a != b && (key == "" || k < key) {
			key, here, there = k, a, b
		}
	}
	for k, v := range other.each {
		see(k, left[k], v)
		delete(left, k)
	}
	for k, v := range left {
		see(k, v, "")
	}
	return key, here, there
}

// States reads a sale's state as Redis has it, and as a rebuild from PostgreSQL would
// load it. At rest they are equal (law 13), and whatever is replayed leaves both as
// they are.
func (a *Auditor) States(ctx context.Context, sale engine.SaleID) (live, rebuilt State, err error) {
	b, err := readBooks(ctx, a.pool, sale)
	if err != nil {
		return State{}, State{}, err
	}
	s, err := a.readAll(ctx, sale)
	if err != nil {
		return State{}, State{}, err
	}
	live, rebuilt = states(b, s)
	return live, rebuilt, nil
}

// law13 looks a second time before it finds anything: of what changes by the clock (the
// window's end, records that run out) the first look may have seen one half.
func (a *Auditor) law13(ctx context.Context, b *books, s *slot) Law {
	live, rebuilt := states(b, s)
	if live.Hash != rebuilt.Hash {
		select {
		case <-ctx.Done():
			return unchecked(13, ctx.Err())
		case <-time.After(restPause):
		}
		var err error
		if live, rebuilt, err = a.States(ctx, b.sale.ID); err != nil {
			return unchecked(13, err)
		}
	}
	var f findings
	if key, is, would := live.Differs(rebuilt); key != "" {
		f.add("%s: Redis has %s, a rebuild would load %s", key, orNothing(is), orNothing(would))
	}
	return f.law(13, "Redis has what a rebuild would load: %.16s", live.Hash)
}

func orNothing(what string) string {
	if what == "" {
		return "nothing"
	}
	return what
}

// both are the two states, of one reading.
type both struct {
	b    *books
	s    *slot
	gone bool // the slot let records and counters of a settled sale go
}

func states(b *books, s *slot) (live, rebuilt State) {
	x := both{b, s, s.watch.Retired && len(s.marks)+len(s.buyers)+len(s.identities) == 0}
	return newState(x.live), newState(x.rebuilt)
}

// mark is what an order's record says of it.
type mark struct {
	state engine.RecordState
	hold  engine.Hold
	body  uint64
}

func (m mark) String() string { return fmt.Sprintf("%c %s %016x", m.state, m.hold, m.body) }

// markOf is the record that a rebuild makes of an order.
func markOf(r *row) mark {
	m := mark{engine.RecordHeld, r.hold, r.body}
	switch r.state {
	case engine.Confirmed:
		m.state = engine.RecordSettled
	case engine.Cancelled:
		m.state = engine.RecordReleased
	}
	return m
}

// compares tells whether a record is looked at: one that holds units always, the rest
// while every rebuild has them. Nobody needs those of orders that PostgreSQL does not
// have or wrote beside another, and the release of a second hold deletes the record.
func (x *both) compares(id engine.OrderID, m mark) bool {
	i, known := x.b.index[id]
	return m.state == engine.RecordHeld ||
		known && x.b.recent() && !x.b.rows[i].stray && !x.b.released[id]
}

// recent tells whether a rebuild keeps records of orders without units, and recovery
// prunes none.
func (b *books) recent() bool {
	return !b.pruned && b.now.Before(b.sale.Closes.Add(b.sale.ReplayWindow))
}

func (x *both) live(yield func(key, value string) bool) {
	w := &x.s.watch
	state := string(w.State)
	if w.Frozen {
		state = "frozen"
	}
	ok := yield("sale", definition(state, w.Currency, w.Version, w.Opens, w.Closes, w.LimitBuyer, w.LimitIdentity, w.KeyNumber))
	for _, it := range w.Items {
		ok = ok && yield(itemKey(it.SKU), shelved(&it))
	}
	for id, m := range x.s.marks {
		ok = ok && (!x.compares(id, m) || yield(orderKey(id), m.String()))
	}
	for buyer, c := range x.s.buyers {
		ok = ok && yield(buyerKey(buyer), counted(c.Units, c.Orders))
	}
	for id, n := range x.s.identities {
		ok = ok && yield(identityKey(id), counted(n, 0))
	}
}

func (x *both) rebuilt(yield func(key, value string) bool) {
	d := &x.b.sale
	ok := yield("sale", definition(slotState(d.State), d.Currency, d.Version, d.Opens.UnixMilli(), d.Closes.UnixMilli(),
		d.LimitPerBuyer, d.LimitPerIdentity, int64(d.KeyNumber)))
	held, sold, orders := map[engine.SKU]int64{}, map[engine.SKU]int64{}, map[engine.BuyerID]int64{}
	for i := range x.b.rows {
		r := &x.b.rows[i]
		if m := markOf(r); !x.gone && x.compares(r.id, m) {
			ok = ok && yield(orderKey(r.id), m.String())
		}
		if !r.live() {
			continue
		}
		orders[r.buyer]++
		into := held
		if r.state == engine.Confirmed {
			into = sold
		}
		for _, l := range r.lines.lines {
			into[l.SKU] += l.Quantity
		}
	}
	for _, it := range d.Items {
		h, s := held[it.SKU], sold[it.SKU]
		ok = ok && yield(itemKey(it.SKU), shelved(&stock.Item{Price: it.Price, Units: it.Units, Available: it.Units - h - s, Held: h, Sold: s}))
	}
	if x.gone {
		return
	}
	for key, n := range x.b.used() {
		var of int64 // a counter of an identity does not count orders
		if key[0] == 'b' {
			of = orders[engine.BuyerID(key[2:])]
		}
		ok = ok && yield(key, counted(n, of))
	}
}

func itemKey(sku engine.SKU) string { return "item " + string(sku) }

func orderKey(id engine.OrderID) string { return "order " + string(id) }

func definition(state, currency string, numbers ...int64) string {
	return fmt.Sprint(state, " ", currency, " version, opens, closes, limits and key ", numbers)
}

func shelved(it *stock.Item) string {
	return fmt.Sprintf("%d available, %d held, %d sold of %d at %d", it.Available, it.Held, it.Sold, it.Units, it.Price)
}

func counted(units, orders int64) string { return fmt.Sprintf("%d units, %d orders", units, orders) }

// slotState is the state that a rebuild gives the slot.
func slotState(s engine.SaleState) string {
	switch s {
	case engine.SaleScheduled:
		return string(engine.SaleOpen)
	case engine.SaleSettled:
		return string(engine.SaleClosed)
	}
	return string(s)
}
