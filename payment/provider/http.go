package provider

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"net/url"
	"time"

	"github.com/doorbuster/doorbuster/engine"
)

const (
	// DefaultTimeout is how long HTTP waits for an answer before its outcome is
	// unknown.
	DefaultTimeout = 2 * time.Second
	// MaxConns bounds the connections of one HTTP client; calls above it wait.
	MaxConns = 128

	idleFor       = 30 * time.Second
	maxReplyBytes = 4 << 10
	maxLineBytes  = 4 << 10 // of the ledger
)

// Wire is a charge, or a request for one, as the sandbox's HTTP interface writes
// it (JSON). Amounts are in minor units.
//
//	POST /v1/charges                     {key, order, buyer, amount, currency} → Wire
//	GET  /v1/charges/{key}               → Wire, or 404
//	POST /v1/charges/{key}/capture       {amount, currency} → Wire; 404, 409
//	POST /v1/charges/{key}/void          → Wire; 409
//	POST /v1/charges/{key}/refunds       {refund_key, amount, currency} → Wire; 404, 409
//	GET  /ledger                         → one Wire per line
//
// 409 is a refusal, 422 a key used with other parameters, 429 says that nothing
// was done, 5xx says nothing at all.
type Wire struct {
	Key       string `json:"key,omitempty"`
	Order     string `json:"order,omitempty"`
	Buyer     string `json:"buyer,omitempty"`
	RefundKey string `json:"refund_key,omitempty"`
	Amount    int64  `json:"amount"`
	Captured  int64  `json:"captured,omitempty"`
	Refunded  int64  `json:"refunded,omitempty"`
	Currency  string `json:"currency,omitempty"`
	State     string `json:"state,omitempty"`
}

// ToWire writes a charge for the wire.
func ToWire(c *Charge) Wire {
	return Wire{
		Key: c.Key, Order: string(c.Order), Amount: c.Amount, Captured: c.Captured,
		Refunded: c.Refunded, Currency: c.Currency, State: c.State.String(),
	}
}

// Charge reads a charge from the wire.
func (w *Wire) Charge() (Charge, error) {
	st, err := ParseState(w.State)
	return Charge{
		Key: w.Key, Order: engine.OrderID(w.Order), Amount: w.Amount, Captured: w.Captured,
		Refunded: w.Refunded, Currency: w.Currency, State: st,
	}, err
}

// HTTP is a client of the sandbox's HTTP interface (see Wire).
type HTTP struct {
	url    string
	client *http.Client
	wait   time.Duration
}

// NewHTTP returns a client of the sandbox at this URL, as in
// http://127.0.0.1:17020. It does not connect yet.
func NewHTTP(url string) *HTTP {
	return &HTTP{url: url, wait: DefaultTimeout, client: &http.Client{Transport: &http.Transport{
		MaxConnsPerHost: MaxConns, MaxIdleConnsPerHost: MaxConns, IdleConnTimeout: idleFor,
		DisableCompression: true,
	}}}
}

// WithTimeout sets how long a call waits before its outcome is unknown. Call it
// before the first use.
func (p *HTTP) WithTimeout(d time.Duration) *HTTP {
	p.wait = d
	return p
}

// Close closes idle connections.
func (p *HTTP) Close() { p.client.CloseIdleConnections() }

// Authorise implements Provider.
func (p *HTTP) Authorise(ctx context.Context, r Request) (Auth, error) {
	reply, err := p.call(ctx, http.MethodPost, "/v1/charges", &Wire{
		Key: r.Key, Order: string(r.Order), Buyer: string(r.Buyer), Amount: r.Amount.Amount, Currency: r.Amount.Currency,
	})
	if err != nil {
		return Auth{}, fmt.Errorf("authorise %s: %w", r.Key, err)
	}
	switch reply.State {
	case StateAuthorised, StateCaptured, StateRefunded:
		return Auth{Outcome: Approved}, nil
	}
	return Auth{Outcome: Declined}, nil
}

// Capture implements Provider.
func (p *HTTP) Capture(ctx context.Context, key string, amount engine.Money) error {
	return p.change(ctx, key, "capture", &Wire{Amount: amount.Amount, Currency: amount.Currency})
}

// Void implements Provider.
func (p *HTTP) Void(ctx context.Context, key string) error {
	return p.change(ctx, key, "void", &Wire{})
}

