package provider_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/doorbuster/doorbuster/engine"
	"github.com/doorbuster/doorbuster/payment/provider"
	"github.com/doorbuster/doorbuster/payment/provider/sandbox"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var won = func(n int64) engine.Money { return engine.Money{Amount: n, Currency: "KRW"} }

func orderID(n int) engine.OrderID {
	id := []byte(strings.Repeat("a", engine.OrderIDLen))
	for i := len(id) - 1; n > 0; i-- {
		id[i] = "abcdefghijklmnopqrstuvwxyz234567"[n%32]
		n /= 32
	}
	return engine.OrderID(id)
}

func request(n int) provider.Request {
	return provider.Request{Key: provider.Key(orderID(n), 1), Order: orderID(n), Buyer: "buyer", Amount: won(1000)}
}

type audited interface {
	provider.Provider
	provider.Auditor
}

// overHTTP starts a sandbox and returns a client of it.
func overHTTP(t *testing.T, script sandbox.Script) *provider.HTTP {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- sandbox.Serve(ctx, ln, script, filepath.Join(t.TempDir(), "ledger")) }()
	p := provider.NewHTTP("http://" + ln.Addr().String())
	t.Cleanup(func() {
		p.Close()
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("sandbox: %v", err)
		}
	})
	return p
}

// both returns one provider of each kind.
func both(t *testing.T) map[string]audited {
	t.Helper()
	return map[string]audited{"instant": provider.NewInstant(), "http": overHTTP(t, sandbox.Script{})}
}

func ledger(t *testing.T, p provider.Auditor) map[string]provider.Charge {
	t.Helper()
	all := make(map[string]provider.Charge)
	for c, err := range p.Ledger(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		all[c.Key] = c
	}
	return all
}

func TestOneChargePerKey(t *testing.T) {
	t.Parallel()
	for name, p := range both(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := request(1)
			var calls sync.WaitGroup
			for range 8 {
				calls.Go(func() {
					if a, err := p.Authorise(t.Context(), r); err != nil || a.Outcome != provider.Approved {
						t.Errorf("authorise: %+v, %v", a, err)
					}
				})
			}
			calls.Wait()
			for range 3 {
				if err := p.Capture(t.Context(), r.Key, won(1000)); err != nil {
					t.Fatal(err)
				}
			}
			if a, err := p.Authorise(t.Context(), r); err != nil || a.Outcome != provider.Approved {
				t.Errorf("authorise after capture: %+v, %v", a, err)
			}
			want := provider.Charge{Key: r.Key, Order: r.Order, Amount: 1000, Captured: 1000, Currency: "KRW", State: provider.StateCaptured}
			if got := ledger(t, p); len(got) != 1 || got[r.Key] != want {
				t.Errorf("ledger %+v, want %+v", got, want)
			}
			r.Amount = won(1001)
			if _, err := p.Authorise(t.Context(), r); !errors.Is(err, provider.ErrMismatch) {
				t.Errorf("same key, another amount: %v", err)
			}
		})
	}
}

func TestVoidClosesItsKey(t *testing.T) {
	t.Parallel()
	for name, p := range both(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx := t.Context()
			early, late := request(1), request(2)
			if err := p.Void(ctx, early.Key); err != nil { // before any authorise arrived
				t.Fatal(err)
			}
			if _, err := p.Authorise(ctx, late); err != nil {
				t.Fatal(err)
			}
			for range 2 {
				if err := p.Void(ctx, late.Key); err != nil {
					t.Fatal(err)
				}
			}
			for _, r := range []provider.Request{early, late} {
				if a, err := p.Authorise(ctx, r); err != nil || a.Outcome != provider.Declined {
					t.Errorf("%s: authorise after void: %+v, %v", r.Key, a, err)
				}
				if err := p.Capture(ctx, r.Key, won(1000)); !errors.Is(err, provider.ErrRefused) {
					t.Errorf("%s: capture after void: %v", r.Key, err)
				}
				if c, err := p.Lookup(ctx, r.Key); err != nil || c.State != provider.StateVoided || c.Captured != 0 || c.Order != r.Order {
					t.Errorf("%s: %+v, %v", r.Key, c, err)
				}
			}
		})
	}
}

