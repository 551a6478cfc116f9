package status

import (
	"context"
	"crypto/ed25519"
	"errors"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/valyala/fasthttp"
)

// Config wires a Status. Orders, Stock and one of Tickets and Tokens are needed.
type Config struct {
	Orders     Orders
	Stock      Records
	Tickets    Tickets
	Tokens     TokenConfig
	MaxStreams int // live streams at once; 0 is DefaultMaxStreams
	MaxQueries int // questions to PostgreSQL at once; 0 is DefaultMaxQueries
	Logger     *slog.Logger
	Registerer prometheus.Registerer
	Now        func() time.Time
}

// Orders is what it asks of engine/orders (*orders.Store has it).
type Orders interface{}

// Records is what it asks of stock (*stock.Store has it).
type Records interface{}

// Tickets is what it asks of engine/ticket (*ticket.Keys has it).
type Tickets interface{}

// TokenConfig says which bearer tokens are believed: EdDSA, with an expiry, from
// this issuer, for this audience. Keys are by key id ("kid"); none turns bearer
// tokens off.
type TokenConfig struct {
	Issuer, Audience string
	Keys             map[string]ed25519.PublicKey
}

// Token is a token to mint: subject is the buyer.
type Token struct {
	KeyID            string
	Issuer, Audience string
	Buyer            string
	Expires          time.Time
}

// MintToken signs a bearer token.
func MintToken(key ed25519.PrivateKey, t Token) (string, error) { return "", errStub }

var errStub = errors.New("not written yet")

// Defaults of the bounds.
const (
	DefaultMaxStreams = 10_000
	DefaultMaxQueries = 8
)

// Status answers the routes of this package.
type Status struct{}

// New checks the configuration.
func New(Config) (*Status, error) { return nil, errStub }

// Run polls for watched orders until ctx ends, and then ends all streams.
func (s *Status) Run(context.Context) error { return errStub }

// Handle answers if the route is its own, and tells whether it was.
func (s *Status) Handle(*fasthttp.RequestCtx) bool { return false }
