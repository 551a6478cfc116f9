package door

import (
	"bytes"

	"github.com/doorbuster/doorbuster/engine"
)

// wish is the body of an order request, read. Its slices point into the body, or
// into scratch where the body had escapes.
type wish struct {
	lines    [engine.MaxLines]wishLine
	n        int // of lines
	amount   int64
	currency []byte

	scratch []byte
}

type wishLine struct {
	sku      []byte
	quantity int64
}

// Which keys of an object were there.
const (
	hasLines = 1 << iota
	hasTotal
	hasSKU
	hasQuantity
	hasAmount
	hasCurrency
)

// maxNumberDigits holds engine.MaxAmount with room to see that a number is above
// it.
const maxNumberDigits = 15

// parser reads the one form of body there is. It is stricter than encoding/json:
// keys are exact, known, and there once; numbers are whole, without sign,
// fraction or exponent; nothing follows the object. Strings must end as names of
// ASCII letters, so broken UTF-8 cannot get through. The first fault is kept.
type parser struct {
	b     []byte
	fault answer
}

// parse reads body into w, lines of the same SKU added up. It returns unanswered,
// or what is wrong.
func (w *wish) parse(body []byte) answer {
	w.n, w.amount, w.currency = 0, 0, nil
	w.scratch = w.scratch[:0]
	p := parser{b: body}
	var seen int
	for more := p.open('{', '}'); more; more = p.next('}') {
		switch key := p.key(w); {
		case string(key) == "lines":
			p.once(&seen, hasLines)
			p.lines(w)
		case string(key) == "total":
			p.once(&seen, hasTotal)
			p.total(w)
		default:
			p.fail(badField)
		}
	}
	p.space()
	switch {
	case p.fault != unanswered:
		return p.fault
	case len(p.b) > 0:
		return badBody
	case seen&hasLines == 0:
		return badLines
	case seen&hasTotal == 0:
		return badTotal
	}
	return unanswered
}

func (p *parser) lines(w *wish) {
	for more := p.open('[', ']'); more; more = p.next(']') {
		var seen int
		var l wishLine
		for more := p.open('{', '}'); more; more = p.next('}') {
			switch key := p.key(w); {
			case string(key) == "sku":
				p.once(&seen, hasSKU)
				l.sku = p.text(w, badSKU)
			case string(key) == "quantity":
				p.once(&seen, hasQuantity)
				l.quantity = p.whole(badQuantity)
			default:
				p.fail(badField)
			}
		}
		if p.fault == unanswered {
			p.fail(w.add(l, seen))
		}
	}
	if w.n == 0 {
		p.fail(badLines)
	}
}

// add takes one line that was read; seen says which keys it had.
func (w *wish) add(l wishLine, seen int) answer {
	if seen&hasSKU == 0 || !isSKU(l.sku) {
		return badSKU
	}
	if seen&hasQuantity == 0 || l.quantity < 1 || l.quantity > engine.MaxQuantity {
		return badQuantity
	}
	for i := range w.lines[:w.n] {
		if bytes.Equal(w.lines[i].sku, l.sku) {
			if w.lines[i].quantity += l.quantity; w.lines[i].quantity > engine.MaxQuantity {
				return badQuantity
			}
			return unanswered
		}
	}
	if w.n == len(w.lines) {
		return badLines
	}
	w.lines[w.n] = l
	w.n++
	return unanswered
}

func (p *parser) total(w *wish) {
	var seen int
	for more := p.open('{', '}'); more; more = p.next('}') {
		switch key := p.key(w); {
		case string(key) == "amount":
			p.once(&seen, hasAmount)
			w.amount = p.whole(badTotal)
		case string(key) == "currency":
			p.once(&seen, hasCurrency)
			w.currency = p.text(w, badTotal)
		default:
			p.fail(badField)
		}
	}
	if seen != hasAmount|hasCurrency || w.amount > engine.MaxAmount {
		p.fail(badTotal)
	}
}

// fail keeps the first fault and ends the reading.
func (p *parser) fail(a answer) {
	if p.fault == unanswered {
		p.fault = a
	}
}

func (p *parser) once(seen *int, key int) {
	if *seen&key != 0 {
		p.fail(badDuplicate)
	}
	*seen |= key
}

func (p *parser) space() {
	for len(p.b) > 0 && (p.b[0] == ' ' || p.b[0] == '\t' || p.b[0] == '\n' || p.b[0] == '\r') {
		p.b = p.b[1:]
	}
}

