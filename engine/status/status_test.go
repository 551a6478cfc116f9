package status_test

import (
	"context"
	"crypto/ed25519"
	"errors"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/doorbuster/doorbuster/engine"
	"github.com/doorbuster/doorbuster/engine/orders"
	"github.com/doorbuster/doorbuster/engine/status"
	"github.com/doorbuster/doorbuster/engine/ticket"
)

func TestOrderFromAcceptToEnd(t *testing.T) {
	t.Parallel()
	b := setup(t, nil)
	o := b.accept("ann")
	path, auth := "/v1/orders/"+string(o.Basket.Order), b.ticket("ann")
	r := b.ask(http.MethodGet, path, auth)
	if r.Code != 200 || r.Status != "accepted" || r.Order.Order != o.Basket.Order || r.Sale != b.sale.ID || r.Hold != o.Hold.String() ||
		r.Total != (engine.Money{Amount: 1500, Currency: "KRW"}) || len(r.Lines) != 1 || r.Lines[0] != (status.Line{SKU: "MUG", Quantity: 1, Price: 1500}) {
		t.Errorf("accepted: %+v", r)
	}
	b.ingest(o)
	if r := b.ask(http.MethodGet, path, auth); r.Status != "reserved" || r.PayBefore == "" || r.FinishedAt != "" {
		t.Errorf("reserved: %+v", r)
	}
	b.pay(o)
	if r := b.ask(http.MethodGet, path, auth); r.Status != "paying" || r.PayBefore != "" {
		t.Errorf("paying: %+v", r)
	}
	b.settle(o, orders.Confirmed)
	if r := b.ask(http.MethodGet, path, auth); r.Status != "confirmed" || r.FinishedAt == "" || r.Total.Currency != "KRW" {
		t.Errorf("confirmed: %+v", r)
	}
	gone := b.reserve("ann")
	b.pay(gone)
	b.settle(gone, orders.Declined)
	if r := b.ask(http.MethodGet, "/v1/orders/"+string(gone.Basket.Order), auth); r.Status != "cancelled" || r.Reason != "declined" {
		t.Errorf("declined: %+v", r)
	}
}

func TestOrderOfSomebodyElseIsNotThere(t *testing.T) {
	t.Parallel()
	b := setup(t, nil)
	held, booked := b.accept("ann"), b.reserve("ann")
	other, err := b.tickets.Mint(&ticket.Ticket{Sale: "another-sale", Buyer: "ann", NotAfter: 1})
	b.ok(err)
	for what, auth := range map[string]string{
		"another buyer's ticket": b.ticket("bob"), "another buyer's token": b.bearer("bob", time.Now().Add(time.Hour)),
		"a ticket of another sale": "Ticket " + other,
	} {
		for _, o := range []engine.Order{held, booked} {
			for _, ask := range [][2]string{{"GET", ""}, {"GET", "/events"}, {"POST", "/cancel"}} {
				if r := b.ask(ask[0], "/v1/orders/"+string(o.Basket.Order)+ask[1], auth); r.Code != 404 || r.Type != "/problems/not-found" {
					t.Errorf("%s, %s %s: %d %s", what, ask[0], ask[1], r.Code, r.Type)
				}
			}
		}
	}
	for _, id := range []string{"x", strings.Repeat("a", 26), strings.Repeat("A", 26), strings.Repeat("a", 5000)} {
		if code, _ := b.head("GET", "/v1/orders/"+id[:min(len(id), 3000)], b.ticket("ann")); code != 404 {
			t.Errorf("order %.30q: %d", id, code)
		}
	}
}

