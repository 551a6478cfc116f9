package engine

import (
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// How an order is written down. Three forms share one tail, so that a script
// makes all of them by putting strings one after another:
//
//	static  body|buyer|identities|lines|total
//	tail    epoch.seq|accepted|limitBuyer.limitIdentity|static
//
//	held record       1H|entry|tail        in Redis, under the order id
//	tombstone         1S|epoch.seq|body|finished   (1R if released)
//	envelope line     order|tail           in the outbox and in RabbitMQ
//
// body is 16 hex digits; identities are 16 hex digits each, joined by ','; a
// line is sku*quantity*price, lines are joined by ','; accepted is in Unix
// milliseconds, finished in Unix seconds; entry is the first sequence number of
// the group whose outbox entry carries the order, or '-' after a rebuild. The
// leading 1 is the format's number.
const recordFormat = '1'

// ErrFormat says that bytes are not of a format this version reads.
var ErrFormat = errors.New("unknown format")

// RecordState is the letter of a record in Redis.
type RecordState byte

// The states of a record.
const (
	RecordHeld     RecordState = 'H' // units held
	RecordSettled  RecordState = 'S' // sold
	RecordReleased RecordState = 'R' // given back
)

// Record is what Redis keeps of an order. Order.Order is not part of the bytes:
// it is the field under which they stand. A tombstone (state S or R) carries
// only Hold and Body of the order, and Finished.
type Record struct {
	State    RecordState
	Entry    int64 // first seq of its outbox entry; 0 is none
	Finished int64 // Unix seconds; tombstones only
	Order    Order
}

// BodyHash hashes what a request asks for: FNV-1a (64 bit) over the currency,
// the total and the lines in order of SKU. Lines must be merged; their order
// and prices do not matter.
func BodyHash(lines []Line, total int64, currency string) uint64 {
	var few [MaxLines]Line
	sorted := append(few[:0], lines...)
	slices.SortFunc(sorted, func(a, b Line) int { return strings.Compare(string(a.SKU), string(b.SKU)) })
	h := uint64(fnvOffset)
	h = fnvString(h, currency)
	h = fnvInt(h, total)
	for i := range sorted {
		h = fnvString(h, string(sorted[i].SKU))
		h = fnvInt(h, sorted[i].Quantity)
	}
	return h
}

const (
	fnvOffset = 14695981039346656037
	fnvPrime  = 1099511628211
)

func fnvString(h uint64, s string) uint64 {
	for i := range len(s) {
		h = (h ^ uint64(s[i])) * fnvPrime
	}
	return h * fnvPrime // ends the field: no byte of a name is 0
}

func fnvInt(h uint64, n int64) uint64 {
	for range 8 {
		h = (h ^ uint64(n&0xff)) * fnvPrime
		n >>= 8
	}
	return h
}

// AppendStatic appends the part of the tail that is known before the accept.
func AppendStatic(dst []byte, b *Basket) []byte {
	dst = appendHex(dst, b.Body)
	dst = append(dst, '|')
	dst = append(dst, b.Buyer...)
	dst = append(dst, '|')
	dst = AppendIdentities(dst, b.Identities)
	dst = append(dst, '|')
	dst = AppendLines(dst, b.Lines)
	dst = append(dst, '|')
	return strconv.AppendInt(dst, b.Total, 10)
}

// AppendTail appends the tail of an accepted order.
func AppendTail(dst []byte, o *Order) []byte {
	dst = appendHold(dst, o.Hold)
	dst = append(dst, '|')
	dst = strconv.AppendInt(dst, o.AcceptedAt, 10)
	dst = append(dst, '|')
	dst = strconv.AppendInt(dst, o.LimitBuyer, 10)
	dst = append(dst, '.')
	dst = strconv.AppendInt(dst, o.LimitIdentity, 10)
	dst = append(dst, '|')
	return AppendStatic(dst, &o.Basket)
}

// AppendRecord appends the record as Redis keeps it.
func AppendRecord(dst []byte, r *Record) []byte {
	dst = append(dst, recordFormat, byte(r.State), '|')
	if r.State != RecordHeld {
		dst = appendHold(dst, r.Order.Hold)
		dst = append(dst, '|')
		dst = appendHex(dst, r.Order.Body)
		dst = append(dst, '|')
		return strconv.AppendInt(dst, r.Finished, 10)
	}
	if r.Entry == 0 {
		dst = append(dst, '-')
	} else {
		dst = strconv.AppendInt(dst, r.Entry, 10)
	}
	dst = append(dst, '|')
	return AppendTail(dst, &r.Order)
}

// ParseRecord reads what AppendRecord writes; id is the field it stood under.
func ParseRecord(id OrderID, s string) (Record, error) {
	if len(s) < 3 || s[0] != recordFormat || s[2] != '|' {
		return Record{}, fmt.Errorf("record of order %s: %w", id, ErrFormat)
	}
	r := Record{State: RecordState(s[1])}
	r.Order.Order = id
	rest := s[3:]
	var err error
	switch r.State {
	case RecordHeld:
		entry, tail, _ := strings.Cut(rest, "|")
		if entry != "-" {
			if r.Entry, err = strconv.ParseInt(entry, 10, 64); err != nil {
				return Record{}, fmt.Errorf("record of order %s: entry %q", id, entry)
			}
		}
		err = parseTail(&r.Order, tail)
	case RecordSettled, RecordReleased:
		err = parseTombstone(&r, rest)
	default:
		err = ErrFormat
	}
	if err != nil {
		return Record{}, fmt.Errorf("record of order %s: %w", id, err)
	}
	return r, nil
}

func parseTombstone(r *Record, s string) (err error) {
	f := strings.Split(s, "|")
	if len(f) != 3 {
		return fmt.Errorf("tombstone has %d fields, want 3", len(f))
	}
	if r.Order.Hold, err = ParseHold(f[0]); err != nil {
		return err
	}
	if r.Order.Body, err = strconv.ParseUint(f[1], 16, 64); err != nil {
		return fmt.Errorf("body hash %q", f[1])
	}
	if r.Finished, err = strconv.ParseInt(f[2], 10, 64); err != nil {
		return fmt.Errorf("finished %q", f[2])
	}
	return nil
}

const tailFields = 8

func parseTail(o *Order, s string) (err error) {
	var f [tailFields]string
	for i := range tailFields - 1 {
		var ok bool
		if f[i], s, ok = strings.Cut(s, "|"); !ok {
			return fmt.Errorf("order has %d fields, want %d", i+1, tailFields)
		}
	}
	f[tailFields-1] = s
	if o.Hold, err = ParseHold(f[0]); err != nil {
		return err
	}
	if o.AcceptedAt, err = parseCount(f[1]); err != nil {
		return fmt.Errorf("accepted: %w", err)
	}
	buyer, identity, _ := strings.Cut(f[2], ".")
	if o.LimitBuyer, err = parseCount(buyer); err != nil {
		return fmt.Errorf("limit per buyer: %w", err)
	}
	if o.LimitIdentity, err = parseCount(identity); err != nil {
		return fmt.Errorf("limit per identity: %w", err)
	}
	if o.Body, err = strconv.ParseUint(f[3], 16, 64); err != nil {
		return fmt.Errorf("body hash %q", f[3])
	}
	if o.Buyer = BuyerID(f[4]); o.Buyer.Validate() != nil {
		return o.Buyer.Validate()
	}
	if o.Identities, err = ParseIdentities(f[5]); err != nil {
		return err
	}
	if o.Lines, err = ParseLines(f[6]); err != nil {
		return err
	}
	if err := checkOrdered(o.Lines); err != nil {
		return err
	}
	if o.Total, err = parseCount(f[7]); err != nil {
		return fmt.Errorf("total: %w", err)
	}
	return nil
}

// checkOrdered bounds what an order may ask for: no door lets more through, and sums
// over orders cannot overflow. (A restock, whose lines are read by ParseLines alone,
// may be larger.)
func checkOrdered(lines []Line) error {
	for _, l := range lines {
		if l.Quantity > MaxQuantity {
			return fmt.Errorf("%d units of sku %s in one order, at most %d", l.Quantity, l.SKU, MaxQuantity)
		}
	}
	if _, err := Total(lines); err != nil {
		return fmt.Errorf("total of the lines: %w", err)
	}
	return nil
}

// AppendLines appends lines in their written form, sku*quantity*price joined by
// ','. PostgreSQL keeps the same form.
func AppendLines(dst []byte, lines []Line) []byte {
	for i := range lines {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(dst, lines[i].SKU...)
		dst = append(dst, '*')
		dst = strconv.AppendInt(dst, lines[i].Quantity, 10)
		dst = append(dst, '*')
		dst = strconv.AppendInt(dst, lines[i].Price, 10)
	}
	return dst
}

// ParseLines reads what AppendLines writes: 1 to MaxLines lines, no SKU twice.
func ParseLines(s string) ([]Line, error) {
	lines := make([]Line, 0, 1)
	for part := range strings.SplitSeq(s, ",") {
		sku, rest, _ := strings.Cut(part, "*")
		quantity, price, _ := strings.Cut(rest, "*")
		l := Line{SKU: SKU(sku)}
		if err := l.SKU.Validate(); err != nil {
			return nil, err
		}
		var err error
		if l.Quantity, err = parseCount(quantity); err != nil || l.Quantity == 0 {
			return nil, fmt.Errorf("line %q: quantity", part)
		}
		if l.Price, err = parseCount(price); err != nil {
			return nil, fmt.Errorf("line %q: price", part)
		}
		for i := range lines {
			if lines[i].SKU == l.SKU {
				return nil, fmt.Errorf("lines %q: sku %s twice", s, l.SKU)
			}
		}
		if lines = append(lines, l); len(lines) > MaxLines {
			return nil, fmt.Errorf("lines %q: more than %d", s, MaxLines)
		}
	}
	return lines, nil
}

// AppendIdentities appends identities in their written form, 16 hex digits each
// joined by ','.
func AppendIdentities(dst []byte, ids []Identity) []byte {
	for i := range ids {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = hex.AppendEncode(dst, ids[i][:])
	}
	return dst
}

// ParseIdentities reads what AppendIdentities writes.
func ParseIdentities(s string) ([]Identity, error) {
	if s == "" {
		return nil, nil
	}
	ids := make([]Identity, 0, MaxIdentities)
	for part := range strings.SplitSeq(s, ",") {
		var id Identity
		if n, err := hex.Decode(id[:], []byte(part[:min(len(part), 16)])); err != nil || n != len(id) || len(part) != 16 {
			return nil, fmt.Errorf("identity %q: want 16 hex digits", part)
		}
		if ids = append(ids, id); len(ids) > MaxIdentities {
			return nil, fmt.Errorf("identities %q: more than %d", s, MaxIdentities)
		}
	}
	return ids, nil
}

func appendHold(dst []byte, h Hold) []byte {
	dst = strconv.AppendInt(dst, h.Epoch, 10)
	dst = append(dst, '.')
	return strconv.AppendInt(dst, h.Seq, 10)
}

func appendHex(dst []byte, n uint64) []byte {
	const digits = "0123456789abcdef"
	for shift := 60; shift >= 0; shift -= 4 {
		dst = append(dst, digits[n>>uint(shift)&15])
	}
	return dst
}

func parseCount(s string) (int64, error) {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 0 {
		return 0, fmt.Errorf("%q is not a count", s)
	}
	return n, nil
}
