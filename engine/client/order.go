package client

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/doorbuster/doorbuster/engine"
)

// Wish is what a buyer wants. Key must be new for each wish and is kept while it
// is repeated: NewKey makes one.
type Wish struct {
	Sale   engine.SaleID
	Ticket string
	Key    string        // Idempotency-Key
	Lines  []engine.Line // prices are not sent
	Total  engine.Money  // what the buyer saw
}

// Answer is what the door said last.
type Answer struct {
	Status     int           // of HTTP; 0: no answer came
	Type       string        // of the problem, without "/problems/"; "" if the order was taken
	Detail     string        // of the problem
	Order      string        // order id, if known
	State      string        // accepted, confirmed or cancelled
	Hold       string        // epoch.seq
	AcceptedAt time.Time     // UTC
	Replayed   bool          // the order was taken by an earlier attempt
	MayReturn  bool          // sold out, but units are held and may come back
	RetryAfter time.Duration // the server's wish; 0 is none
	Attempts   int
}

// Taken tells whether the buyer has, or had, an order under his key.
func (a *Answer) Taken() bool {
	return a.Status == http.StatusOK || a.Status == http.StatusAccepted
}

// Final tells whether repeating under the same key could not change the answer
// while nothing else does.
func (a *Answer) Final() bool {
	switch {
	case a.Status == 0, a.Status >= http.StatusInternalServerError:
		return false
	case a.Status == http.StatusTooManyRequests, a.Status == http.StatusRequestTimeout:
		return false
	}
	return true
}

// NewKey makes an Idempotency-Key that nobody else has.
func NewKey() string { return rand.Text() }

// Order asks for an order until the answer is final or ctx ends. It is safe to
// call again with the same wish, also in another process: the same key is the
// same order. If ctx ends first the last answer is returned beside the error.
func (c *Client) Order(ctx context.Context, w Wish) (Answer, error) {
	body, err := w.body()
	if err != nil {
		return Answer{}, fmt.Errorf("order in sale %s: %w", w.Sale, err)
	}
	var a Answer
	for attempt := 0; ; attempt++ {
		last := a.Order
		a = c.attempt(ctx, &w, body, attempt > 0)
		if a.Attempts = attempt + 1; a.Order == "" {
			a.Order = last
		}
		if a.Final() {
			return a, nil
		}
		if err := pause(ctx, a.RetryAfter, attempt); err != nil {
			return a, fmt.Errorf("order in sale %s: after %d attempts: %w", w.Sale, a.Attempts, err)
		}
	}
}

// body writes what the door reads.
func (w *Wish) body() ([]byte, error) {
	type line struct {
		SKU      engine.SKU `json:"sku"`
		Quantity int64      `json:"quantity"`
	}
	b := struct {
		Lines []line       `json:"lines"`
		Total engine.Money `json:"total"`
	}{Total: w.Total}
	for _, l := range w.Lines {
		b.Lines = append(b.Lines, line{SKU: l.SKU, Quantity: l.Quantity})
	}
	return json.Marshal(b)
}

// attempt asks once. Whatever keeps an answer from coming is an answer of status
// 0: the order may have been taken all the same.
func (c *Client) attempt(ctx context.Context, w *Wish, body []byte, again bool) Answer {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.Attempt)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.cfg.URL+"/v1/sales/"+string(w.Sale)+"/orders", bytes.NewReader(body))
	if err != nil {
		return Answer{Detail: err.Error()}
	}
	// net/http repeats a request that has an Idempotency-Key by itself when its
	// connection breaks, and its repeat does not say that it is one: a buyer who
	// has the last unit would hear that it is sold out.
	req.GetBody = nil
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Ticket "+w.Ticket)
	req.Header.Set("Idempotency-Key", w.Key)
	if again {
		req.Header.Set("Idempotency-Replay", "1")
	}
	status, header, reply, err := c.do(req)
	if err != nil {
		return Answer{Detail: err.Error()}
	}
	a := read(status, reply)
	if n, err := strconv.Atoi(header.Get("Retry-After")); err == nil && n > 0 {
		a.RetryAfter = time.Duration(n) * time.Second
	}
	return a
}

// read reads a reply. A success that is not one of the door's (a proxy between)
// is no answer.
func read(status int, reply []byte) Answer {
	var b struct {
		Type       string    `json:"type"`
		Detail     string    `json:"detail"`
		Order      string    `json:"order"`
		Status     any       `json:"status"` // a word in an order, a number in a problem
		Hold       string    `json:"hold"`
		AcceptedAt time.Time `json:"accepted_at"`
		Replayed   bool      `json:"replayed"`
		MayReturn  bool      `json:"may_return"`
	}
	err := json.Unmarshal(reply, &b)
	a := Answer{
		Status: status, Type: strings.TrimPrefix(b.Type, "/problems/"), Detail: b.Detail, Order: b.Order, Hold: b.Hold,
		AcceptedAt: b.AcceptedAt, Replayed: b.Replayed, MayReturn: b.MayReturn,
	}
	a.State, _ = b.Status.(string)
	if a.Taken() && (err != nil || engine.OrderID(a.Order).Validate() != nil) {
		return Answer{Detail: "a success that names no order"}
	}
	return a
}