func TestCaptureAndRefundBounds(t *testing.T) {
	t.Parallel()
	for name, p := range both(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx := t.Context()
			r := request(1)
			if err := p.Capture(ctx, r.Key, won(1)); !errors.Is(err, provider.ErrNotFound) {
				t.Errorf("capture of nothing: %v", err)
			}
			if err := p.Refund(ctx, r.Key, "r1", won(1)); !errors.Is(err, provider.ErrNotFound) {
				t.Errorf("refund of nothing: %v", err)
			}
			if _, err := p.Lookup(ctx, r.Key); !errors.Is(err, provider.ErrNotFound) {
				t.Errorf("look up nothing: %v", err)
			}
			if _, err := p.Authorise(ctx, r); err != nil {
				t.Fatal(err)
			}
			for _, m := range []engine.Money{won(1001), won(-1), {Amount: 1000, Currency: "USD"}} {
				if err := p.Capture(ctx, r.Key, m); !errors.Is(err, provider.ErrRefused) {
					t.Errorf("capture %+v: %v", m, err)
				}
			}
			if err := p.Capture(ctx, r.Key, won(900)); err != nil {
				t.Fatal(err)
			}
			if err := p.Capture(ctx, r.Key, won(901)); !errors.Is(err, provider.ErrRefused) {
				t.Errorf("second capture: %v", err)
			}
			if err := p.Void(ctx, r.Key); !errors.Is(err, provider.ErrRefused) {
				t.Errorf("void after capture: %v", err)
			}
			for range 2 {
				if err := p.Refund(ctx, r.Key, "r1", won(400)); err != nil {
					t.Fatal(err)
				}
			}
			if err := p.Refund(ctx, r.Key, "r1", won(1)); !errors.Is(err, provider.ErrMismatch) {
				t.Errorf("refund key used again: %v", err)
			}
			if err := p.Refund(ctx, r.Key, "r2", won(501)); !errors.Is(err, provider.ErrRefused) {
				t.Errorf("refund above the rest: %v", err)
			}
			if c, _ := p.Lookup(ctx, r.Key); c.Captured != 900 || c.Refunded != 400 || c.State != provider.StateCaptured {
				t.Errorf("%+v", c)
			}
			if err := p.Refund(ctx, r.Key, "r2", won(500)); err != nil {
				t.Fatal(err)
			}
			if c, _ := p.Lookup(ctx, r.Key); c.Refunded != 900 || c.State != provider.StateRefunded {
				t.Errorf("%+v", c)
			}
		})
	}
}

func TestDeclineIsFinal(t *testing.T) {
	t.Parallel()
	instant := provider.NewInstant()
	instant.Decline = func(provider.Request) bool { return true }
	for name, p := range map[string]audited{"instant": instant, "http": overHTTP(t, sandbox.Script{DeclinePerMille: 1000})} {
		for range 2 {
			if a, err := p.Authorise(t.Context(), request(1)); err != nil || a.Outcome != provider.Declined {
				t.Errorf("%s: %+v, %v", name, a, err)
			}
		}
		if err := p.Void(t.Context(), request(1).Key); err != nil {
			t.Errorf("%s: void of a declined charge: %v", name, err)
		}
		if got := ledger(t, p)[request(1).Key].State; got != provider.StateDeclined {
			t.Errorf("%s: state %v", name, got)
		}
	}
}

