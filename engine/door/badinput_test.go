package door_test

import (
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/doorbuster/doorbuster/engine"
	"github.com/doorbuster/doorbuster/engine/ticket"
)

// minted is a ticket of a changed kind.
func (r *house) minted(buyer string, change func(*ticket.Ticket)) string {
	r.Helper()
	t := ticket.Ticket{Sale: r.sale.ID, Buyer: engine.BuyerID(buyer), NotAfter: time.Now().Add(time.Hour).UnixMilli()}
	change(&t)
	s, err := r.keys.Mint(&t)
	if err != nil {
		r.Fatal(err)
	}
	return s
}

// wish is the body of an order.
func wish(lines, total string) string { return `{"lines":` + lines + `,"total":` + total + `}` }

const (
	mug = `[{"sku":"MUG","quantity":1}]`
	krw = `{"amount":1500,"currency":"KRW"}`
)

// nine is a line too many.
var nine = func() string {
	var all []string
	for i := range engine.MaxLines + 1 {
		all = append(all, fmt.Sprintf(`{"sku":"A%d","quantity":1}`, i))
	}
	return strings.Join(all, ",")
}()

func quantity(q string) string { return wish(`[{"sku":"MUG","quantity":`+q+`}]`, krw) }

// refused is a request and what it must hear; says is a part of the detail that tells
// the buyer what is wrong.
type refused struct {
	ask     ask
	status  int
	problem string
	says    string
}

// badHeads are those whose body is good.
func badHeads(r *house) map[string]refused {
	good := r.ticket("ann")
	hour := time.Hour.Milliseconds()
	of := func(change func(*ticket.Ticket)) string { return r.minted("ann", change) }
	token := func(t string) ask { return ask{ticket: t, key: "bad", body: oneMug} }
	return map[string]refused{
		"unknown sale":           {ask{method: "GET", path: "/v1/sales/t-nowhere"}, 404, "not-found", "no sale"},
		"ticket of another sale": {token(of(func(t *ticket.Ticket) { t.Sale = "t-other" })), 401, "ticket-invalid", "another sale"},
		"expired ticket":         {token(of(func(t *ticket.Ticket) { t.NotAfter -= 2 * hour })), 401, "ticket-invalid", "no longer valid"},
		"early ticket":           {token(of(func(t *ticket.Ticket) { t.NotBefore = t.NotAfter - hour/2 })), 403, "ticket-early", "not valid yet"},
		"no ticket":              {ask{key: "bad", body: oneMug}, 401, "ticket-invalid", "Authorization: Ticket"},
		"ticket as a bearer":     {ask{key: "bad", body: oneMug, headers: []string{"Authorization: Bearer " + good}}, 401, "ticket-invalid", "Authorization: Ticket"},
		"JWT of alg none":        {token("eyJhbGciOiJub25lIn0.eyJzdWIiOiJhbm4ifQ."), 401, "ticket-invalid", "not one of ours"},
		"JWT of alg HS256":       {token("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhbm4ifQ.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"), 401, "ticket-invalid", "not one of ours"},
		"ticket without its MAC": {token(good[:len(good)-22]), 401, "ticket-invalid", "not one of ours"},
		"ticket and more":        {token(good + "AAAA"), 401, "ticket-invalid", "not one of ours"},
		"ticket with padding":    {token(good + "="), 401, "ticket-invalid", "not one of ours"},
		"head of 5 KiB":          {ask{ticket: good, key: "bad", body: oneMug, headers: []string{"X: " + strings.Repeat("x", 5<<10)}}, 431, "about:blank", "4096"},
		"no key":                 {ask{ticket: good, body: oneMug}, 422, "invalid", "Idempotency-Key"},
		"key of 65":              {ask{ticket: good, key: strings.Repeat("k", 65), body: oneMug}, 422, "invalid", "Idempotency-Key"},
		"key with an accent":     {ask{ticket: good, key: "caf\u00e9", body: oneMug}, 422, "invalid", "Idempotency-Key"},
		"PUT":                    {ask{method: "PUT", ticket: good, key: "bad", body: oneMug}, 405, "about:blank", "method"},
	}
}