func TestWhoAsks(t *testing.T) {
	t.Parallel()
	b := setup(t, nil)
	o := b.accept("ann")
	path := "/v1/orders/" + string(o.Basket.Order)
	hour := time.Now().Add(time.Hour)
	good := b.bearer("ann", hour)
	if r := b.ask("GET", path, good); r.Code != 200 || r.Status != "accepted" {
		t.Errorf("token: %+v", r)
	}
	if r := b.ask("GET", path, "tIcKeT"+strings.TrimPrefix(b.ticket("ann"), "Ticket")); r.Code != 200 {
		t.Errorf("scheme in other letters: %d", r.Code)
	}
	_, stranger, err := ed25519.GenerateKey(nil)
	b.ok(err)
	mint := func(key any, m jwt.SigningMethod, kid string, c jwt.MapClaims) string {
		tok := jwt.NewWithClaims(m, c)
		tok.Header["kid"] = kid
		s, err := tok.SignedString(key)
		b.ok(err)
		return "Bearer " + s
	}
	claims := func(change func(jwt.MapClaims)) jwt.MapClaims {
		c := jwt.MapClaims{"iss": issuer, "aud": audience, "sub": "ann", "exp": hour.Unix()}
		if change != nil {
			change(c)
		}
		return c
	}
	public := b.private.Public().(ed25519.PublicKey)
	eddsa := jwt.SigningMethodEdDSA
	if r := b.ask("GET", path, mint(b.private, eddsa, keyID, claims(nil))); r.Code != 200 {
		t.Fatalf("the good token of this test: %d", r.Code)
	}
	for what, auth := range map[string]string{
		"nothing": "", "no scheme": "x", "basic": "Basic YTpi", "empty ticket": "Ticket ", "empty token": "Bearer ",
		"tampered ticket": b.ticket("ann")[:30] + "A" + b.ticket("ann")[31:],
		"expired":         b.bearer("ann", time.Now().Add(-time.Minute)),
		"another key":     mint(stranger, eddsa, keyID, claims(nil)),
		"another key id":  mint(b.private, eddsa, "k2", claims(nil)),
		"alg none":        mint(jwt.UnsafeAllowNoneSignatureType, jwt.SigningMethodNone, keyID, claims(nil)),
		"alg HS256":       mint([]byte(public), jwt.SigningMethodHS256, keyID, claims(nil)),
		"another issuer":  mint(b.private, eddsa, keyID, claims(func(c jwt.MapClaims) { c["iss"] = "x" })),
		"for another":     mint(b.private, eddsa, keyID, claims(func(c jwt.MapClaims) { c["aud"] = "x" })),
		"no audience":     mint(b.private, eddsa, keyID, claims(func(c jwt.MapClaims) { delete(c, "aud") })),
		"no expiry":       mint(b.private, eddsa, keyID, claims(func(c jwt.MapClaims) { delete(c, "exp") })),
		"no subject":      mint(b.private, eddsa, keyID, claims(func(c jwt.MapClaims) { delete(c, "sub") })),
		"odd subject":     mint(b.private, eddsa, keyID, claims(func(c jwt.MapClaims) { c["sub"] = "a|b" })),
		"too long":        "Bearer " + strings.Repeat("a", 3000),
	} {
		if r := b.ask("GET", path, auth); r.Code != 401 || r.Type != "/problems/ticket-invalid" {
			t.Errorf("%s: %d %s", what, r.Code, r.Type)
		}
	}
}

func TestMintTokenRefuses(t *testing.T) {
	t.Parallel()
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	good := status.Token{KeyID: "k", Issuer: "i", Audience: "a", Buyer: "ann", Expires: time.Now().Add(time.Hour)}
	if _, err := status.MintToken(key, good); err != nil {
		t.Fatal(err)
	}
	noExpiry, badBuyer := good, good
	noExpiry.Expires, badBuyer.Buyer = time.Time{}, "a b"
	for _, tok := range []status.Token{noExpiry, badBuyer} {
		if _, err := status.MintToken(key, tok); err == nil {
			t.Errorf("%+v: no error", tok)
		}
	}
	if _, err := status.MintToken(key[:10], good); err == nil {
		t.Error("a short key: no error")
	}
}