func TestInstantBatch(t *testing.T) {
	t.Parallel()
	p := provider.NewInstant()
	rs := []provider.Request{request(1), request(2), request(3)}
	p.Decline = func(r provider.Request) bool { return r.Key == rs[1].Key }
	out := make([]provider.Auth, len(rs))
	if err := p.AuthoriseAll(t.Context(), rs, out); err != nil {
		t.Fatal(err)
	}
	if out[0].Outcome != provider.Approved || out[1].Outcome != provider.Declined || out[2].Outcome != provider.Approved {
		t.Errorf("%+v", out)
	}
	errs := make([]error, 2)
	if err := p.CaptureAll(t.Context(), []provider.Capture{{Key: rs[0].Key, Amount: won(1000)}, {Key: rs[1].Key, Amount: won(1000)}}, errs); err != nil {
		t.Fatal(err)
	}
	if errs[0] != nil || !errors.Is(errs[1], provider.ErrRefused) {
		t.Errorf("%v", errs)
	}
	for _, key := range []string{"", strings.Repeat("k", provider.MaxKey+1), "order"} {
		if _, err := p.Authorise(t.Context(), provider.Request{Key: key, Amount: won(1)}); !errors.Is(err, provider.ErrKey) {
			t.Errorf("key %q: %v", key, err)
		}
	}
}

func TestUnknownIsUnknown(t *testing.T) {
	t.Parallel()
	var status int
	var body string
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if status == 0 {
			_, _ = io.Copy(io.Discard, r.Body) // else net/http does not see the client go
			<-r.Context().Done()
			return
		}
		w.WriteHeader(status)
		_, _ = w.Write([]byte(body))
	}))
	defer srv.Close()
	p := provider.NewHTTP(srv.URL)
	defer p.Close()
	for _, c := range []struct {
		status int
		body   string
		want   error
	}{
		{500, "", provider.ErrUnknown},
		{502, "", provider.ErrUnknown},
		{503, "", provider.ErrUnknown},
		{301, "", provider.ErrUnknown},
		{400, "", provider.ErrUnknown},
		{200, "{", provider.ErrUnknown},
		{200, `{"state":"new"}`, provider.ErrUnknown},
		{429, "", provider.ErrThrottled},
		{404, "", provider.ErrNotFound},
		{409, "", provider.ErrRefused},
		{422, "", provider.ErrMismatch},
	} {
		status, body = c.status, c.body
		if _, err := p.Authorise(t.Context(), request(1)); !errors.Is(err, c.want) {
			t.Errorf("status %d %q: %v, want %v", c.status, c.body, err, c.want)
		}
	}
	status = 0
	if _, err := p.WithTimeout(20*time.Millisecond).Authorise(t.Context(), request(1)); !errors.Is(err, provider.ErrUnknown) {
		t.Errorf("time-out: %v", err)
	}
	gone := provider.NewHTTP("http://127.0.0.1:1")
	defer gone.Close()
	if err := gone.Void(t.Context(), "k:1"); !errors.Is(err, provider.ErrUnknown) {
		t.Errorf("nobody there: %v", err)
	}
}

func TestLedgerThatBrokeOffIsNotWhole(t *testing.T) {
	t.Parallel()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Trailer", provider.LedgerCount)
		_, _ = w.Write([]byte(`{"key":"k:1","amount":1,"currency":"KRW","state":"authorised"}` + "\n"))
		w.Header().Set(provider.LedgerCount, "2")
	}))
	defer srv.Close()
	p := provider.NewHTTP(srv.URL)
	defer p.Close()
	var last error
	for _, err := range p.Ledger(t.Context()) {
		last = err
	}
	if last == nil {
		t.Error("one of two charges came, and no error")
	}
}

func TestKeyRoundTrip(t *testing.T) {
	t.Parallel()
	order, attempt, err := provider.ParseKey(provider.Key(orderID(5), 3))
	if err != nil || order != orderID(5) || attempt != 3 {
		t.Errorf("%s %d %v", order, attempt, err)
	}
	for _, s := range []string{"", "x", "x:1", string(orderID(1)), string(orderID(1)) + ":0", string(orderID(1)) + ":x"} {
		if _, _, err := provider.ParseKey(s); err == nil {
			t.Errorf("%q: no error", s)
		}
	}
}
