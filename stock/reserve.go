package stock

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/doorbuster/doorbuster/engine"
)

// Verdict is what was decided about one basket.
type Verdict struct {
	Outcome engine.Outcome
	// Hold is set for baskets accepted, in this call or before.
	Hold engine.Hold
	// LimitBuyer is in force for a basket accepted or over a limit: the smaller of the sale's
	// limit and Basket.Max; of an order taken again, its own alone. LimitIdentity likewise. Units,
	// 0 is none.
	LimitBuyer, LimitIdentity int64
	// Record is what stands under the order id of a replay or mismatch.
	Record engine.Record
	// Unpublished says, of a replay that is still held, that the outbox entry
	// Record.Entry is still there: publish it again. If Record.Entry is
	// Decision.First, the order was taken in this very call (its id came twice)
	// and goes out with it.
	Unpublished bool
	// MayReturn says, of a basket sold out, that the missing units are held and
	// not yet sold.
	MayReturn bool
}

// Decision is what one call of Reserve decided. The zero value is ready; use one
// again and again to save its buffers. Not safe for concurrent use.
type Decision struct {
	At       int64     // Unix milliseconds by Redis' TIME
	First    int64     // first seq of the call, the id of its outbox entry; 0: nothing was accepted
	Verdicts []Verdict // one per basket, in order

	group group
}

// Reserve decides a group of 1 to engine.MaxGroup baskets in one call of
// reserve.lua and fills d. Baskets must be valid as engine's Validate methods say;
// prices in their lines come from the watch that gave g. An order id that comes
// twice is decided once.
//
// ErrFenced and ErrStale say that nothing was written. After any other error it
// is unknown whether units were taken: the same baskets may be sent again, and
// what was taken is found. ErrUnsafe, of a durable sale, comes with d filled in.
func (s *Store) Reserve(ctx context.Context, sale engine.SaleID, g Grip, baskets []engine.Basket, d *Decision) error {
	return s.reserve(ctx, &question{sale: sale, grip: g, baskets: baskets}, d)
}

// Retake is Reserve for orders that were accepted once before, in an epoch that
// is gone or before they lapsed: neither window, state, price nor the sale's limits
// of today count, while stock does, and the limits in force at their accept, which
// Basket.Max and Basket.MaxIdentity carry.
func (s *Store) Retake(ctx context.Context, sale engine.SaleID, g Grip, baskets []engine.Basket, d *Decision) error {
	return s.reserve(ctx, &question{sale: sale, grip: g, baskets: baskets, mode: modeRetake}, d)
}

const modeRetake = "retake"

// question is what one call of reserve.lua is asked.
type question struct {
	sale    engine.SaleID
	grip    Grip
	baskets []engine.Basket
	mode    string // "" or modeRetake
}

// limits are those that count for a basket, where buyer and identity are the sale's.
func (q *question) limits(b *engine.Basket, buyer, identity int64) (ofBuyer, ofIdentity int64) {
	if q.mode == modeRetake {
		return b.Max, b.MaxIdentity
	}
	return lower(buyer, b.Max), lower(identity, b.MaxIdentity)
}

func (s *Store) reserve(ctx context.Context, q *question, d *Decision) error {
	d.At, d.First, d.Verdicts = 0, 0, d.Verdicts[:0]
	if err := checkGroup(q.baskets); err != nil {
		return fmt.Errorf("reserve in sale %s: %w", q.sale, err)
	}
	reply, doubt, err := s.evalSafely(ctx, q, d.group.args(q))
	if err == nil {
		err = d.read(q, reply)
	}
	if err == nil && doubt != nil {
		err = fmt.Errorf("%w: %w", ErrUnsafe, doubt)
	}
	if err != nil {
		return fmt.Errorf("reserve %d baskets in sale %s: %w", len(q.baskets), q.sale, err)
	}
	return nil
}