func TestMine(t *testing.T) {
	t.Parallel()
	b := setup(t, nil)
	first, second := b.reserve("ann"), b.reserve("ann")
	b.reserve("bob")
	path := "/v1/sales/" + string(b.sale.ID) + "/mine"
	r := b.ask("GET", path, b.ticket("ann"))
	if r.Code != 200 || len(r.Orders) != 2 || r.Orders[0].Order != second.Basket.Order || r.Orders[1].Order != first.Basket.Order {
		t.Errorf("%+v", r)
	}
	if r := b.ask("GET", path, b.bearer("cy", time.Now().Add(time.Hour))); r.Code != 200 || r.Orders == nil || len(r.Orders) != 0 {
		t.Errorf("nobody's: %+v", r)
	}
	for _, sale := range []string{"another-sale", "BAD"} {
		if r := b.ask("GET", "/v1/sales/"+sale+"/mine", b.ticket("ann")); r.Code != 404 {
			t.Errorf("sale %s: %d", sale, r.Code)
		}
	}
	if r := b.ask("GET", "/v1/sales/none/mine", b.bearer("ann", time.Now().Add(time.Hour))); r.Code != 404 {
		t.Errorf("no such sale: %d", r.Code)
	}
}

func TestCancel(t *testing.T) {
	t.Parallel()
	b := setup(t, nil)
	auth := b.ticket("ann")
	path := func(o engine.Order) string { return "/v1/orders/" + string(o.Basket.Order) + "/cancel" }

	pending := b.accept("ann")
	if r := b.ask("POST", path(pending), auth); r.Code != 409 || r.Type != "/problems/order-pending" {
		t.Errorf("pending: %+v", r)
	}
	reserved := b.reserve("ann")
	for range 2 { // again: the same answer
		if r := b.ask("POST", path(reserved), auth); r.Code != 200 || r.Status != "cancelled" || r.Reason != "buyer" {
			t.Errorf("reserved: %+v", r)
		}
	}
	paying := b.reserve("ann")
	b.pay(paying)
	for range 2 {
		if r := b.ask("POST", path(paying), auth); r.Code != 202 || r.Status != "paying" || !r.CancelRequested {
			t.Errorf("paying: %+v", r)
		}
	}
	b.settle(paying, orders.Confirmed)
	if r := b.ask("POST", path(paying), auth); r.Code != 409 || r.Type != "/problems/not-cancellable" {
		t.Errorf("confirmed: %+v", r)
	}
	declined := b.reserve("ann")
	b.pay(declined)
	b.settle(declined, orders.Declined)
	if r := b.ask("POST", path(declined), auth); r.Code != 409 || r.Type != "/problems/not-cancellable" {
		t.Errorf("declined: %+v", r)
	}
	if r := b.ask("POST", "/v1/orders/"+strings.Repeat("a", 26)+"/cancel", auth); r.Code != 404 {
		t.Errorf("unknown: %d", r.Code)
	}
	_, st, err := b.Sale(t.Context(), b.sale.ID)
	b.ok(err)
	if st.Claimed[0].Units != 1 {
		t.Errorf("%d units claimed, want the confirmed one's", st.Claimed[0].Units)
	}
}

func TestCancelInParallelGivesBackOnce(t *testing.T) {
	t.Parallel()
	b := setup(t, nil)
	o := b.reserve("ann")
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if r := b.ask("POST", "/v1/orders/"+string(o.Basket.Order)+"/cancel", b.ticket("ann")); r.Code != 200 && r.Code != 503 {
				t.Errorf("%d %s", r.Code, r.Type)
			}
		})
	}
	wg.Wait()
	_, st, err := b.Sale(t.Context(), b.sale.ID)
	b.ok(err)
	if n, err := b.Backlog(t.Context(), b.sale.ID); err != nil || n != 1 || st.Claimed[0].Units != 0 {
		t.Errorf("backlog %d (%v), claimed %d", n, err, st.Claimed[0].Units)
	}
}

