package audit

import (
	"context"
	"errors"
	"hash/maphash"
	"io"
	"net/http"

	"github.com/doorbuster/doorbuster/engine"
)

// crowd is what the client log says, as far as the laws ask for it: what buyers
// were told of each order, and what they wanted.
type crowd struct {
	requests, soldOut, refused int64
	accepted                   int64 // orders answered 202
	firstAt, lastAt            int64 // Unix milliseconds, of answers
	firstAccept, lastAccept    int64 // of first 202s
	told                       map[string]*told
	byKey                      map[[2]uint64]*told
	mismatches                 []mismatch
	lies, forks                findings // wrong whatever PostgreSQL says: of law 8, of law 12
	demand                     map[want]int64
	misled                     *misled
	seeds                      [2]maphash.Seed
}

// told is what the crowd was told of one order.
type told struct {
	order    string
	buyer    string
	key      string
	body     uint64
	total    int64
	accepted bool // by a 202
	state    engine.OrderState
}

// mismatch is one answer 422: the key's order must have another body.
type mismatch struct {
	key  [2]uint64
	body uint64
	line int
}

// want is a buyer and a SKU.
type want struct {
	buyer uint64
	sku   engine.SKU
}

// misled watches for buyers who were told "sold out" of units that were there.
// It is set up with what PostgreSQL says was left unsold.
type misled struct {
	left  map[engine.SKU]int64 // unsold at rest
	after int64                // Unix milliseconds from which nothing came back any more
	n     int64
	first string
}

func newCrowd(m *misled) *crowd {
	return &crowd{
		told: map[string]*told{}, byKey: map[[2]uint64]*told{}, demand: map[want]int64{}, misled: m,
		seeds: [2]maphash.Seed{maphash.MakeSeed(), maphash.MakeSeed()},
	}
}

const ctxEvery = 1 << 14 // lines between two looks at ctx

// readCrowd reads a client log to its end.
func readCrowd(ctx context.Context, r io.Reader, m *misled) (*crowd, error) {
	c, lr := newCrowd(m), newLogReader(r)
	var l logLine
	for {
		err := lr.next(&l)
		if errors.Is(err, io.EOF) {
			return c, nil
		}
		if err != nil {
			return nil, err
		}
		if lr.n%ctxEvery == 0 && ctx.Err() != nil {
			return nil, ctx.Err()
		}
		c.take(&l, lr.n)
	}
}

func (c *crowd) take(l *logLine, line int) {
	c.requests++
	if c.firstAt == 0 || l.at < c.firstAt {
		c.firstAt = l.at
	}
	c.lastAt = max(c.lastAt, l.at)
	c.wants(l)
	switch {
	case l.status == http.StatusAccepted || l.status == http.StatusOK:
		c.hear(l, line)
		return
	case string(l.typ) == engine.SoldOut.String():
		c.soldOut++
		c.misled.hear(l)
	case string(l.typ) == engine.Mismatch.String():
		c.mismatches = append(c.mismatches, mismatch{key: c.hash(l), body: l.body, line: line})
		c.refused++
	default:
		c.refused++
	}
}

// hear takes an answer that says the buyer has an order.
func (c *crowd) hear(l *logLine, line int) {
	if l.order == nil {
		c.lies.add("line %d: answered %d without an order", line, l.status)
		return
	}
	hash := c.hash(l)
	t := c.told[string(l.order)]
	if t == nil {
		t = &told{order: string(l.order), buyer: string(l.buyer), key: string(l.key), body: l.body, total: l.total}
		c.told[t.order] = t
	}
	switch known := c.byKey[hash]; {
	case known == nil:
		c.byKey[hash] = t
	case known != t:
		c.forks.add("line %d: buyer %s, key %s: order %s, before it was %s", line, l.buyer, l.key, t.order, known.order)
	}
	switch {
	case t.buyer != string(l.buyer) || t.key != string(l.key):
		c.forks.add("line %d: order %s of buyer %s, key %s was given to buyer %s, key %s", line, t.order, t.buyer, t.key, l.buyer, l.key)
	case t.body != l.body || t.total != l.total:
		c.forks.add("line %d: order %s: another body under the same key was answered %d, not 422", line, t.order, l.status)
	}
	c.says(t, l, line)
}

// says notes what the answer said of the order, and whether it said the opposite
// before.
func (c *crowd) says(t *told, l *logLine, line int) {
	if l.status == http.StatusAccepted && !t.accepted {
		t.accepted = true
		c.accepted++
		if c.firstAccept == 0 || l.at < c.firstAccept {
			c.firstAccept = l.at
		}
		c.lastAccept = max(c.lastAccept, l.at)
	}
	var state engine.OrderState
	switch string(l.typ) {
	case TypeConfirmed:
		state = engine.Confirmed
	case TypeCancelled:
		state = engine.Cancelled
	default:
		return
	}
	if t.state != 0 && t.state != state {
		c.lies.add("line %d: order %s: told %s, before that %s", line, t.order, state, t.state)
	}
	t.state = state
}

// wants notes how many units a buyer asked for at once, at most: his demand as
// far as it is sure. Requests that no stock could have served do not count.
func (c *crowd) wants(l *logLine) {
	switch string(l.typ) {
	case engine.NotOpen.String(), engine.Closed.String(), engine.OverLimit.String(), engine.PriceChanged.String(),
		engine.Mismatch.String(), engine.UnknownSKU.String(), "invalid", "ticket-invalid", "ticket-early":
		return
	}
	buyer := maphash.Bytes(c.seeds[0], l.buyer)
	for i := range l.lines.lines {
		w := want{buyer, l.lines.lines[i].SKU}
		if q := l.lines.lines[i].Quantity; q > c.demand[w] {
			c.demand[w] = q
		}
	}
}

func (c *crowd) hash(l *logLine) (h [2]uint64) {
	for i := range h {
		var mh maphash.Hash
		mh.SetSeed(c.seeds[i])
		_, _ = mh.Write(l.buyer)
		_ = mh.WriteByte(' ')
		_, _ = mh.Write(l.key)
		h[i] = mh.Sum64()
	}
	return h
}

func (m *misled) hear(l *logLine) {
	if m == nil || l.at < m.after {
		return
	}
	for i := range l.lines.lines {
		if l.lines.lines[i].Quantity > m.left[l.lines.lines[i].SKU] {
			return
		}
	}
	if m.n++; m.n == 1 {
		m.first = string(l.buyer) + " asked for " + l.lines.text
	}
}

// demandOf adds up the sure demand per SKU.
func (c *crowd) demandOf() map[engine.SKU]int64 {
	d := map[engine.SKU]int64{}
	for w, n := range c.demand {
		d[w.sku] += n
	}
	return d
}
