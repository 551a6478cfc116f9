package engine_test

import (
	"reflect"
	"strings"
	"testing"

	"github.com/doorbuster/doorbuster/engine"
)

func order(t testing.TB) engine.Order {
	t.Helper()
	key, err := engine.NewOrderKey([]byte(strings.Repeat("k", 32)), 1, "drop")
	if err != nil {
		t.Fatal(err)
	}
	lines := []engine.Line{{SKU: "MUG", Quantity: 2, Price: 1500}, {SKU: "CAP.red", Quantity: 1, Price: 900}}
	return engine.Order{
		Basket: engine.Basket{
			Order: key.ID("buyer-1", []byte("key-1")), Buyer: "buyer-1",
			Identities: []engine.Identity{{1, 2, 3}, {255}},
			Lines:      lines, Total: 3900, Body: engine.BodyHash(lines, 3900, "KRW"),
		},
		Hold: engine.Hold{Epoch: 3, Seq: 17}, AcceptedAt: 1_700_000_000_123, LimitBuyer: 2, LimitIdentity: 4,
	}
}

func TestRecordRoundTrip(t *testing.T) {
	o := order(t)
	for _, r := range []engine.Record{
		{State: engine.RecordHeld, Entry: 16, Order: o},
		{State: engine.RecordHeld, Order: o},
		{State: engine.RecordSettled, Finished: 1_700_000_100, Order: engine.Order{Basket: engine.Basket{Order: o.Order, Body: o.Body}, Hold: o.Hold}},
		{State: engine.RecordReleased, Finished: 1, Order: engine.Order{Basket: engine.Basket{Order: o.Order, Body: o.Body}, Hold: o.Hold}},
	} {
		b := engine.AppendRecord(nil, &r)
		got, err := engine.ParseRecord(o.Order, string(b))
		if err != nil {
			t.Fatalf("%s: %v", b, err)
		}
		if !reflect.DeepEqual(got, r) {
			t.Errorf("%s\n got %+v\nwant %+v", b, got, r)
		}
	}
}

func TestEnvelopeRoundTripAndBadLine(t *testing.T) {
	o := order(t)
	e := engine.Envelope{Sale: "drop", Orders: []engine.Order{o, o, o}}
	e.Orders[1].Identities = nil
	e.Orders[1].Lines = e.Orders[1].Lines[:1]
	b := engine.AppendEnvelope(nil, &e)
	got, bad, err := engine.ParseEnvelope(b)
	if err != nil || len(bad) != 0 || !reflect.DeepEqual(got, e) {
		t.Fatalf("got %+v, bad %v, err %v", got, bad, err)
	}
	lines := strings.Split(string(b), "\n")
	lines[2] = strings.Replace(lines[2], "MUG*2*", "MUG*x*", 1)
	got, bad, err = engine.ParseEnvelope([]byte(strings.Join(lines, "\n")))
	if err != nil || len(bad) != 1 || bad[0].Line != lines[2] || len(got.Orders) != 2 {
		t.Fatalf("one bad line: orders %d, bad %v, err %v", len(got.Orders), bad, err)
	}
}

// What no door lets through is not read as an order; a bad line says what could be
// read before the fault, and takes no other with it.
func TestBadLineKeepsWhatWasRead(t *testing.T) {
	t.Parallel()
	o := order(t)
	whole := string(engine.AppendEnvelope(nil, &engine.Envelope{Sale: "drop", Orders: []engine.Order{o, o}}))
	lines := string(engine.AppendLines(nil, o.Lines))
	for name, c := range map[string]struct {
		old, new   string
		hold, body bool
	}{
		"quantity above MaxQuantity": {lines, "MUG*1001*1", true, true},
		"quantity that overflows":    {lines, "MUG*9223372036854775807*1", true, true},
		"total above MaxAmount":      {lines, "MUG*1000*9223372036854775807", true, true},
		"no quantity":                {lines, "MUG**1", true, true},
		"no hold":                    {"|" + o.Hold.String() + "|", "|x|", false, false},
	} {
		e, bad, err := engine.ParseEnvelope([]byte(strings.Replace(whole, c.old, c.new, 1)))
		if err != nil || len(e.Orders) != 1 || len(bad) != 1 {
			t.Fatalf("%s: %d orders, %v, %v", name, len(e.Orders), bad, err)
		}
		r := bad[0].Read
		if r.Order != o.Order || (r.Hold == o.Hold) != c.hold || (r.Body == o.Body) != c.body {
			t.Errorf("%s: read %+v", name, r)
		}
	}
}