// checkGroup keeps what would break a record, or the script after its first
// write, out of the call. The door has refused all of it long before.
func checkGroup(baskets []engine.Basket) error {
	if len(baskets) == 0 || len(baskets) > engine.MaxGroup {
		return fmt.Errorf("%d baskets, want 1 to %d", len(baskets), engine.MaxGroup)
	}
	for i := range baskets {
		b := &baskets[i]
		if len(b.Order) != engine.OrderIDLen || b.Buyer == "" || strings.ContainsAny(string(b.Buyer), "|\n") {
			return fmt.Errorf("order %q of buyer %q: bad id", b.Order, b.Buyer)
		}
		if len(b.Lines) == 0 || len(b.Lines) > engine.MaxLines || len(b.Identities) > engine.MaxIdentities {
			return fmt.Errorf("order %s: %d lines, %d identities", b.Order, len(b.Lines), len(b.Identities))
		}
		for j := range b.Lines {
			if q := b.Lines[j].Quantity; q < 1 || q > engine.MaxQuantity || b.Lines[j].SKU == "" {
				return fmt.Errorf("order %s: %d of sku %q", b.Order, q, b.Lines[j].SKU)
			}
		}
		if b.Total < 0 || b.Total > engine.MaxAmount || b.Max < 0 || b.MaxIdentity < 0 {
			return fmt.Errorf("order %s: total %d, max %d, %d", b.Order, b.Total, b.Max, b.MaxIdentity)
		}
	}
	return nil
}

// searchShapes is how many of the shapes found last are compared with a new
// basket. One that is not found is only sent once more.
const searchShapes = 32

// group builds the arguments of reserve.lua. All strings that are made on the way
// lie in one buffer that becomes one string; the arguments point to strings, so
// that none is boxed. A group of 256 costs a handful of allocations.
type group struct {
	buf    []byte
	ends   []int            // of the strings in buf, in order
	shapes []*engine.Basket // the first basket of each shape
	of     []int            // shape of each basket, from 0
	skus   []engine.SKU
	texts  []string // of all arguments
	cut    []string // of buf
	list   []any

	keys  keys
	sale  engine.SaleID
	epoch int64
}

func (a *group) args(q *question) []any {
	baskets := q.baskets
	if a.sale != q.sale || a.epoch != q.grip.Epoch {
		a.sale, a.epoch, a.keys = q.sale, q.grip.Epoch, keysOf(q.sale, q.grip.Epoch)
	}
	a.find(baskets)
	identities := a.write(q)
	made := a.strings()

	t := append(a.texts[:0], "", "", "5", a.keys.state, a.keys.records, a.keys.buyers, a.keys.identities, a.keys.outbox, argsFormat)
	t = append(t, made[0], made[1], made[2], q.mode, itoa(len(baskets)), itoa(len(a.skus)), itoa(len(a.shapes)), itoa(identities))
	made = made[3:]
	for _, sku := range a.skus {
		t = append(t, string(sku))
	}
	for _, b := range a.shapes {
		t = append(t, made[0], made[1], made[2], made[3], made[4], itoa(len(b.Lines)))
		made = made[5:]
		for i := range b.Lines {
			t = append(t, itoa(slices.Index(a.skus, b.Lines[i].SKU)+1), itoa(int(b.Lines[i].Quantity)))
		}
	}
	for i := range baskets {
		t = append(t, string(baskets[i].Order))
	}
	for i := range baskets {
		t = append(t, string(baskets[i].Buyer))
	}
	for _, shape := range a.of {
		t = append(t, itoa(shape+1))
	}
	a.texts = append(t, made...)
	a.list = a.list[:0]
	for i := range a.texts {
		a.list = append(a.list, &a.texts[i])
	}
	return a.list
}

// find sorts the baskets into shapes and collects the SKUs.
func (a *group) find(baskets []engine.Basket) {
	a.shapes, a.of, a.skus = a.shapes[:0], a.of[:0], a.skus[:0]
	for i := range baskets {
		b := &baskets[i]
		shape := len(a.shapes) - 1
		for last := max(0, len(a.shapes)-searchShapes); shape >= last && !alike(a.shapes[shape], b); {
			shape--
		}
		if shape < max(0, len(a.shapes)-searchShapes) {
			shape = len(a.shapes)
			a.shapes = append(a.shapes, b)
			for j := range b.Lines {
				if !slices.Contains(a.skus, b.Lines[j].SKU) {
					a.skus = append(a.skus, b.Lines[j].SKU)
				}
			}
		}
		a.of = append(a.of, shape)
	}
}

func alike(a, b *engine.Basket) bool {
	return a.Body == b.Body && a.Total == b.Total && a.Max == b.Max && a.MaxIdentity == b.MaxIdentity && a.ReplayOnly == b.ReplayOnly && slices.Equal(a.Lines, b.Lines)
}