// take reads one byte, after white space.
func (p *parser) take(c byte) bool {
	p.space()
	if len(p.b) == 0 || p.b[0] != c {
		return false
	}
	p.b = p.b[1:]
	return true
}

// open reads the first byte of an object or array and tells whether anything is
// in it.
func (p *parser) open(first, last byte) bool {
	if p.fault != unanswered {
		return false
	}
	if !p.take(first) {
		p.fail(badBody)
		return false
	}
	return !p.take(last)
}

// next reads what stands between two members, or the end.
func (p *parser) next(last byte) bool {
	if p.fault != unanswered || p.take(last) {
		return false
	}
	if !p.take(',') {
		p.fail(badBody)
		return false
	}
	return true
}

// key reads a name and its colon. An unreadable one comes back nil, and kept as a
// fault: a caller that calls it unknown changes nothing.
func (p *parser) key(w *wish) []byte {
	k := p.text(w, badBody)
	if p.fault == unanswered && !p.take(':') {
		p.fail(badBody)
	}
	if p.fault != unanswered {
		return nil
	}
	return k
}

// text reads a string; other is the fault if something else stands there.
func (p *parser) text(w *wish, other answer) []byte {
	if p.fault != unanswered {
		return nil
	}
	if !p.take('"') {
		p.fail(other)
		return nil
	}
	for i, c := range p.b {
		switch {
		case c == '"':
			s := p.b[:i]
			p.b = p.b[i+1:]
			return s
		case c == '\\':
			return p.escaped(w, i)
		case c < ' ':
			p.fail(badBody)
			return nil
		}
	}
	p.fail(badBody)
	return nil
}

// whole reads a number of digits only.
func (p *parser) whole(other answer) int64 {
	if p.fault != unanswered {
		return 0
	}
	p.space()
	var n int64
	i := 0
	for i < len(p.b) && p.b[i] >= '0' && p.b[i] <= '9' {
		if i == maxNumberDigits {
			p.fail(other)
			return 0
		}
		n = n*10 + int64(p.b[i]-'0')
		i++
	}
	if i == 0 || (i > 1 && p.b[0] == '0') || (i < len(p.b) && (p.b[i] == '.' || p.b[i]|0x20 == 'e')) {
		p.fail(other)
		return 0
	}
	p.b = p.b[i:]
	return n
}

// escaped reads the rest of a string from its first backslash, at p.b[i]. Escapes
// of what no name has (control bytes, anything but ASCII) are a fault.
func (p *parser) escaped(w *wish, i int) []byte {
	start := len(w.scratch)
	w.scratch = append(w.scratch, p.b[:i]...)
	for i < len(p.b) {
		switch c := p.b[i]; {
		case c == '"':
			p.b = p.b[i+1:]
			return w.scratch[start:len(w.scratch):len(w.scratch)]
		case c < ' ':
			p.fail(badBody)
			return nil
		case c != '\\':
			w.scratch = append(w.scratch, c)
			i++
		default:
			c, n := unescape(p.b[i:])
			if n == 0 {
				p.fail(badBody)
				return nil
			}
			w.scratch = append(w.scratch, c)
			i += n
		}
	}
	p.fail(badBody)
	return nil
}

// unescape reads one escape of a printable ASCII byte and returns its length, or 0.
func unescape(b []byte) (c byte, n int) {
	if len(b) < 2 {
		return 0, 0
	}
	switch b[1] {
	case '"', '\\', '/':
		return b[1], 2
	case 'u':
		const length = len(`\u0041`)
		if len(b) < length || b[2] != '0' || b[3] != '0' {
			return 0, 0
		}
		hi, lo := hexDigit(b[4]), hexDigit(b[5])
		if hi < 2 || hi > 7 || lo > 15 {
			return 0, 0
		}
		return hi<<4 | lo, length
	}
	return 0, 0
}

func hexDigit(c byte) byte {
	switch {
	case c >= '0' && c <= '9':
		return c - '0'
	case c|0x20 >= 'a' && c|0x20 <= 'f':
		return c | 0x20 - 'a' + 10
	}
	return 255
}

// isSKU is engine.SKU.Validate without an error to make.
func isSKU(s []byte) bool {
	if len(s) == 0 || len(s) > engine.MaxSKULen {
		return false
	}
	for i, c := range s {
		switch {
		case c >= '0' && c <= '9', c|0x20 >= 'a' && c|0x20 <= 'z':
		case i > 0 && (c == '.' || c == '_' || c == '-'):
		default:
			return false
		}
	}
	return true
}