// badBodies are those of which the body alone is bad.
func badBodies(r *house) map[string]refused {
	good := r.ticket("ann")
	body := func(b string) ask { return ask{ticket: good, key: "bad", body: b} }
	return map[string]refused{
		"unknown SKU":             {body(wish(`[{"sku":"CUP","quantity":1}]`, krw)), 404, "not-found", "SKU"},
		"SKU of other letters":    {body(wish(`[{"sku":"mug","quantity":1}]`, krw)), 404, "not-found", "SKU"},
		"SKU of odd bytes":        {body(wish(`[{"sku":"M{}G","quantity":1}]`, krw)), 422, "invalid", "sku"},
		"quantity 0":              {body(quantity("0")), 422, "invalid", "quantity"},
		"quantity -1":             {body(quantity("-1")), 422, "invalid", "quantity"},
		"quantity -0":             {body(quantity("-0")), 422, "invalid", "quantity"},
		"quantity 10^9":           {body(quantity("1000000000")), 422, "invalid", "quantity"},
		"quantity 2^63":           {body(quantity("9223372036854775808")), 422, "invalid", "quantity"},
		"quantity 2^64 + 1":       {body(quantity("18446744073709551617")), 422, "invalid", "quantity"},
		"quantity 1.5":            {body(quantity("1.5")), 422, "invalid", "quantity"},
		"quantity 1.0":            {body(quantity("1.0")), 422, "invalid", "quantity"},
		"quantity 1e0":            {body(quantity("1e0")), 422, "invalid", "quantity"},
		"quantity 01":             {body(quantity("01")), 422, "invalid", ""},
		"quantity as text":        {body(quantity(`"1"`)), 422, "invalid", "quantity"},
		"quantity null":           {body(quantity("null")), 422, "invalid", "quantity"},
		"no quantity":             {body(wish(`[{"sku":"MUG"}]`, krw)), 422, "invalid", "quantity"},
		"quantity twice":          {body(quantity(`1,"quantity":2`)), 422, "invalid", "twice"},
		"lines twice":             {body(`{"lines":` + mug + `,"lines":` + mug + `,"total":` + krw + `}`), 422, "invalid", "twice"},
		"lines twice, escaped":    {body(`{"lines":` + mug + `,"\u006cines":` + mug + `,"total":` + krw + `}`), 422, "invalid", "twice"},
		"total twice":             {body(`{"lines":` + mug + `,"total":` + krw + `,"total":` + krw + `}`), 422, "invalid", "twice"},
		"a key nobody knows":      {body(wish(`[{"sku":"MUG","quantity":1,"gift":true}]`, krw)), 422, "invalid", "not known"},
		"no lines":                {body(wish(`[]`, krw)), 422, "invalid", "lines"},
		"nine lines":              {body(wish(`[`+nine+`]`, krw)), 422, "invalid", "lines"},
		"broken UTF-8 in a SKU":   {body(wish("[{\"sku\":\"M\xff\xfe\",\"quantity\":1}]", krw)), 422, "invalid", "sku"},
		"overlong UTF-8 in a SKU": {body(wish("[{\"sku\":\"M\xc0\x80G\",\"quantity\":1}]", krw)), 422, "invalid", "sku"},
		"half a surrogate":        {body(wish(`[{"sku":"M\ud800","quantity":1}]`, krw)), 422, "invalid", "sku"},
		"broken UTF-8 in a key":   {body("{\"lines\xff\":" + mug + `,"total":` + krw + `}`), 422, "invalid", ""},
		"byte order mark":         {body("\xef\xbb\xbf" + oneMug), 422, "invalid", "JSON"},
		"no JSON":                 {body("sku=MUG&quantity=1"), 422, "invalid", "JSON"},
		"half of it":              {body(oneMug[:len(oneMug)-2]), 422, "invalid", ""},
		"two of it":               {body(oneMug + oneMug), 422, "invalid", "JSON"},
		"list of it":              {body("[" + oneMug + "]"), 422, "invalid", "JSON"},
		"1,000 brackets":          {body(strings.Repeat("[", 1000)), 422, "invalid", "JSON"},
		"no body":                 {body(""), 422, "invalid", "JSON"},
		"body of 5 KiB":           {body(oneMug + strings.Repeat(" ", 5<<10-len(oneMug))), 413, "about:blank", "4096"},
		"total too low":           {body(wish(mug, `{"amount":1,"currency":"KRW"}`)), 409, "price-changed", "Nothing was taken"},
		"total of nothing":        {body(wish(mug, `{"amount":0,"currency":"KRW"}`)), 409, "price-changed", "Nothing was taken"},
		"total below nothing":     {body(wish(mug, `{"amount":-1500,"currency":"KRW"}`)), 422, "invalid", "total"},
		"total with a fraction":   {body(wish(mug, `{"amount":1500.00,"currency":"KRW"}`)), 422, "invalid", "total"},
		"no total":                {body(`{"lines":` + mug + `}`), 422, "invalid", "total"},
		"another currency":        {body(wish(mug, `{"amount":1500,"currency":"USD"}`)), 422, "invalid", "currency"},
		"above the limit":         {body(wish(`[{"sku":"MUG","quantity":4}]`, `{"amount":6000,"currency":"KRW"}`)), 409, "limit-reached", "one buyer"},
	}
}