func TestParseEnvelopeRefuses(t *testing.T) {
	for _, s := range []string{"", "2E|drop\nx", "1E|DROP\nx", "1E|drop", "1E|\nx"} {
		if _, _, err := engine.ParseEnvelope([]byte(s)); err == nil {
			t.Errorf("%q: no error", s)
		}
	}
}

func FuzzParseEnvelope(f *testing.F) {
	o := order(f)
	f.Add(engine.AppendEnvelope(nil, &engine.Envelope{Sale: "drop", Orders: []engine.Order{o}}))
	f.Fuzz(func(t *testing.T, b []byte) {
		e, bad, err := engine.ParseEnvelope(b)
		if err != nil || len(e.Orders) == 0 || len(bad) > 0 {
			return
		}
		again, bad, err := engine.ParseEnvelope(engine.AppendEnvelope(nil, &e))
		if err != nil || len(bad) > 0 || !reflect.DeepEqual(again, e) {
			t.Fatalf("written again it reads differently: %v %v", bad, err)
		}
	})
}

func TestOrderIDIsStableAndSeparatesFields(t *testing.T) {
	key, _ := engine.NewOrderKey([]byte(strings.Repeat("k", 32)), 1, "drop")
	other, _ := engine.NewOrderKey([]byte(strings.Repeat("k", 32)), 1, "drop2")
	id := key.ID("ab", []byte("c"))
	if err := id.Validate(); err != nil {
		t.Fatal(err)
	}
	if id != key.ID("ab", []byte("c")) {
		t.Error("same input, another id")
	}
	if id == key.ID("a", []byte("bc")) || id == other.ID("ab", []byte("c")) {
		t.Error("other input, same id")
	}
	if _, err := engine.NewOrderKey([]byte("short"), 1, "drop"); err == nil {
		t.Error("short master key accepted")
	}
}

func TestBodyHashIgnoresOrderOfLines(t *testing.T) {
	a := []engine.Line{{SKU: "A", Quantity: 1, Price: 5}, {SKU: "B", Quantity: 2}}
	b := []engine.Line{{SKU: "B", Quantity: 2, Price: 9}, {SKU: "A", Quantity: 1}}
	h := engine.BodyHash(a, 10, "KRW")
	if h != engine.BodyHash(b, 10, "KRW") {
		t.Error("order of lines or prices changed the hash")
	}
	b[0].Quantity = 3
	if h == engine.BodyHash(b, 10, "KRW") || h == engine.BodyHash(a, 11, "KRW") || h == engine.BodyHash(a, 10, "USD") {
		t.Error("another body has the same hash")
	}
}

func TestTransitionTables(t *testing.T) {
	for from, next := range engine.NextOrderStates {
		if from.Terminal() != (from == engine.Confirmed || from == engine.Cancelled) {
			t.Errorf("%v: terminal %v", from, from.Terminal())
		}
		for _, to := range next {
			if !from.CanBecome(to) || to.CanBecome(from) {
				t.Errorf("%v -> %v: no way there, or a way back", from, to)
			}
		}
	}
	if engine.Reserved.CanBecome(engine.Confirmed) {
		t.Error("an order must be paying before it is confirmed")
	}
	for from, next := range engine.NextSaleStates {
		for _, to := range next {
			if _, known := engine.NextSaleStates[to]; !known || !from.CanBecome(to) {
				t.Errorf("%v -> %v: unknown state", from, to)
			}
		}
	}
}

func TestTotalBounds(t *testing.T) {
	if n, err := engine.Total([]engine.Line{{Quantity: 3, Price: 7}, {Quantity: 1, Price: 4}}); err != nil || n != 25 {
		t.Errorf("got %d, %v", n, err)
	}
	for _, l := range []engine.Line{{Quantity: -1, Price: 1}, {Quantity: 1, Price: -1}, {Quantity: 1 << 40, Price: 1 << 40}, {Quantity: 2, Price: engine.MaxAmount}} {
		if _, err := engine.Total([]engine.Line{l}); err == nil {
			t.Errorf("%+v: no error", l)
		}
	}
}
