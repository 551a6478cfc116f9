package door_test

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/doorbuster/doorbuster/engine"
	"github.com/doorbuster/doorbuster/engine/door"
	"github.com/doorbuster/doorbuster/engine/ticket"
)

func TestOrderIsTakenOnce(t *testing.T) {
	b := setup(t)
	first := b.buy("ann", "k1")
	b.want(first, 202, "")
	if first.order() == "" || first.body["sale"] != "drop" || first.body["status"] != "accepted" || first.body["hold"] != "1.1" || first.body["replayed"] != nil {
		t.Fatalf("body %s", first.raw)
	}
	if at, err := time.Parse(time.RFC3339Nano, first.body["accepted_at"].(string)); err != nil || time.Since(at) > time.Minute || at.Location() != time.UTC {
		t.Fatalf("accepted_at: %v %v", at, err)
	}
	if got := first.header("Content-Type") + " " + first.header("Cache-Control"); got != "application/json no-store" {
		t.Fatalf("header %q", got)
	}
	until(t, func() bool { return b.stock.marked.Load() == 1 }) // from now on a repeat need not publish
	again := b.buy("ann", "k1", replay)
	b.want(again, 202, "")
	if again.order() != first.order() || again.body["replayed"] != true || again.body["hold"] != "1.1" || again.body["accepted_at"] != first.body["accepted_at"] {
		t.Fatalf("first %s\nagain %s", first.raw, again.raw)
	}
	orders := b.broker.orders(t)
	if len(orders) != 1 || string(orders[0].Order) != first.order() || orders[0].Buyer != "ann" || orders[0].LimitBuyer != 10 || orders[0].Lines[0] != (engine.Line{SKU: "MUG", Quantity: 1, Price: 1500}) {
		t.Fatalf("published %+v", orders)
	}
	b.want(b.do(ask{ticket: b.ticket("ann"), key: "k1", body: twoMugs}), 422, "idempotency-mismatch")
}

