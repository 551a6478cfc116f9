package loadtest

import (
	"bytes"

	"github.com/doorbuster/doorbuster/engine"
)

// Class is what an answer means to a buyer. It has fewer values than there are
// problem types: those that call for the same next step share one.
type Class byte

// The classes.
const (
	Accepted   Class = iota // 202, a new order
	Replayed                // 202 or 200, the order he already had
	SoldOut                 // 409 sold-out
	Limited                 // 409 limit-reached, 429 throttled
	Early                   // 409 not-open, 403 ticket-early
	Overloaded              // 503 overloaded, paused, sale-frozen: nothing was taken
	Unknown                 // 503 outcome-unknown, or no answer: repeat and see
	Other                   // anything else, final
	Classes                 // how many there are
)

// String names the class as reports do.
func (c Class) String() string {
	names := [Classes]string{"accepted", "replayed", "sold-out", "limited", "early", "overloaded", "unknown", "other"}
	if c >= Classes {
		return "other"
	}
	return names[c]
}

// Verdict is an answer as read.
type Verdict struct {
	Class     Class
	Type      string // "accepted", "confirmed" or "cancelled" of an order, else the problem's slug; "" if neither
	Order     engine.OrderID
	Replayed  bool
	MayReturn bool // sold out, but units are held
}

// final tells whether the buyer now knows what became of this try.
func (v *Verdict) final() bool {
	return v.Class != Overloaded && v.Class != Unknown && v.Type != "throttled"
}

// problems are the types of the problems the API tells, with what each means to a buyer.
var problems = map[string]Class{
	"not-open": Early, "ticket-early": Early,
	"sold-out": SoldOut, "limit-reached": Limited, "throttled": Limited,
	"paused": Overloaded, "overloaded": Overloaded, "sale-frozen": Overloaded,
	"outcome-unknown": Unknown,
	"closed":          Other, "price-changed": Other, "order-pending": Other, "not-cancellable": Other,
	"idempotency-mismatch": Other, "invalid": Other, "ticket-invalid": Other, "not-found": Other,
}

var statuses = map[string]string{"accepted": "accepted", "confirmed": "confirmed", "cancelled": "cancelled"}

var slugs = func() map[string]string {
	m := make(map[string]string, len(problems))
	for s := range problems {
		m[s] = s
	}
	return m
}()

// classOf reads the class alone; it allocates nothing.
func classOf(status int, body []byte) Class {
	switch {
	case status == 202 || status == 200:
		if bytes.Contains(body, []byte(`"replayed":true`)) {
			return Replayed
		}
		if status == 202 {
			return Accepted
		}
		return Other
	case status >= 400:
		if c, ok := problems[string(slugOf(body))]; ok {
			return c
		}
	}
	if status >= 500 {
		return Unknown // an answer of whatever stands between: the door may have acted
	}
	return Other
}

// Judge reads an answer to POST /v1/sales/{id}/orders. It searches the body for
// the few fields it needs instead of parsing it: the generator shares its cores
// with the server.
func Judge(status int, body []byte) Verdict {
	v := Verdict{Class: classOf(status, body)}
	v.Order = engine.OrderID(field(body, `"order":"`))
	if v.Class == Accepted || v.Class == Replayed {
		v.Type = statuses[string(field(body, `"status":"`))]
		v.Replayed = v.Class == Replayed
		return v
	}
	v.Type = slugs[string(slugOf(body))]
	v.MayReturn = bytes.Contains(body, []byte(`"may_return":true`))
	return v
}

// slugOf returns the last segment of a problem's type URI.
func slugOf(body []byte) []byte {
	uri := field(body, `"type":"`)
	return uri[bytes.LastIndexByte(uri, '/')+1:]
}

// field returns the string that follows the first occurrence of open, which ends
// with the value's quote. The values looked for contain no escapes.
func field(body []byte, open string) []byte {
	i := bytes.Index(body, []byte(open))
	if i < 0 {
		return nil
	}
	rest := body[i+len(open):]
	end := bytes.IndexByte(rest, '"')
	if end < 0 {
		return nil
	}
	return rest[:end]
}
