// Package client is a small Go client of the HTTP API. It knows the repeat
// protocol, which is what makes an order safe over a network that loses answers:
// one Idempotency-Key per wish, kept over every attempt, and Idempotency-Replay
// after any answer that was not final.
//
// It owns nothing on the server and keeps no state but its connections. A Client
// is safe for many goroutines and starts none of its own; Close drops its idle
// connections. It imports engine only.
package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/doorbuster/doorbuster/engine"
)

const (
	defaultAttempt = 5 * time.Second
	firstBackoff   = 50 * time.Millisecond
	maxBackoff     = 2 * time.Second
	maxReply       = 64 << 10 // bytes of a reply that are read
)

// Config says whom the client talks to.
type Config struct {
	URL     string        // of the door: http://host:port
	HTTP    *http.Client  // default: one with its own connections
	Attempt time.Duration // time-out of one attempt; default 5 s
}

// Client calls the HTTP API.
type Client struct {
	cfg Config
}

// New returns a client, or an error if the URL is not one of HTTP.
func New(cfg Config) (*Client, error) {
	u, err := url.Parse(cfg.URL)
	if err != nil {
		return nil, fmt.Errorf("client: %w", err)
	}
	if (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
		return nil, fmt.Errorf("client: %q is not http://host:port", cfg.URL)
	}
	cfg.URL = strings.TrimSuffix(cfg.URL, "/")
	if cfg.HTTP == nil {
		cfg.HTTP = &http.Client{Transport: http.DefaultTransport.(*http.Transport).Clone()}
	}
	if cfg.Attempt <= 0 {
		cfg.Attempt = defaultAttempt
	}
	return &Client{cfg: cfg}, nil
}

// Close drops the idle connections.
func (c *Client) Close() { c.cfg.HTTP.CloseIdleConnections() }

// Item is one SKU of a sale as the door shows it.
type Item struct {
	SKU       engine.SKU `json:"sku"`
	Price     int64      `json:"price"` // minor units each
	Units     int64      `json:"units"`
	Available int64      `json:"available"`
	Held      int64      `json:"held"`
	Sold      int64      `json:"sold"`
}

// Sale is a sale as the door shows it.
type Sale struct {
	Sale     engine.SaleID `json:"sale"`
	State    string        `json:"state"` // scheduled, open, paused, closed or frozen
	Opens    time.Time     `json:"opens"`
	Closes   time.Time     `json:"closes"`
	Now      time.Time     `json:"now"` // the sale's own clock: the one its window goes by
	Currency string        `json:"currency"`
	Limit    int64         `json:"limit"` // units per buyer; 0 is none
	Version  int64         `json:"version"`
	Items    []Item        `json:"items"`
}

// Sale reads a sale. A *ProblemError is returned if the door shows none.
func (c *Client) Sale(ctx context.Context, id engine.SaleID) (Sale, error) {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.Attempt)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.cfg.URL+"/v1/sales/"+string(id), http.NoBody)
	if err != nil {
		return Sale{}, fmt.Errorf("read sale %s: %w", id, err)
	}
	status, _, body, err := c.do(req)
	if err != nil {
		return Sale{}, fmt.Errorf("read sale %s: %w", id, err)
	}
	if status != http.StatusOK {
		return Sale{}, fmt.Errorf("read sale %s: %w", id, problemOf(status, body))
	}
	var s Sale
	if err := json.Unmarshal(body, &s); err != nil {
		return Sale{}, fmt.Errorf("read sale %s: %w", id, err)
	}
	return s, nil
}

// ProblemError is a reply of type application/problem+json (RFC 9457).
type ProblemError struct {
	Status int
	Type   string // without "/problems/"
	Detail string
}

// Error says what the problem is.
func (p *ProblemError) Error() string { return fmt.Sprintf("%d %s: %s", p.Status, p.Type, p.Detail) }

func problemOf(status int, body []byte) *ProblemError {
	var p struct{ Type, Detail string }
	_ = json.Unmarshal(body, &p) // a proxy may have answered: then the status must do
	return &ProblemError{Status: status, Type: strings.TrimPrefix(p.Type, "/problems/"), Detail: p.Detail}
}

// do sends one request and reads the whole reply.
func (c *Client) do(req *http.Request) (status int, header http.Header, body []byte, err error) {
	resp, err := c.cfg.HTTP.Do(req)
	if err != nil {
		return 0, nil, nil, err
	}
	body, err = io.ReadAll(io.LimitReader(resp.Body, maxReply))
	err = errors.Join(err, resp.Body.Close())
	return resp.StatusCode, resp.Header, body, err
}

// pause waits as the server wished, or longer and longer, with jitter: those who
// were turned away together must not come back together.
func pause(ctx context.Context, wish time.Duration, attempt int) error {
	if wish <= 0 {
		wish = min(maxBackoff, firstBackoff<<min(attempt, 10))
	}
	t := time.NewTimer(wish/2 + rand.N(wish))
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