// Bad input over TCP, at a door over real servers: each is told what is wrong with
// it, and none takes anything.
func TestBadInput(t *testing.T) {
	t.Parallel()
	const units = 50
	r := setupReal(t, units)
	until(t, func() bool { return r.buy("first").status == 202 })
	bad := badBodies(r)
	maps.Copy(bad, badHeads(r))
	for name, c := range bad {
		if c.ask.path == "" {
			c.ask.path = r.path()
		}
		rep, err := r.send(c.ask.bytes())
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		r.isProblem(name, rep)
		if detail, _ := rep.body["detail"].(string); rep.status != c.status || rep.problem != c.problem || !strings.Contains(detail, c.says) {
			t.Errorf("%s: got %d %s, want %d %s that says %q", name, rep.status, rep.raw, c.status, c.problem, c.says)
		}
	}
	r.left(units - 1)
}

// isProblem checks the form of a refusal (RFC 9457).
func (r *house) isProblem(name string, rep reply) {
	r.Helper()
	title, _ := rep.body["title"].(string)
	detail, _ := rep.body["detail"].(string)
	kind, _ := rep.body["type"].(string)
	if rep.header("Content-Type") != "application/problem+json" || rep.header("Cache-Control") != "no-store" || rep.body["status"] != float64(rep.status) ||
		kind == "" || title == "" || len(detail) <= 10 || !strings.HasSuffix(detail, ".") && !strings.HasSuffix(detail, "-") {
		r.Errorf("%s: not a whole problem: %s", name, rep.raw)
	}
	if (rep.status == 503 || rep.status == 429) && rep.header("Retry-After") == "" {
		r.Errorf("%s: %d without Retry-After", name, rep.status)
	}
	if rep.status == 401 && rep.header("WWW-Authenticate") == "" {
		r.Errorf("%s: 401 without WWW-Authenticate", name)
	}
	if rep.status == 405 && rep.header("Allow") == "" {
		r.Errorf("%s: 405 without Allow", name)
	}
}

// left checks how many units are available.
func (r *house) left(want int64) {
	r.Helper()
	w, err := r.store.Watch(r.Context(), r.sale.ID, 0)
	if err != nil || w.Items[0].Available != want || w.Items[0].Held != w.Items[0].Units-want {
		r.Errorf("stock %+v %v, want %d available", w.Items, err, want)
	}
}

// One letter of a ticket changed, wherever, and it is not one of ours.
func TestTamperedTickets(t *testing.T) {
	t.Parallel()
	r := setupReal(t, 10)
	good := r.ticket("ann")
	until(t, func() bool { return r.buy("first").status == 202 })
	for i := range len(good) {
		for _, c := range []byte("AZ_9") {
			if good[i] == c {
				continue
			}
			bad := good[:i] + string(c) + good[i+1:]
			rep, err := r.send(ask{path: r.path(), ticket: bad, key: "k", body: oneMug}.bytes())
			if err != nil || rep.status != 401 || rep.problem != "ticket-invalid" {
				t.Errorf("letter %d as %c: %d %s %v", i, c, rep.status, rep.raw, err)
			}
		}
	}
	r.left(9)
}

// One key is one order: at once, again, and with another body not at all.
func TestOneKeyIsOneOrder(t *testing.T) {
	t.Parallel()
	r := setupReal(t, 10)
	until(t, func() bool { return r.buy("first").status == 202 })
	raw := ask{path: r.path(), ticket: r.ticket("ann"), key: "k", body: oneMug}.bytes()
	fresh, order := 0, ""
	for i, rep := range all(50, func(int) reply {
		rep, err := r.send(raw)
		if err != nil {
			t.Error(err)
		}
		return rep
	}) {
		if rep.status != 202 || (order != "" && rep.order() != order) {
			t.Errorf("%d: %d %s, want order %s", i, rep.status, rep.raw, order)
		}
		if order = rep.order(); rep.body["replayed"] == nil {
			fresh++
		}
	}
	if fresh != 1 {
		t.Errorf("%d heard of a new order, want 1", fresh)
	}
	r.left(8)
	for i, body := range []string{twoMugs, `{"lines":[{"sku":"MUG","quantity":1}],"total":{"amount":1501,"currency":"KRW"}}`} {
		rep, err := r.send(ask{path: r.path(), ticket: r.ticket("ann"), key: "k", body: body}.bytes())
		if err != nil || rep.status != 422 || rep.problem != "idempotency-mismatch" {
			t.Errorf("body %d: %d %s %v", i, rep.status, rep.raw, err)
		}
		r.isProblem(fmt.Sprint("body ", i), rep)
	}
	r.left(8)
}
