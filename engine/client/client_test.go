package client_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/doorbuster/doorbuster/engine"
	"github.com/doorbuster/doorbuster/engine/client"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// seen is a request as the door got it.
type seen struct{ path, key, replay, ticket, body string }

// script answers the n-th request with its n-th step; a status of 0 drops the
// connection.
type script struct {
	mu    sync.Mutex
	steps []step
	seen  []seen
}

type step struct {
	status int
	body   string
	retry  string
}

func (s *script) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	s.mu.Lock()
	now := s.steps[min(len(s.seen), len(s.steps)-1)]
	s.seen = append(s.seen, seen{r.URL.Path, r.Header.Get("Idempotency-Key"), r.Header.Get("Idempotency-Replay"), r.Header.Get("Authorization"), string(body)})
	s.mu.Unlock()
	if now.status == 0 {
		panic(http.ErrAbortHandler)
	}
	if now.retry != "" {
		w.Header().Set("Retry-After", now.retry)
	}
	w.WriteHeader(now.status)
	_, _ = io.WriteString(w, now.body)
}

func setup(t *testing.T, steps ...step) (*script, *client.Client) {
	t.Helper()
	s := &script{steps: steps}
	server := httptest.NewServer(s)
	c, err := client.New(client.Config{URL: server.URL + "/", Attempt: 2 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(); server.Close() })
	return s, c
}

const (
	id       = "abcdefghijklmnopqrstuvwx23"
	accepted = `{"order":"` + id + `","sale":"drop","status":"accepted","hold":"3.17","accepted_at":"2026-01-02T03:04:05.678Z","replayed":true}`
)

func wish() client.Wish {
	return client.Wish{
		Sale: "drop", Ticket: "t", Key: client.NewKey(), Total: engine.Money{Amount: 3000, Currency: "KRW"},
		Lines: []engine.Line{{SKU: "MUG", Quantity: 2, Price: 1500}},
	}
}

func TestOrderRepeatsUnderOneKeyUntilTheAnswerIsFinal(t *testing.T) {
	s, c := setup(t,
		step{status: 503, body: `{"type":"/problems/outcome-unknown","status":503,"order":"` + id + `"}`},
		step{status: 0},
		step{status: 429, body: `{"type":"/problems/throttled","status":429}`},
		step{status: 502, body: `<html>`},
		step{status: 200, body: `<html>a proxy's own page`},
		step{status: 202, body: accepted})
	w := wish()
	a, err := c.Order(t.Context(), w)
	if err != nil {
		t.Fatal(err)
	}
	if !a.Taken() || a.Order != id || a.State != "accepted" || a.Hold != "3.17" || !a.Replayed || a.Attempts != 6 || a.AcceptedAt.UnixMilli()%1000 != 678 {
		t.Errorf("%+v", a)
	}
	for i, r := range s.seen {
		if r.path != "/v1/sales/drop/orders" || r.key != w.Key || r.ticket != "Ticket t" || r.body != s.seen[0].body || (r.replay == "1") != (i > 0) {
			t.Errorf("attempt %d: %+v", i+1, r)
		}
	}
	if want := `{"lines":[{"sku":"MUG","quantity":2}],"total":{"amount":3000,"currency":"KRW"}}`; s.seen[0].body != want {
		t.Errorf("body %s", s.seen[0].body)
	}
}

func TestFinalAnswersAreNotRepeated(t *testing.T) {
	for _, st := range []step{
		{status: 409, body: `{"type":"/problems/sold-out","status":409,"may_return":true}`},
		{status: 422, body: `{"type":"/problems/invalid","status":422}`},
		{status: 401, body: `{"type":"/problems/ticket-invalid","status":401}`},
		{status: 200, body: strings.Replace(accepted, "accepted\"", "cancelled\"", 1)},
	} {
		s, c := setup(t, st)
		a, err := c.Order(t.Context(), wish())
		if err != nil || len(s.seen) != 1 || a.Status != st.status {
			t.Errorf("%+v %v, %d attempts", a, err, len(s.seen))
		}
		if st.status == 409 && (a.Type != "sold-out" || !a.MayReturn || a.Taken()) {
			t.Errorf("%+v", a)
		}
		if st.status == 200 && a.State != "cancelled" {
			t.Errorf("%+v", a)
		}
	}
}

func TestOrderEndsWithItsContext(t *testing.T) {
	_, c := setup(t, step{status: 503, retry: "60", body: `{"type":"/problems/outcome-unknown","order":"` + id + `"}`})
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	a, err := c.Order(ctx, wish())
	if !errors.Is(err, context.DeadlineExceeded) || a.Status != 503 || a.Order != id || a.RetryAfter != time.Minute {
		t.Errorf("%+v %v", a, err)
	}
}

func TestSale(t *testing.T) {
	_, c := setup(t,
		step{status: 200, body: `{"sale":"drop","state":"open","opens":"2026-01-02T03:04:05.678Z","closes":"2026-01-02T04:04:05.678Z","now":"2026-01-02T03:04:06Z","currency":"KRW","limit":2,"version":1,"items":[{"sku":"MUG","price":1500,"units":10,"available":8,"held":1,"sold":1}]}`},
		step{status: 404, body: `{"type":"/problems/not-found","status":404,"detail":"no"}`})
	s, err := c.Sale(t.Context(), "drop")
	if err != nil || s.State != "open" || len(s.Items) != 1 || s.Items[0].Available != 8 || s.Now.IsZero() {
		t.Errorf("%+v %v", s, err)
	}
	var p *client.ProblemError
	if _, err := c.Sale(t.Context(), "drop"); !errors.As(err, &p) || p.Status != 404 || p.Type != "not-found" {
		t.Errorf("%v", err)
	}
}

func TestNewRefuses(t *testing.T) {
	for _, u := range []string{"", "localhost:80", "ftp://x", "http://", "http://%"} {
		if _, err := client.New(client.Config{URL: u}); err == nil {
			t.Errorf("%q accepted", u)
		}
	}
	if k := client.NewKey(); engine.ValidateKey([]byte(k)) != nil || k == client.NewKey() {
		t.Error("keys")
	}
	if _, err := json.Marshal(client.Sale{}); err != nil {
		t.Error(err)
	}
}