func TestRoutes(t *testing.T) {
	t.Parallel()
	b := setup(t, nil)
	id := strings.Repeat("a", 26)
	for path, own := range map[string]bool{
		"/v1/orders/" + id: true, "/v1/orders/" + id + "/events": true, "/v1/orders/" + id + "/cancel": true, "/v1/sales/x/mine": true,
		"/v1/orders/": false, "/v1/orders": false, "/v1/orders/" + id + "/x": false, "/v1/orders/" + id + "/events/x": false,
		"/v1/sales/x": false, "/v1/sales/x/orders": false, "/v1/sales//mine": false, "/": false, "/v1/sales/x/y/mine": false,
	} {
		if code, _ := b.head("GET", path, ""); (code != http.StatusTeapot) != own {
			t.Errorf("%s: %d, own %v", path, code, own)
		}
	}
	for path, method := range map[string]string{"/v1/orders/" + id: "POST", "/v1/orders/" + id + "/cancel": "GET", "/v1/sales/x/mine": "DELETE"} {
		if code, h := b.head(method, path, b.ticket("ann")); code != 405 || h.Get("Allow") == "" {
			t.Errorf("%s %s: %d", method, path, code)
		}
	}
}

// stuckOrders is a PostgreSQL that answers when it is let go.
type stuckOrders struct {
	books
	asked chan struct{}
	let   chan struct{}
}

func (s *stuckOrders) Order(ctx context.Context, id engine.OrderID) (orders.View, error) {
	s.asked <- struct{}{}
	select {
	case <-s.let:
	case <-ctx.Done():
		return orders.View{}, ctx.Err()
	}
	return s.books.Order(ctx, id)
}

func TestQuestionsToPostgreSQLAreBounded(t *testing.T) {
	t.Parallel()
	stuck := &stuckOrders{asked: make(chan struct{}, 100), let: make(chan struct{})}
	b := setup(t, func(c *status.Config) {
		stuck.books = c.Orders
		c.Orders, c.MaxQueries = stuck, 2
	})
	o := b.reserve("ann")
	path, auth := "/v1/orders/"+string(o.Basket.Order), b.ticket("ann")
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() { b.ask("GET", path, auth) })
		<-stuck.asked
	}
	code, h := b.head("GET", path, auth)
	if code != 503 || h.Get("Retry-After") == "" {
		t.Errorf("the third: %d", code)
	}
	if n := len(stuck.asked); n != 0 {
		t.Errorf("%d more questions reached PostgreSQL", n)
	}
	close(stuck.let)
	wg.Wait()
	if r := b.ask("GET", path, auth); r.Code != 200 {
		t.Errorf("afterwards: %d", r.Code)
	}
}

type downOrders struct{ books }

var errDown = errors.New("connection refused")

func (downOrders) Order(context.Context, engine.OrderID) (orders.View, error) {
	return orders.View{}, errDown
}

func TestPostgreSQLDownIs503(t *testing.T) {
	t.Parallel()
	b := setup(t, func(c *status.Config) { c.Orders = downOrders{c.Orders} })
	o := b.accept("ann")
	for _, ask := range [][2]string{{"GET", ""}, {"GET", "/events"}, {"POST", "/cancel"}} {
		if r := b.ask(ask[0], "/v1/orders/"+string(o.Basket.Order)+ask[1], b.ticket("ann")); r.Code != 503 || r.Type != "/problems/overloaded" {
			t.Errorf("%s %s: %d %s", ask[0], ask[1], r.Code, r.Type)
		}
	}
}

func TestNewRefuses(t *testing.T) {
	t.Parallel()
	b := setup(t, nil)
	for what, cfg := range map[string]status.Config{
		"nothing": {}, "nobody can ask": {Orders: b.Store, Stock: b.stock},
		"tokens of any issuer": {Orders: b.Store, Stock: b.stock, Tokens: status.TokenConfig{Keys: map[string]ed25519.PublicKey{"k": make([]byte, 32)}}},
		"short key": {Orders: b.Store, Stock: b.stock, Tokens: status.TokenConfig{
			Issuer: "i", Audience: "a", Keys: map[string]ed25519.PublicKey{"k": make([]byte, 3)},
		}},
	} {
		if _, err := status.New(cfg); err == nil {
			t.Errorf("%s: no error", what)
		}
	}
}
