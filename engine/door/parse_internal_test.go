package door

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/doorbuster/doorbuster/engine"
)

var errStrict = errors.New("refused")

// reference reads a body with encoding/json's tokens and the rules written out.
func reference(body []byte) (lines map[string]int64, amount int64, currency string, err error) {
	d := json.NewDecoder(bytes.NewReader(body))
	d.UseNumber()
	v, err := value(d)
	if err != nil {
		return nil, 0, "", err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, 0, "", errStrict
	}
	top, ok := v.(map[string]any)
	list, ok1 := top["lines"].([]any)
	total, ok2 := top["total"].(map[string]any)
	if !ok || !ok1 || !ok2 || len(top) != 2 || len(total) != 2 || len(list) == 0 {
		return nil, 0, "", errStrict
	}
	lines = map[string]int64{}
	for _, l := range list {
		line, ok := l.(map[string]any)
		sku, ok1 := line["sku"].(string)
		n, ok2 := whole(line["quantity"])
		if !ok || !ok1 || !ok2 || len(line) != 2 || engine.SKU(sku).Validate() != nil || n < 1 {
			return nil, 0, "", errStrict
		}
		if lines[sku] += n; lines[sku] > engine.MaxQuantity || len(lines) > engine.MaxLines {
			return nil, 0, "", errStrict
		}
	}
	amount, ok1 = whole(total["amount"])
	currency, ok2 = total["currency"].(string)
	if !ok1 || !ok2 || amount > engine.MaxAmount || engine.ValidateCurrency(currency) != nil {
		return nil, 0, "", errStrict
	}
	return lines, amount, currency, nil
}

func whole(v any) (int64, bool) {
	n, ok := v.(json.Number)
	if !ok || strings.ContainsAny(n.String(), "-.eE") {
		return 0, false
	}
	i, err := strconv.ParseInt(n.String(), 10, 64)
	return i, err == nil
}

// value reads one value, refusing keys that come twice.
func value(d *json.Decoder) (any, error) {
	t, err := d.Token()
	if err != nil {
		return nil, err
	}
	switch t {
	case json.Delim('{'):
		m := map[string]any{}
		for d.More() {
			key, err := d.Token()
			if err != nil {
				return nil, err
			}
			if _, twice := m[key.(string)]; twice {
				return nil, errStrict
			}
			if m[key.(string)], err = value(d); err != nil {
				return nil, err
			}
		}
		_, err = d.Token()
		return m, err
	case json.Delim('['):
		l := []any{}
		for d.More() {
			v, err := value(d)
			if err != nil {
				return nil, err
			}
			l = append(l, v)
		}
		_, err = d.Token()
		return l, err
	}
	return t, nil
}

func compare(t *testing.T, body []byte) {
	t.Helper()
	var w wish
	fault := w.parse(body)
	if fault == unanswered && engine.ValidateCurrency(string(w.currency)) != nil {
		fault = badCurrency // the handler compares it with the sale's
	}
	lines, amount, currency, err := reference(body)
	if (err == nil) != (fault == unanswered) {
		t.Fatalf("%q: encoding/json says %v, the door %q", body, err, problems[fault].detail)
	}
	if err != nil {
		return
	}
	if !utf8.Valid(body) {
		t.Fatalf("%q: broken UTF-8 accepted", body)
	}
	got := map[string]int64{}
	for _, l := range w.lines[:w.n] {
		got[string(l.sku)] = l.quantity
	}
	if !maps.Equal(got, lines) || w.amount != amount || string(w.currency) != currency {
		t.Fatalf("%q: got %v %d %s, want %v %d %s", body, got, w.amount, w.currency, lines, amount, currency)
	}
}

