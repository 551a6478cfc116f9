package control_test

import (
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/doorbuster/doorbuster/engine"
	"github.com/doorbuster/doorbuster/engine/control"
)

var now = time.Date(2026, 11, 20, 0, 0, 0, 123_456_789, time.UTC)

const good = `# a drop
id: mug-drop
name: The mug
mode: durable
payment: checkout
provider: sandbox
currency: KRW
opens: 2026-11-20T10:00:00.250+09:00
closes: 2026-11-20T12:00:00+09:00
limit_per_buyer: 2
limit_per_identity: 4
hold: 5m
replay_window: 48h
items:
  - sku: MUG
    name: "머그"
    price: 15_000
    units: 5000
  - {sku: CAP.red, price: 900, units: 1}
`

func TestParseSale(t *testing.T) {
	t.Parallel()
	got, err := control.ParseSaleAt("sale.yaml", []byte(good), now)
	if err != nil {
		t.Fatal(err)
	}
	want := engine.Sale{
		ID: "mug-drop", Name: "The mug", State: engine.SaleScheduled, Version: 1, Mode: engine.ModeDurable,
		Payment: engine.PayCheckout, Provider: "sandbox", Currency: "KRW",
		Opens: time.Date(2026, 11, 20, 1, 0, 0, 250_000_000, time.UTC), Closes: time.Date(2026, 11, 20, 3, 0, 0, 0, time.UTC),
		LimitPerBuyer: 2, LimitPerIdentity: 4, HoldFor: 5 * time.Minute, ReplayWindow: 48 * time.Hour,
		Items: []engine.Item{{SKU: "MUG", Name: "머그", Price: 15000, Units: 5000}, {SKU: "CAP.red", Price: 900, Units: 1}},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

const least = `id: d
provider: instant
currency: KRW
opens: +5s
closes: +10m
items: [{sku: A, price: 1, units: 1}]
`

func TestParseSaleDefaultsAndRelativeTimes(t *testing.T) {
	t.Parallel()
	s, err := control.ParseSaleAt("sale.yaml", []byte(least), now)
	if err != nil {
		t.Fatal(err)
	}
	if s.Mode != engine.ModeStandard || s.Payment != engine.PayAtOrder || s.HoldFor != engine.DefaultHoldFor || s.ReplayWindow != engine.DefaultReplay {
		t.Errorf("defaults: %+v", s)
	}
	opens := now.Truncate(time.Millisecond).Add(5 * time.Second)
	if !s.Opens.Equal(opens) || !s.Closes.Equal(opens.Add(10*time.Minute)) {
		t.Errorf("opens %s, closes %s", s.Opens, s.Closes)
	}
}

// Each change of the good file, and the faults it must be told, as line: field.
func TestParseSaleFaults(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		old, new string
		want     []string // "line: field: some of the words"
	}{
		"close before open":   {"closes: 2026-11-20T12", "closes: 2026-11-20T09", []string{"9: closes: not after opens"}},
		"closes over":         {"opens: 2026-11-20T10:00:00.250+09:00\ncloses: 2026-11-20T12", "opens: 2026-11-19T10:00:00Z\ncloses: 2026-11-19T22", []string{"9: closes: is over"}},
		"price, no currency":  {"currency: KRW\n", "", []string{"16: currency: a price needs its currency"}},
		"small currency":      {"KRW", "krw", []string{"7: currency: three capitals"}},
		"no units":            {"    units: 5000\n", "", []string{"15: items[0].units: missing"}},
		"units 0":             {"units: 5000", "units: 0", []string{"18: items[0].units: want 1 to"}},
		"units -1":            {"units: 5000", "units: -1", []string{"18: items[0].units: want 1 to"}},
		"units 10^19":         {"units: 5000", "units: 10000000000000000000", []string{"18: items[0].units: not a whole number"}},
		"price fraction":      {"15_000", "150.50", []string{"17: items[0].price: fraction"}},
		"price 1.0":           {"15_000", "15.0", []string{"17: items[0].price: fraction"}},
		"price word":          {"15_000", "cheap", []string{"17: items[0].price: not a whole number"}},
		"price null":          {"15_000", "", []string{"17: items[0].price: want one value"}},
		"limit fraction":      {"limit_per_buyer: 2", "limit_per_buyer: 1.5", []string{"10: limit_per_buyer: fraction"}},
		"no zone":             {"T12:00:00+09:00", "T12:00:00", []string{"9: closes: no zone"}},
		"bad time":            {"2026-11-20T12:00:00+09:00", "noon", []string{"9: closes: is no time"}},
		"too fine":            {"00.250+", "00.2501+", []string{"8: opens: finer"}},
		"bad relative":        {"closes: 2026-11-20T12:00:00+09:00", "closes: +soon", []string{"9: closes: as in +5s"}},
		"duplicate sku":       {"CAP.red", "MUG", []string{"19: items[1].sku: line 15 already"}},
		"bad sku":             {"CAP.red", "CAP|red", []string{"19: items[1].sku: not allowed"}},
		"bad id":              {"mug-drop", "Mug", []string{"2: id: is not a-z"}},
		"no id":               {"id: mug-drop\n", "", []string{"2: id: missing"}},
		"unknown key":         {"mode:", "mood:", []string{"4: mood: unknown field"}},
		"unknown item key":    {"price: 900", "cost: 900", []string{"19: items[1].cost: unknown", "19: items[1].price: missing"}},
		"key twice":           {"name: The mug", "id: other", []string{"3: id: line 2 already"}},
		"bad mode":            {"durable", "eternal", []string{"4: mode: standard or durable"}},
		"bad payment":         {"checkout", "never", []string{"5: payment: at-order or checkout"}},
		"no provider":         {"provider: sandbox\n", "", []string{"2: provider: missing"}},
		"bad hold":            {"hold: 5m", "hold: 5", []string{"12: hold: length of time"}},
		"long hold":           {"hold: 5m", "hold: 9999h", []string{"12: hold: want 1s to"}},
		"negative replay":     {"48h", "-1h", []string{"13: replay_window: want 0s"}},
		"items no list":       {good[strings.Index(good, "items:"):], "items: MUG\n", []string{"14: items: a list"}},
		"no items":            {good[strings.Index(good, "items:"):], "", []string{"2: items: missing"}},
		"empty items":         {good[strings.Index(good, "items:"):], "items: []\n", []string{"14: items: 0 items"}},
		"item no mapping":     {"{sku: CAP.red, price: 900, units: 1}", "CAP", []string{"19: items[1]: want fields"}},
		"alias":               {"name: The mug", "name: &n x\nmode: *n", []string{"4: mode: want one value", "5: mode: line 4 already"}},
		"control characters":  {"The mug", `"a\u0007b"`, []string{"3: name: control"}},
		"two documents":       {"items:", "---\nid: x\n", []string{"0: : "}},
		"broken yaml":         {"name: The mug", "name: [", []string{"0: : "}},
		"several, all at one": {"mode: durable\npayment: checkout", "mode: x\npayment: y", []string{"4: mode: want", "5: payment: want"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			text := strings.Replace(good, c.old, c.new, 1)
			if text == good {
				t.Fatalf("%q is not in the file", c.old)
			}
			_, err := control.ParseSaleAt("sale.yaml", []byte(text), now)
			checkFaults(t, err, c.want)
		})
	}
}

func checkFaults(t *testing.T, err error, want []string) {
	t.Helper()
	var fe *control.FileError
	if !errors.As(err, &fe) {
		t.Fatalf("got %v, want a FileError", err)
	}
	if want[0] == "0: : " { // only that it is refused, wherever
		return
	}
	lines := strings.Split(err.Error(), "\n")
	if len(lines) != len(want) {
		t.Fatalf("got\n%v\nwant %d faults: %q", err, len(want), want)
	}
	for i, w := range want {
		f := strings.SplitN(w, ": ", 3)
		if !strings.HasPrefix(lines[i], "sale.yaml:"+f[0]+": "+f[1]+": ") || !strings.Contains(lines[i], f[2]) {
			t.Errorf("got  %s\nwant %s", lines[i], w)
		}
	}
}

func TestParseSaleRefusesOddFiles(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{
		"empty": "", "only a comment": "# nothing\n", "a list": "- a\n- b\n", "a word": "sale", "a tab": "id:\tx\n\ty: z",
		"too long": "id: x\n#" + strings.Repeat("x", control.MaxFileBytes), "broken UTF-8": "id: \xff\xfe", "an alias": "*x",
		"null": "~", "merge": "<<: {id: x}\n",
	} {
		if _, err := control.ParseSaleAt("f", []byte(text), now); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func FuzzParseSale(f *testing.F) {
	f.Add([]byte(good))
	f.Add([]byte(least))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := control.ParseSaleAt("f", b, now)
		if err != nil {
			return
		}
		if s.ID.Validate() != nil || !s.Closes.After(s.Opens) || len(s.Items) == 0 || engine.ValidateCurrency(s.Currency) != nil {
			t.Fatalf("accepted %+v", s)
		}
	})
}
