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
	turns, lies, forks         findings // wrong whatever PostgreSQL says: of law 5, 8, 12
	demand                     map[want]int64
	last                       map[uint64]plea // by buyer: his last request, if it gave him no order
	soldOuts                   map[moment]plea // the first of those told "sold out" at a moment
	seeds                      [2]maphash.Seed
}

// told is what the crowd was told of one order.
type told struct {
	order    string
	buyer    string
	key      string
	body     uint64
	total    int64
	accepted bool  // by a 202
	at       int64 // Unix milliseconds, of the first of them
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

// plea is a request that gave its buyer no order.
type plea struct {
	buyer string // of those told "sold out" only
	lines *basket
	at    int64 // Unix milliseconds by the client's clock
	n     int64 // such pleas
}

// moment is where pleas are counted together.
type moment struct {
	lines *basket
	slice int64 // of momentMs
}

const momentMs = 100

func newCrowd() *crowd {
	return &crowd{
		told: map[string]*told{}, byKey: map[[2]uint64]*told{}, demand: map[want]int64{},
		last: map[uint64]plea{}, soldOuts: map[moment]plea{},
		seeds: [2]maphash.Seed{maphash.MakeSeed(), maphash.MakeSeed()},
	}
}

const ctxEvery = 1 << 14 // lines between two looks at ctx

// readCrowd reads a client log to its end.
func readCrowd(ctx context.Context, r io.Reader) (*crowd, error) {
	c, lr := newCrowd(), newLogReader(r)
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
		c.hearSoldOut(l)
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
		t.accepted, t.at = true, l.at
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
		for _, f := range []*findings{&c.turns, &c.lies} {
			f.add("line %d: order %s: told %s, before that %s", line, t.order, state, t.state)
		}
	}
	t.state = state
}

// wants notes how many units a buyer asked for at once, at most: his demand as
// far as it is sure; and with what he was left. Requests that no stock could have
// served do not count, nor those that met a sale its operator had paused.
func (c *crowd) wants(l *logLine) {
	switch string(l.typ) {
	case engine.NotOpen.String(), engine.Closed.String(), engine.OverLimit.String(), engine.PriceChanged.String(),
		engine.Mismatch.String(), engine.UnknownSKU.String(), engine.Paused.String(), "invalid", "ticket-invalid", "ticket-early":
		return
	}
	buyer := maphash.Bytes(c.seeds[0], l.buyer)
	for i := range l.lines.lines {
		w := want{buyer, l.lines.lines[i].SKU}
		if q := l.lines.lines[i].Quantity; q > c.demand[w] {
			c.demand[w] = q
		}
	}
	if l.status == http.StatusAccepted || l.status == http.StatusOK {
		c.last[buyer] = plea{} // served, whatever came of it
	} else if p, ok := c.last[buyer]; !ok || p.lines != nil {
		c.last[buyer] = plea{lines: l.lines, at: l.at}
	}
}

func (c *crowd) hearSoldOut(l *logLine) {
	m := moment{l.lines, l.at / momentMs}
	p, known := c.soldOuts[m]
	if !known {
		p = plea{buyer: string(l.buyer), lines: l.lines, at: l.at}
	}
	p.at, p.n = min(p.at, l.at), p.n+1
	c.soldOuts[m] = p
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

// demandOf adds up the sure demand per SKU.
func (c *crowd) demandOf() map[engine.SKU]int64 {
	d := map[engine.SKU]int64{}
	for w, n := range c.demand {
		d[w.sku] += n
	}
	return d
}
