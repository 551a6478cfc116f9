package engine

import (
	"fmt"
	"strings"
)

// MaxGroup is the most baskets that one script call decides, and so the most
// orders in an envelope.
const MaxGroup = 256

// Envelope is what one script call accepted: one outbox entry, one message, one
// ingest transaction. Its bytes are a head line and a line per order:
//
//	1E|sale
//	order|tail
//	…
//
// joined by '\n' (see Record for the tail).
type Envelope struct {
	Sale   SaleID
	Orders []Order
}

// EnvelopeHead is the first line of a sale's envelopes, without the line break.
func EnvelopeHead(sale SaleID) string { return "1E|" + string(sale) }

// AppendEnvelope appends the envelope's bytes.
func AppendEnvelope(dst []byte, e *Envelope) []byte {
	dst = append(dst, "1E|"...)
	dst = append(dst, e.Sale...)
	for i := range e.Orders {
		dst = append(dst, '\n')
		dst = append(dst, e.Orders[i].Order...)
		dst = append(dst, '|')
		dst = AppendTail(dst, &e.Orders[i])
	}
	return dst
}

// BadLine is an order of an envelope that could not be read.
type BadLine struct {
	Line  string // its bytes
	Cause error
	// Read is what could be read of it before the fault, field by field: the zero
	// value of Order.Order, Hold or Body means that it could not.
	Read Order
}

// ParseEnvelope reads what AppendEnvelope writes. A line that cannot be read
// does not take the others with it: it is returned among the bad ones. The
// error is for a message whose head is wrong, of which nothing can be used.
func ParseEnvelope(body []byte) (Envelope, []BadLine, error) {
	head, rest, _ := strings.Cut(string(body), "\n")
	sale, ok := strings.CutPrefix(head, "1E|")
	if !ok {
		return Envelope{}, nil, fmt.Errorf("envelope: %w", ErrFormat)
	}
	e := Envelope{Sale: SaleID(sale)}
	if err := e.Sale.Validate(); err != nil {
		return Envelope{}, nil, fmt.Errorf("envelope: %w", err)
	}
	if rest == "" {
		return Envelope{}, nil, fmt.Errorf("envelope of sale %s: no orders", sale)
	}
	e.Orders = make([]Order, 0, strings.Count(rest, "\n")+1)
	var bad []BadLine
	for line := range strings.SplitSeq(rest, "\n") {
		o, err := parseLine(line)
		if err != nil {
			bad = append(bad, BadLine{Line: line, Cause: err, Read: o})
			continue
		}
		e.Orders = append(e.Orders, o)
	}
	return e, bad, nil
}

// parseLine returns, with an error, what it read before.
func parseLine(line string) (Order, error) {
	id, tail, _ := strings.Cut(line, "|")
	var o Order
	o.Order = OrderID(id)
	if err := o.Order.Validate(); err != nil {
		return Order{}, err
	}
	if err := parseTail(&o, tail); err != nil {
		return o, fmt.Errorf("order %s: %w", id, err)
	}
	return o, nil
}