func TestRefusals(t *testing.T) {
	b := setup(t, units(1000))
	good := b.ticket("ann")
	hour := time.Hour.Milliseconds()
	other, _ := ticket.NewKeys(1, map[uint8][]byte{1: []byte(strings.Repeat("x", 32))})
	forged, _ := other.Mint(&ticket.Ticket{Sale: testSale, Buyer: "ann", NotAfter: 1 << 50})
	basket := func(lines, total string) string { return `{"lines":` + lines + `,"total":` + total + `}` }
	mug := `[{"sku":"MUG","quantity":1}]`
	krw := `{"amount":1500,"currency":"KRW"}`
	for name, c := range map[string]struct {
		ask     ask
		status  int
		problem string
	}{
		"no ticket":              {ask{key: "k", body: oneMug}, 401, "ticket-invalid"},
		"bearer token":           {ask{key: "k", body: oneMug, headers: []string{"Authorization: Bearer " + good}}, 401, "ticket-invalid"},
		"JWT with alg none":      {ask{ticket: "eyJhbGciOiJub25lIn0.eyJzYWxlIjoiZHJvcCJ9.", key: "k", body: oneMug}, 401, "ticket-invalid"},
		"forged ticket":          {ask{ticket: forged, key: "k", body: oneMug}, 401, "ticket-invalid"},
		"tampered ticket":        {ask{ticket: good[:len(good)-2] + "AA", key: "k", body: oneMug}, 401, "ticket-invalid"},
		"ticket of another sale": {ask{ticket: b.ticket("ann", func(t *ticket.Ticket) { t.Sale = "other" }), key: "k", body: oneMug}, 401, "ticket-invalid"},
		"expired ticket":         {ask{ticket: b.ticket("ann", func(t *ticket.Ticket) { t.NotAfter = time.Now().UnixMilli() - 10 }), key: "k", body: oneMug}, 401, "ticket-invalid"},
		"early ticket":           {ask{ticket: b.ticket("ann", func(t *ticket.Ticket) { t.NotBefore = t.NotAfter - hour/2 }), key: "k", body: oneMug}, 403, "ticket-early"},
		"unknown sale":           {ask{method: "GET", path: "/v1/sales/nosuch"}, 404, "not-found"},
		"sale not in Redis":      {ask{path: "/v1/sales/nosuch/orders", ticket: b.ticket("ann", func(t *ticket.Ticket) { t.Sale = "nosuch" }), key: "k", body: oneMug}, 503, "sale-frozen"}, // we signed for it: it is not there yet, or lost
		"unknown SKU":            {ask{ticket: good, key: "k", body: basket(`[{"sku":"CUP","quantity":1}]`, krw)}, 404, "not-found"},
		"no key":                 {ask{ticket: good, body: oneMug}, 422, "invalid"},
		"long key":               {ask{ticket: good, key: strings.Repeat("k", 65), body: oneMug}, 422, "invalid"},
		"key with a space":       {ask{ticket: good, key: "a b", body: oneMug}, 422, "invalid"},
		"no body":                {ask{ticket: good, key: "k"}, 422, "invalid"},
		"5 KiB body":             {ask{ticket: good, key: "k", body: oneMug + strings.Repeat(" ", 5<<10)}, 413, "about:blank"},
		"quantity 0":             {ask{ticket: good, key: "k", body: basket(`[{"sku":"MUG","quantity":0}]`, krw)}, 422, "invalid"},
		"quantity -1":            {ask{ticket: good, key: "k", body: basket(`[{"sku":"MUG","quantity":-1}]`, krw)}, 422, "invalid"},
		"quantity 1e9":           {ask{ticket: good, key: "k", body: basket(`[{"sku":"MUG","quantity":1000000000}]`, krw)}, 422, "invalid"},
		"quantity 2^64":          {ask{ticket: good, key: "k", body: basket(`[{"sku":"MUG","quantity":18446744073709551617}]`, krw)}, 422, "invalid"},
		"fraction":               {ask{ticket: good, key: "k", body: basket(`[{"sku":"MUG","quantity":1.5}]`, krw)}, 422, "invalid"},
		"whole fraction":         {ask{ticket: good, key: "k", body: basket(`[{"sku":"MUG","quantity":1.0}]`, krw)}, 422, "invalid"},
		"exponent":               {ask{ticket: good, key: "k", body: basket(`[{"sku":"MUG","quantity":1e0}]`, krw)}, 422, "invalid"},
		"duplicate key":          {ask{ticket: good, key: "k", body: basket(`[{"sku":"MUG","quantity":1,"quantity":2}]`, krw)}, 422, "invalid"},
		"unknown field":          {ask{ticket: good, key: "k", body: basket(`[{"sku":"MUG","quantity":1,"gift":true}]`, krw)}, 422, "invalid"},
		"broken UTF-8":           {ask{ticket: good, key: "k", body: basket("[{\"sku\":\"M\xff\xfe\",\"quantity\":1}]", krw)}, 422, "invalid"},
		"no lines":               {ask{ticket: good, key: "k", body: basket(`[]`, krw)}, 422, "invalid"},
		"other currency":         {ask{ticket: good, key: "k", body: basket(mug, `{"amount":1500,"currency":"USD"}`)}, 422, "invalid"},
		"old price":              {ask{ticket: good, key: "k", body: basket(mug, `{"amount":1400,"currency":"KRW"}`)}, 409, "price-changed"},
		"over the limit":         {ask{ticket: good, key: "k", body: basket(`[{"sku":"MUG","quantity":11}]`, `{"amount":16500,"currency":"KRW"}`)}, 409, "limit-reached"},
		"over the ticket's max":  {ask{ticket: b.ticket("bob", func(t *ticket.Ticket) { t.Max = 1 }), key: "k", body: twoMugs}, 409, "limit-reached"},
		"GET of orders":          {ask{method: "GET", ticket: good}, 405, "about:blank"},
		"POST of the sale":       {ask{path: "/v1/sales/drop"}, 405, "about:blank"},
	} {
		r := b.do(c.ask)
		if r.status != c.status || r.problem != c.problem {
			t.Errorf("%s: got %d %s, want %d %s", name, r.status, r.raw, c.status, c.problem)
			continue
		}
		if r.header("Content-Type") != "application/problem+json" || r.header("Cache-Control") != "no-store" || r.body["status"] != float64(r.status) || r.body["title"] == "" || r.body["detail"] == "" {
			t.Errorf("%s: not a whole problem: %s", name, r.raw)
		}
	}
	if got := len(b.broker.orders(t)); got != 0 {
		t.Errorf("%d orders published by refusals", got)
	}
	r := b.do(ask{ticket: good, key: "k", body: basket(mug, `{"amount":1400,"currency":"KRW"}`)})
	if total, _ := r.body["total"].(map[string]any); total["amount"] != 1500.0 || total["currency"] != "KRW" {
		t.Errorf("price-changed does not say the price: %s", r.raw)
	}
}

func TestSameItemOnTwoLinesAddsUp(t *testing.T) {
	b := setup(t)
	r := b.do(ask{ticket: b.ticket("ann"), key: "k", body: ` { "total" : {"currency":"KRW","amount":5400}, "lines":[{"sku":"MUG","quantity":1},{"quantity":1,"sku":"CAP\u002ered"}, {"sku":"MUG","quantity":2}]}` + "\r\n"})
	b.want(r, 202, "")
	got := b.broker.orders(t)[0]
	if len(got.Lines) != 2 || engine.Units(got.Lines) != 4 || got.Total != 5400 {
		t.Fatalf("%+v", got)
	}
}