// Refund implements Provider.
func (p *HTTP) Refund(ctx context.Context, key, refundKey string, amount engine.Money) error {
	return p.change(ctx, key, "refunds", &Wire{RefundKey: refundKey, Amount: amount.Amount, Currency: amount.Currency})
}

// Lookup implements Provider.
func (p *HTTP) Lookup(ctx context.Context, key string) (Charge, error) {
	c, err := p.call(ctx, http.MethodGet, "/v1/charges/"+url.PathEscape(key), nil)
	if err != nil {
		return Charge{}, fmt.Errorf("look up %s: %w", key, err)
	}
	return c, nil
}

func (p *HTTP) change(ctx context.Context, key, what string, w *Wire) error {
	if _, err := p.call(ctx, http.MethodPost, "/v1/charges/"+url.PathEscape(key)+"/"+what, w); err != nil {
		return fmt.Errorf("%s %s: %w", what, key, err)
	}
	return nil
}

// call sends one request and waits for its answer at most p.wait. Whatever is not
// a complete, understood answer is ErrUnknown.
func (p *HTTP) call(ctx context.Context, method, path string, w *Wire) (Charge, error) {
	ctx, cancel := context.WithTimeout(ctx, p.wait)
	defer cancel()
	var body []byte
	if w != nil {
		var err error
		if body, err = json.Marshal(w); err != nil {
			return Charge{}, err
		}
	}
	req, err := http.NewRequestWithContext(ctx, method, p.url+path, bytes.NewReader(body))
	if err != nil {
		return Charge{}, err
	}
	// No GetBody: net/http would send the request again by itself on a connection
	// that went away, and whoever counts calls would be surprised.
	req.GetBody = nil
	resp, err := p.client.Do(req)
	if err != nil {
		return Charge{}, unknown(err)
	}
	defer func() { _ = resp.Body.Close() }()
	reply, err := io.ReadAll(io.LimitReader(resp.Body, maxReplyBytes))
	if err != nil {
		return Charge{}, unknown(err)
	}
	return answer(resp.StatusCode, reply)
}

func answer(status int, reply []byte) (Charge, error) {
	switch status {
	case http.StatusOK:
		var w Wire
		if err := json.Unmarshal(reply, &w); err != nil {
			return Charge{}, unknown(err)
		}
		c, err := w.Charge()
		if err != nil {
			return Charge{}, unknown(err)
		}
		return c, nil
	case http.StatusNotFound:
		return Charge{}, ErrNotFound
	case http.StatusConflict:
		return Charge{}, fmt.Errorf("%w: %s", ErrRefused, bytes.TrimSpace(reply))
	case http.StatusUnprocessableEntity:
		return Charge{}, fmt.Errorf("%w: %s", ErrMismatch, bytes.TrimSpace(reply))
	case http.StatusTooManyRequests:
		return Charge{}, ErrThrottled
	}
	return Charge{}, unknown(fmt.Errorf("status %d", status))
}

func unknown(err error) error { return errors.Join(ErrUnknown, err) }

// Ledger implements Auditor. It is not bound by the time-out of the calls, only by
// ctx.
func (p *HTTP) Ledger(ctx context.Context) iter.Seq2[Charge, error] {
	return func(yield func(Charge, error) bool) {
		if err := p.readLedger(ctx, func(c Charge) bool { return yield(c, nil) }); err != nil {
			yield(Charge{}, fmt.Errorf("read the ledger of %s: %w", p.url, err))
		}
	}
}

func (p *HTTP) readLedger(ctx context.Context, yield func(Charge) bool) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.url+"/ledger", nil)
	if err != nil {
		return err
	}
	resp, err := p.client.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("status %d", resp.StatusCode)
	}
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, maxLineBytes)
	n := 0
	for ; lines.Scan(); n++ {
		var w Wire
		if err := json.Unmarshal(lines.Bytes(), &w); err != nil {
			return fmt.Errorf("line %d: %w", n+1, err)
		}
		c, err := w.Charge()
		if err != nil {
			return fmt.Errorf("line %d: %w", n+1, err)
		}
		if !yield(c) {
			return nil
		}
	}
	if err := lines.Err(); err != nil {
		return err
	}
	// A stream that broke off must not pass for a short ledger.
	if want := resp.Trailer.Get(LedgerCount); want != fmt.Sprint(n) {
		return fmt.Errorf("%d charges came, the sandbox sent %q", n, want)
	}
	return nil
}

// LedgerCount is the trailer in which the sandbox says how many charges it sent.
const LedgerCount = "Ledger-Count"