var bodies = []string{
	`{"lines":[{"sku":"MUG","quantity":1}],"total":{"amount":1500,"currency":"KRW"}}`,
	`{"total":{"currency":"KRW","amount":0},"lines":[{"quantity":1000,"sku":"a"},{"sku":"b.c_d-e","quantity":2}]}`,
	" \t\r\n{ \"lines\" : [ { \"sku\" : \"MUG\" , \"quantity\" : 1 } ] , \"total\" : { \"amount\" : 1 , \"currency\" : \"USD\" } } \n",
	`{"lines":[{"sku":"\u004dU\u0047","quantity":1}],"total":{"amount":1,"currency":"K\u0052W"}}`,
	`{"l\u0069nes":[{"sku":"A\/","quantity":1}],"total":{"amount":1,"currency":"KRW"}}`,
	`{"lines":[{"sku":"MUG","quantity":999},{"sku":"MUG","quantity":1}],"total":{"amount":1,"currency":"KRW"}}`,
	`{"lines":[{"sku":"MUG","quantity":999},{"sku":"MUG","quantity":2}],"total":{"amount":1,"currency":"KRW"}}`,
	`{"lines":[{"sku":"MUG","quantity":1}],"total":{"amount":1000000000000,"currency":"KRW"}}`,
	`{"lines":[{"sku":"MUG","quantity":1}],"total":{"amount":1000000000001,"currency":"KRW"}}`,
	`{"lines":[{"sku":"MUG","quantity":1}],"total":{"amount":99999999999999999999999,"currency":"KRW"}}`,
	`{"lines":[{"sku":"MUG","quantity":01}],"total":{"amount":1,"currency":"KRW"}}`,
	`{"lines":[{"sku":"MUG","quantity":0}],"total":{"amount":1,"currency":"KRW"}}`,
	`{"lines":[{"sku":"MUG","quantity":-1}],"total":{"amount":1,"currency":"KRW"}}`,
	`{"lines":[{"sku":"MUG","quantity":-0}],"total":{"amount":1,"currency":"KRW"}}`,
	`{"lines":[{"sku":"MUG","quantity":1.0}],"total":{"amount":1,"currency":"KRW"}}`,
	`{"lines":[{"sku":"MUG","quantity":1e1}],"total":{"amount":1,"currency":"KRW"}}`,
	`{"lines":[{"sku":"MUG","quantity":1E1}],"total":{"amount":1,"currency":"KRW"}}`,
	`{"lines":[{"sku":"MUG","quantity":"1"}],"total":{"amount":1,"currency":"KRW"}}`,
	`{"lines":[{"sku":"MUG","quantity":null}],"total":{"amount":1,"currency":"KRW"}}`,
	`{"lines":[{"sku":1,"quantity":1}],"total":{"amount":1,"currency":"KRW"}}`,
	`{"lines":[{"sku":"MUG"}],"total":{"amount":1,"currency":"KRW"}}`,
	`{"lines":[{"quantity":1}],"total":{"amount":1,"currency":"KRW"}}`,
	`{"lines":[{}],"total":{"amount":1,"currency":"KRW"}}`,
	`{"lines":[],"total":{"amount":1,"currency":"KRW"}}`,
	`{"lines":{},"total":{"amount":1,"currency":"KRW"}}`,
	`{"lines":[{"sku":"MUG","quantity":1}],"total":{}}`,
	`{"lines":[{"sku":"MUG","quantity":1}]}`, `{"total":{"amount":1,"currency":"KRW"}}`, `{}`, `[]`, `null`, ``, `{`, `"`, `{"`, `{"lines"`, `{"lines":`,
	`{"lines":[{"sku":"MUG","quantity":1}],"lines":[{"sku":"MUG","quantity":1}],"total":{"amount":1,"currency":"KRW"}}`,
	`{"lines":[{"sku":"MUG","sku":"MUG","quantity":1}],"total":{"amount":1,"currency":"KRW"}}`,
	`{"lines":[{"sku":"MUG","quantity":1}],"total":{"amount":1,"amount":1,"currency":"KRW"}}`,
	`{"lines":[{"sku":"MUG","quantity":1}],"total":{"amount":1,"currency":"KRW"},"gift":1}`,
	`{"Lines":[{"sku":"MUG","quantity":1}],"total":{"amount":1,"currency":"KRW"}}`,
	`{"lines":[{"sku":"MUG","quantity":1},],"total":{"amount":1,"currency":"KRW"}}`,
	`{"lines":[{"sku":"MUG","quantity":1}],"total":{"amount":1,"currency":"KRW"},}`,
	`{"lines":[{"sku":"MUG","quantity":1}],"total":{"amount":1,"currency":"KRW"}}{}`,
	`{"lines":[{"sku":"MUG","quantity":1}],"total":{"amount":1,"currency":"KRW"}} x`,
	`{"lines":[{"sku":"MUG","quantity":1 1}],"total":{"amount":1,"currency":"KRW"}}`,
	`{"lines":[{"sku":"M G","quantity":1}],"total":{"amount":1,"currency":"KRW"}}`,
	`{"lines":[{"sku":".MUG","quantity":1}],"total":{"amount":1,"currency":"KRW"}}`,
	"{\"lines\":[{\"sku\":\"M\xff\",\"quantity\":1}],\"total\":{\"amount\":1,\"currency\":\"KRW\"}}",
	"{\"lines\":[{\"sku\":\"MUG\",\"quantity\":1}],\"total\":{\"amount\":1,\"currency\":\"KRW\"}}\xff",
	"{\"lines\":[{\"sku\":\"M\nG\",\"quantity\":1}],\"total\":{\"amount\":1,\"currency\":\"KRW\"}}",
	"\ufeff" + `{"lines":[{"sku":"MUG","quantity":1}],"total":{"amount":1,"currency":"KRW"}}`,
	`{"lines":[{"sku":"\ud83d\ude00","quantity":1}],"total":{"amount":1,"currency":"KRW"}}`,
	`{"lines":[{"sku":"\n","quantity":1}],"total":{"amount":1,"currency":"KRW"}}`,
	`{"lines":[{"sku":"\x","quantity":1}],"total":{"amount":1,"currency":"KRW"}}`,
	`{"lines":[{"sku":"\u00","quantity":1}],"total":{"amount":1,"currency":"KRW"}}`,
	`{"lines":[{"sku":"` + strings.Repeat("x", 41) + `","quantity":1}],"total":{"amount":1,"currency":"KRW"}}`,
	`{"lines":[` + strings.Repeat(`{"sku":"a","quantity":1},`, 8) + `{"sku":"b","quantity":1}],"total":{"amount":1,"currency":"KRW"}}`,
	`{"lines":[{"sku":"1","quantity":1},{"sku":"2","quantity":1},{"sku":"3","quantity":1},{"sku":"4","quantity":1},{"sku":"5","quantity":1},{"sku":"6","quantity":1},{"sku":"7","quantity":1},{"sku":"8","quantity":1},{"sku":"9","quantity":1}],"total":{"amount":1,"currency":"KRW"}}`,
	strings.Repeat(`{"lines":[`, 300), strings.Repeat(`[`, 4000),
}