// The window is Redis' alone, the door only spares it questions.
func TestSaleOpensAndClosesByItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := setup(t, func(_ *door.Config, s *engine.Sale) {
			s.State, s.Opens, s.Closes = engine.SaleScheduled, time.Now().Add(5*time.Second), time.Now().Add(20*time.Second)
		})
		b.want(b.buy("ann", "k"), 409, "not-open")
		if b.stock.reserves.Load() != 0 {
			t.Error("the script was asked before the open")
		}
		time.Sleep(4900 * time.Millisecond)
		b.want(b.buy("ann", "k"), 409, "not-open")
		time.Sleep(100 * time.Millisecond)
		b.want(b.buy("ann", "k"), 202, "")
		time.Sleep(14 * time.Second)
		b.want(b.buy("bob", "k"), 202, "")
		time.Sleep(1001 * time.Millisecond)
		calls := b.stock.reserves.Load()
		b.want(b.buy("cid", "k"), 409, "closed")
		if b.stock.reserves.Load() != calls {
			t.Error("the script was asked after the close")
		}
		b.want(b.buy("ann", "k", replay), 202, "")
	})
}

func TestStateFlags(t *testing.T) {
	b := setup(t)
	for state, want := range map[engine.SaleState]string{engine.SalePaused: "paused", engine.SaleClosed: "closed"} {
		b.want(b.buy("ann", "k", replay), 202, "")
		if err := b.stock.SetState(t.Context(), testSale, b.grip(), state); err != nil {
			t.Fatal(err)
		}
		b.watched()
		calls := b.stock.reserves.Load()
		if r := b.buy("bob", "k"); r.problem != want {
			t.Errorf("%s: %s", state, r.raw)
		}
		if b.stock.reserves.Load() != calls {
			t.Errorf("%s: the script was asked", state)
		}
		b.want(b.buy("ann", "k", replay), 202, "")
	}
}

func TestSoldOutFlagAndRestock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := setup(t, units(1))
		b.want(b.buy("ann", "k"), 202, "")
		time.Sleep(60 * time.Millisecond)
		calls := b.stock.reserves.Load()
		r := b.buy("bob", "k")
		b.want(r, 409, "sold-out")
		if r.body["may_return"] != true || b.stock.reserves.Load() != calls {
			t.Fatalf("%s, %d calls", r.raw, b.stock.reserves.Load()-calls)
		}
		r = b.buy("bob", "k", replay) // passes the memory, and hears the same of the script
		b.want(r, 409, "sold-out")
		if r.body["may_return"] != true {
			t.Fatal(r.raw)
		}
		b.want(b.do(ask{ticket: b.ticket("cid"), key: "k", body: `{"lines":[{"sku":"CAP.red","quantity":1}],"total":{"amount":900,"currency":"KRW"}}`}), 202, "")
		b.settle(b.broker.orders(t)[0])
		time.Sleep(60 * time.Millisecond)
		if r = b.buy("bob", "k"); r.body["may_return"] != false {
			t.Fatalf("settled: %s", r.raw)
		}
		move := engine.Move{ID: 7, Sale: testSale, Op: engine.Restock, Lines: []engine.Line{{SKU: "MUG", Quantity: 1}}}
		if _, err := b.stock.Apply(t.Context(), testSale, b.grip(), []engine.Move{move}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(100 * time.Millisecond)
		b.want(b.buy("bob", "k"), 202, "")
	})
}

func (b *bench) settle(o engine.Order) {
	b.Helper()
	move := engine.Move{ID: 1, Sale: testSale, Op: engine.Settle, Order: o.Order, Hold: o.Hold, Buyer: o.Buyer, Identities: o.Identities, Lines: o.Lines, Body: o.Body}
	if _, err := b.stock.Apply(b.Context(), testSale, b.grip(), []engine.Move{move}); err != nil {
		b.Fatal(err)
	}
}

func TestRepeatOfFinishedOrders(t *testing.T) {
	b := setup(t, units(2))
	for _, c := range []struct {
		buyer, status string
		op            engine.MoveOp
	}{{"ann", "confirmed", engine.Settle}, {"bob", "cancelled", engine.Release}} {
		first := b.buy(c.buyer, "k")
		b.want(first, 202, "")
		orders := b.broker.orders(t)
		o := orders[len(orders)-1]
		move := engine.Move{ID: 3, Sale: testSale, Op: c.op, Order: o.Order, Hold: o.Hold, Buyer: o.Buyer, Identities: o.Identities, Lines: o.Lines, Body: o.Body}
		if _, err := b.stock.Apply(t.Context(), testSale, b.grip(), []engine.Move{move}); err != nil {
			t.Fatal(err)
		}
		again := b.buy(c.buyer, "k", replay)
		b.want(again, 200, "")
		if again.body["status"] != c.status || again.order() != first.order() || again.body["replayed"] != true || again.body["hold"] != first.body["hold"] {
			t.Errorf("%s: %s", c.buyer, again.raw)
		}
	}
}

