package payment_test

import (
	"bytes"
	"strings"
	"testing"

	"github.com/doorbuster/doorbuster/engine"
	"github.com/doorbuster/doorbuster/engine/orders"
	"github.com/doorbuster/doorbuster/payment/provider"
	"github.com/doorbuster/doorbuster/stock"
)

// accept has the stock take n orders as a door does, and returns the envelope that
// lies in the outbox then.
func (r *site) accept(t testing.TB, from, n int) []byte {
	t.Helper()
	w, err := r.stock.Watch(t.Context(), r.sale, r.epoch)
	must(t, err)
	baskets := make([]engine.Basket, n)
	for i := range baskets {
		baskets[i] = order(from+i, r.epoch).Basket
	}
	var d stock.Decision
	must(t, r.stock.Reserve(t.Context(), r.sale, w.Grip, baskets, &d))
	for i := range d.Verdicts {
		if d.Verdicts[i].Outcome != engine.Accepted {
			t.Fatalf("basket %d: %v", i, d.Verdicts[i].Outcome)
		}
	}
	entries, _, err := r.stock.Outbox(t.Context(), r.sale, r.epoch, 1000)
	must(t, err)
	body := entries[len(entries)-1].Body
	must(t, r.stock.Mark(t.Context(), r.sale, r.epoch, []int64{d.First}))
	return body
}

// follow carries release rows to Redis, as recovery does, and returns the sale's one
// item then.
func (r *site) follow(t testing.TB) stock.Item {
	t.Helper()
	moves, err := r.orders.PendingMoves(t.Context(), r.sale, 5000)
	must(t, err)
	w, err := r.stock.Watch(t.Context(), r.sale, r.epoch)
	must(t, err)
	if len(moves) > 0 {
		taken, err := r.stock.Apply(t.Context(), r.sale, w.Grip, moves)
		must(t, err)
		rows := make([]orders.Moved, len(moves))
		for i := range moves {
			rows[i] = orders.Moved{ID: moves[i].ID, Taken: taken[i]}
		}
		_, _, err = r.orders.MarkMoved(t.Context(), r.sale, r.epoch, rows)
		must(t, err)
		w, err = r.stock.Watch(t.Context(), r.sale, r.epoch)
		must(t, err)
	}
	return w.Items[0]
}

// One envelope of ten orders with three bad lines: a quantity no door lets through
// (and that would overflow sums), a hold that cannot be read, and lines that cannot.
// The other seven are confirmed, and what the three held is back.
func TestRealBadLinesGiveTheirHoldsBack(t *testing.T) {
	t.Parallel()
	p := provider.NewInstant()
	r := newSite(t, "instant", p)
	body := r.accept(t, 1, 10)
	line := func(n int) []byte {
		for l := range bytes.SplitSeq(body, []byte("\n")) {
			if bytes.HasPrefix(l, []byte(orderID(n))) {
				return l
			}
		}
		t.Fatalf("no line of order %d in %q", n, body)
		return nil
	}
	for n, damage := range map[int][2]string{
		3: {"MUG*1*700", "MUG*9223372036854775807*700"},
		5: {"|1.5|", "|1.?|"},
		8: {"|MUG*1*700|", "|MUG**|"},
	} {
		old := line(n)
		body = bytes.Replace(body, old, bytes.Replace(old, []byte(damage[0]), []byte(damage[1]), 1), 1)
	}
	r.start(t)
	r.publish(t, [][]byte{body})
	f := r.atRest(t, 10)
	if f.confirmed != 7 || f.cancelled != 3 || f.rejected != 3 {
		t.Errorf("%+v", f)
	}
	r.lawSix(t, p, f)
	if it := r.follow(t); it.Held != 0 || it.Sold != 7 || it.Available != units-7 {
		t.Errorf("after the release rows: %+v", it)
	}
	rejected, err := r.orders.RejectedOf(t.Context(), r.sale, 10)
	must(t, err)
	for _, j := range rejected {
		if !strings.Contains(j.Cause, string(j.Order)) || len(j.Order) != engine.OrderIDLen {
			t.Errorf("rejected %+v", j)
		}
	}
}

// What is known of a bad line, by where it can be had from.
func TestBadLineKnownFrom(t *testing.T) {
	t.Parallel()
	held := func(n int, epoch int64) engine.Record {
		return engine.Record{State: engine.RecordHeld, Order: order(n, epoch)}
	}
	for name, c := range map[string]struct {
		damage [2]string
		record map[engine.OrderID]engine.Record
		fails  bool
		want   engine.Hold // zero: not known
		lines  bool
	}{
		"record of the same hold":  {[2]string{"MUG*1", "MUG*0"}, map[engine.OrderID]engine.Record{orderID(1): held(1, 1)}, false, engine.Hold{Epoch: 1, Seq: 1}, true},
		"record, hold unreadable":  {[2]string{"|1.1|", "|1.x|"}, map[engine.OrderID]engine.Record{orderID(1): held(1, 1)}, false, engine.Hold{Epoch: 1, Seq: 1}, true},
		"record of another hold":   {[2]string{"MUG*1", "MUG*0"}, map[engine.OrderID]engine.Record{orderID(1): held(1, 7)}, false, engine.Hold{Epoch: 1, Seq: 1}, false},
		"no record":                {[2]string{"MUG*1", "MUG*0"}, nil, false, engine.Hold{Epoch: 1, Seq: 1}, false},
		"Redis is down":            {[2]string{"MUG*1", "MUG*0"}, nil, true, engine.Hold{Epoch: 1, Seq: 1}, false},
		"nothing":                  {[2]string{"|1.1|", "|1.x|"}, nil, false, engine.Hold{}, false},
		"settled, hold unreadable": {[2]string{"|1.1|", "|1.x|"}, map[engine.OrderID]engine.Record{orderID(1): {State: engine.RecordSettled, Order: order(1, 1)}}, false, engine.Hold{}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			b.s.records = c.record
			if c.fails {
				b.s.before = func(string) error { return errDown }
			}
			b.q.publish([]byte(strings.Replace(string(envelope(1, 2, 1)), c.damage[0], c.damage[1], 1)))
			b.start(t)
			b.atRest(t, 1)
			b.h.until(t, "the reject", func() bool { return len(b.h.rejected) == 1 })
			b.stop()
			r := b.h.rejected[orderID(1)]
			switch {
			case c.want == engine.Hold{} && r.Known != nil:
				t.Errorf("known: %+v", r.Known)
			case c.want == engine.Hold{}:
			case r.Known == nil || r.Known.Hold != c.want || (len(r.Known.Lines) > 0) != c.lines:
				t.Errorf("known %+v, want hold %v, lines %v", r.Known, c.want, c.lines)
			}
		})
	}
}
