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
	"errors"
	"net/http"
	"time"

	"github.com/doorbuster/doorbuster/engine"
)

// Config says whom the client talks to.
type Config struct {
	URL     string        // of the door: http://host:port
	HTTP    *http.Client  // default: one with its own connections
	Attempt time.Duration // time-out of one attempt; default 5 s
}

// Client calls the HTTP API.
type Client struct{ cfg Config }

// Wish is what a buyer wants. Key must be new for each wish and is kept while it
// is repeated: NewKey makes one.
type Wish struct {
	Sale   engine.SaleID
	Ticket string
	Key    string
	Lines  []engine.Line // prices are not sent
	Total  engine.Money
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

// Taken tells whether the buyer has an order.
func (a *Answer) Taken() bool { return a.Status == 200 || a.Status == 202 }

// New returns a client.
func New(cfg Config) (*Client, error) { return &Client{cfg: cfg}, nil }

// Order asks for an order until the answer is final or ctx ends.
func (c *Client) Order(ctx context.Context, w Wish) (Answer, error) {
	return Answer{}, errors.ErrUnsupported
}