func TestBuyerBucket(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := setup(t, func(c *door.Config, _ *engine.Sale) { c.BuyerRate, c.BuyerBurst = 2, 3 }, units(5000))
		b.want(b.buy("ann", "k"), 202, "")
		for range 2 {
			b.want(b.buy("ann", "k", replay), 202, "")
		}
		r := b.buy("ann", "k", replay)
		b.want(r, 429, "throttled")
		if r.header("Retry-After") == "" {
			t.Error("no Retry-After")
		}
		b.want(b.buy("bob", "k"), 202, "")
		time.Sleep(500 * time.Millisecond)
		b.want(b.buy("ann", "k", replay), 202, "")
		b.want(b.buy("ann", "k", replay), 429, "throttled")
		for i := range 1000 { // many others do not open or close her bucket
			b.want(b.buy(fmt.Sprint("other", i), "k"), 202, "")
		}
		b.want(b.buy("ann", "k", replay), 429, "throttled")
	})
}

func TestPage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := setup(t)
		get := func() reply { return b.do(ask{method: "GET", path: "/v1/sales/drop?x=1"}) }
		r := get()
		b.want(r, 200, "")
		items := r.body["items"].([]any)
		hat, mug := items[0].(map[string]any), items[1].(map[string]any)
		if r.body["state"] != "open" || r.body["currency"] != "KRW" || r.body["limit"] != 10.0 || r.body["version"] != 1.0 || len(items) != 2 ||
			hat["sku"] != "CAP.red" || mug["sku"] != "MUG" || mug["price"] != 1500.0 || mug["units"] != 1000.0 || mug["available"] != 1000.0 {
			t.Fatal(r.raw)
		}
		for _, name := range []string{"opens", "closes", "now"} {
			if _, err := time.Parse("2006-01-02T15:04:05.000Z", r.body[name].(string)); err != nil {
				t.Error(err)
			}
		}
		if got := r.header("Content-Type") + "; " + r.header("Cache-Control"); got != "application/json; public, max-age=1" {
			t.Error(got)
		}
		b.want(b.buy("ann", "k"), 202, "")
		time.Sleep(60 * time.Millisecond)
		if mug := get().body["items"].([]any)[1].(map[string]any); mug["available"] != 999.0 || mug["held"] != 1.0 || mug["sold"] != 0.0 {
			t.Error(mug)
		}
		_ = b.stock.SetState(t.Context(), testSale, b.grip(), engine.SalePaused)
		time.Sleep(60 * time.Millisecond)
		if got := get().body["state"]; got != "paused" {
			t.Error(got)
		}
		_ = b.stock.Freeze(t.Context(), testSale, 1)
		time.Sleep(60 * time.Millisecond)
		if got := get().body["state"]; got != "frozen" {
			t.Error(got)
		}
		b.want(b.do(ask{method: "GET", path: "/v1/sales/nosuch"}), 404, "not-found")
		b.want(b.do(ask{method: "GET", path: "/v1/sales/No_Such"}), 404, "not-found")
		for _, path := range []string{"/v1/sales/", "/v1/sales/drop/", "/v1/sales/drop/mine", "/v1/sales//orders", "/v1/orders/x", "/"} {
			if r := b.do(ask{method: "GET", path: path}); r.status != 404 || r.raw != "" {
				t.Errorf("%s: taken by the door: %d %s", path, r.status, r.raw)
			}
		}
	})
}

// An expired ticket still finds its buyer's order, and never a new one: the
// replay header must not be a way past the ticket's end.
func TestExpiredTicketFindsOnlyWhatItHas(t *testing.T) {
	b := setup(t)
	first := b.buy("ann", "k")
	b.want(first, 202, "")
	expired := b.ticket("ann", func(t *ticket.Ticket) { t.NotAfter = time.Now().UnixMilli() - 10 })
	again := b.do(ask{ticket: expired, key: "k", body: oneMug, headers: []string{replay}})
	b.want(again, 202, "")
	if again.order() != first.order() {
		t.Errorf("order %s, want %s", again.order(), first.order())
	}
	b.want(b.do(ask{ticket: expired, key: "fresh", body: oneMug, headers: []string{replay}}), 401, "ticket-invalid")
	for _, o := range b.broker.orders(t) {
		if string(o.Order) != first.order() {
			t.Errorf("order %s was published", o.Order)
		}
	}
}