// write writes the strings that have to be made, in the order in which args uses
// them, and returns the number of identities.
func (a *group) write(q *question) (identities int) {
	baskets := q.baskets
	a.buf, a.ends = a.buf[:0], a.ends[:0]
	a.buf = strconv.AppendInt(a.buf, q.grip.Version, 10)
	a.end()
	a.buf = append(append(a.buf, envelopeHead...), q.sale...)
	a.end()
	a.buf = strconv.AppendInt(a.buf, q.grip.Epoch, 10)
	a.end()
	for _, b := range a.shapes {
		a.buf = appendBody(a.buf, b.Body)
		a.end()
		a.buf = engine.AppendLines(a.buf, b.Lines)
		a.end()
		a.buf = strconv.AppendInt(a.buf, b.Total, 10)
		a.end()
		a.buf = strconv.AppendInt(a.buf, maxOf(b), 10)
		a.end()
		a.buf = strconv.AppendInt(a.buf, b.MaxIdentity, 10)
		a.end()
	}
	for i := range baskets {
		identities += len(baskets[i].Identities)
	}
	if identities == 0 {
		return 0
	}
	for i := range baskets {
		a.buf = engine.AppendIdentities(a.buf, baskets[i].Identities)
		a.end()
	}
	for i := range baskets {
		for j := range baskets[i].Identities {
			a.buf = append(a.buf, baskets[i].Identities[j][:]...)
			a.end()
		}
	}
	return identities
}

// envelopeHead is engine.EnvelopeHead without the sale.
var envelopeHead = engine.EnvelopeHead("")

func (a *group) end() { a.ends = append(a.ends, len(a.buf)) }

// strings turns the buffer into one string and cuts it. The pieces stand in the
// texts' own slice only until args has copied them.
func (a *group) strings() []string {
	all, from := string(a.buf), 0
	a.cut = a.cut[:0]
	for _, end := range a.ends {
		a.cut, from = append(a.cut, all[from:end]), end
	}
	return a.cut
}

func appendBody(dst []byte, body uint64) []byte {
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], body)
	return hex.AppendEncode(dst, b[:])
}

func itoa(n int) string { return strconv.Itoa(n) }

// Letters of reserve.lua beside engine's outcomes.
const (
	letterUnpublished = 'h' // engine.ReplayHeld, and the outbox entry is still there
	letterMayReturn   = 'o' // engine.SoldOut, and units are held
)

var errReply = errors.New("reply is not as reserve.lua writes it")

// read fills d from what reserve.lua returned.
func (d *Decision) read(q *question, reply any) error {
	baskets := q.baskets
	fields, ok := reply.([]any)
	if !ok || len(fields) < 5 {
		return errReply
	}
	var n [4]int64
	for i := range n {
		if n[i], ok = fields[i].(int64); !ok {
			return errReply
		}
	}
	letters, ok := fields[4].(string)
	if !ok || len(letters) != len(baskets) {
		return errReply
	}
	d.At, d.First = n[0], n[1]
	limitBuyer, limitIdentity, seq, records := n[2], n[3], n[1], fields[5:]
	for i := range baskets {
		v := Verdict{Outcome: engine.Outcome(letters[i])}
		switch letters[i] {
		case byte(engine.Accepted):
			v.Hold = engine.Hold{Epoch: q.grip.Epoch, Seq: seq}
			v.LimitBuyer, v.LimitIdentity = q.limits(&baskets[i], limitBuyer, limitIdentity)
			seq++
		case byte(engine.OverLimit), byte(engine.OverIdentity):
			v.LimitBuyer, v.LimitIdentity = q.limits(&baskets[i], limitBuyer, limitIdentity)
		case letterMayReturn:
			v.Outcome, v.MayReturn = engine.SoldOut, true
		case letterUnpublished:
			v.Outcome, v.Unpublished = engine.ReplayHeld, true
			fallthrough
		case byte(engine.ReplayHeld), byte(engine.ReplaySettled), byte(engine.ReplayReleased), byte(engine.Mismatch):
			if len(records) == 0 {
				return errReply
			}
			var err error
			text, _ := records[0].(string)
			if v.Record, err = engine.ParseRecord(baskets[i].Order, text); err != nil {
				return err
			}
			v.Hold, v.LimitBuyer, v.LimitIdentity = v.Record.Order.Hold, v.Record.Order.LimitBuyer, v.Record.Order.LimitIdentity
			records = records[1:]
		}
		d.Verdicts = append(d.Verdicts, v)
	}
	return nil
}

// lower is the lower of two limits, of which 0 is none.
func lower(a, b int64) int64 {
	if a == 0 || (b != 0 && b < a) {
		return b
	}
	return a
}

// maxOf is the bound as the script reads it: -1 asks for a repeat only.
func maxOf(b *engine.Basket) int64 {
	if b.ReplayOnly {
		return -1
	}
	return b.Max
}
