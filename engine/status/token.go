package status

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/valyala/fasthttp"

	"github.com/doorbuster/doorbuster/engine"
	"github.com/doorbuster/doorbuster/engine/ticket"
)

// TokenConfig says which bearer tokens are believed: EdDSA, with an expiry, from
// this issuer, for this audience. Keys are by key id ("kid"); none turns bearer
// tokens off.
type TokenConfig struct {
	Issuer, Audience string
	Keys             map[string]ed25519.PublicKey
}

// Token is a token to mint.
type Token struct {
	KeyID            string
	Issuer, Audience string
	Buyer            string // the subject
	Expires          time.Time
}

const maxTokenLen = 2 << 10 // bytes of a bearer token

// MintToken signs a bearer token.
func MintToken(key ed25519.PrivateKey, t Token) (string, error) {
	if len(key) != ed25519.PrivateKeySize {
		return "", fmt.Errorf("mint token: the key has %d bytes, want %d", len(key), ed25519.PrivateKeySize)
	}
	if err := engine.BuyerID(t.Buyer).Validate(); err != nil {
		return "", fmt.Errorf("mint token: %w", err)
	}
	if t.Expires.IsZero() {
		return "", errors.New("mint token: it must expire")
	}
	token := jwt.NewWithClaims(jwt.SigningMethodEdDSA, jwt.RegisteredClaims{
		Issuer: t.Issuer, Audience: jwt.ClaimStrings{t.Audience}, Subject: t.Buyer,
		IssuedAt: jwt.NewNumericDate(time.Now()), ExpiresAt: jwt.NewNumericDate(t.Expires),
	})
	token.Header["kid"] = t.KeyID
	signed, err := token.SignedString(key)
	if err != nil {
		return "", fmt.Errorf("mint token: %w", err)
	}
	return signed, nil
}

// tokens verifies bearer tokens.
type tokens struct {
	keys   map[string]ed25519.PublicKey
	parser *jwt.Parser
}

func newTokens(cfg TokenConfig, now func() time.Time) (*tokens, error) {
	if len(cfg.Keys) > 0 && (cfg.Issuer == "" || cfg.Audience == "") {
		return nil, errors.New("status: bearer tokens need an issuer and an audience")
	}
	for id, key := range cfg.Keys {
		if len(key) != ed25519.PublicKeySize {
			return nil, fmt.Errorf("status: token key %q has %d bytes, want %d", id, len(key), ed25519.PublicKeySize)
		}
	}
	return &tokens{keys: cfg.Keys, parser: jwt.NewParser(
		jwt.WithValidMethods([]string{jwt.SigningMethodEdDSA.Alg()}), jwt.WithIssuer(cfg.Issuer),
		jwt.WithAudience(cfg.Audience), jwt.WithExpirationRequired(), jwt.WithTimeFunc(now),
	)}, nil
}

var errToken = errors.New("token invalid")

func (t *tokens) buyer(token string) (engine.BuyerID, error) {
	if len(t.keys) == 0 || len(token) > maxTokenLen {
		return "", errToken
	}
	var claims jwt.RegisteredClaims
	_, err := t.parser.ParseWithClaims(token, &claims, func(tok *jwt.Token) (any, error) {
		id, _ := tok.Header["kid"].(string)
		key, ok := t.keys[id]
		if !ok {
			return nil, errToken
		}
		return key, nil
	})
	if err != nil {
		return "", fmt.Errorf("%w: %w", errToken, err)
	}
	buyer := engine.BuyerID(claims.Subject)
	return buyer, buyer.Validate()
}

// asker is who asks: a buyer, by his ticket for one sale or by a token for all.
type asker struct {
	buyer engine.BuyerID
	sale  engine.SaleID // of the ticket; empty: all
}

// may tells whether he may see an order of that buyer and sale.
func (a asker) may(buyer engine.BuyerID, sale engine.SaleID) bool {
	return a.buyer == buyer && (a.sale == "" || a.sale == sale)
}

// who reads the Authorization header. A ticket is read whatever its times say:
// an order outlives the ticket it was bought with.
func (s *Status) who(ctx *fasthttp.RequestCtx) (asker, bool) {
	scheme, token := cutScheme(ctx.Request.Header.Peek(fasthttp.HeaderAuthorization))
	switch scheme {
	case "ticket":
		if s.cfg.Tickets == nil {
			return asker{}, false
		}
		var c ticket.Claims
		if s.cfg.Tickets.Verify(&c, token) != nil {
			return asker{}, false
		}
		return asker{buyer: engine.BuyerID(c.Buyer), sale: engine.SaleID(c.Sale)}, true
	case "bearer":
		buyer, err := s.tokens.buyer(string(token))
		return asker{buyer: buyer}, err == nil
	}
	return asker{}, false
}

// cutScheme splits an Authorization header; the scheme comes in lower case (RFC
// 9110 section 11.1: it is case-insensitive).
func cutScheme(header []byte) (scheme string, token []byte) {
	for i, c := range header {
		if c != ' ' {
			continue
		}
		b := make([]byte, i)
		for j := range b {
			b[j] = header[j] | 0x20
		}
		return string(b), header[i+1:]
	}
	return "", nil
}