func TestParse(t *testing.T) {
	for _, s := range bodies {
		compare(t, []byte(s))
	}
	whole := bodies[0]
	for i := range len(whole) { // cut anywhere
		compare(t, []byte(whole[:i]))
	}
	for i := range len(whole) { // and changed anywhere
		for _, c := range []byte("\x00\"\\{}[],:0-.eE \xff") {
			b := []byte(whole)
			b[i] = c
			compare(t, b)
		}
	}
}

func TestParseKeepsNothingOfTheLastBody(t *testing.T) {
	var w wish
	if w.parse([]byte(`{"lines":[{"sku":"\u0041","quantity":1},{"sku":"B","quantity":1}],"total":{"amount":7,"currency":"KRW"}}`)) != unanswered || w.n != 2 {
		t.Fatal("first")
	}
	if w.parse([]byte(bodies[0])) != unanswered || w.n != 1 || w.amount != 1500 || string(w.lines[0].sku) != "MUG" {
		t.Fatalf("%+v", w)
	}
	if got := w.parse([]byte(`{"total":{"amount":1,"currency":"KRW"}}`)); got != badLines {
		t.Fatalf("lines of the body before: %d", got)
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range bodies {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		if len(body) <= MaxBody {
			compare(t, body)
		}
	})
}

func BenchmarkParse(b *testing.B) {
	body := []byte(bodies[0])
	var w wish
	b.ReportAllocs()
	for b.Loop() {
		if w.parse(body) != unanswered {
			b.Fatal()
		}
	}
}
