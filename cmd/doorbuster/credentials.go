package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"time"

	"github.com/doorbuster/doorbuster/engine"
	"github.com/doorbuster/doorbuster/engine/status"
	"github.com/doorbuster/doorbuster/engine/ticket"
)

// What tokens of `doorbuster token mint` say of themselves.
const (
	tokenIssuer   = "doorbuster"
	tokenAudience = "doorbuster"
	tokenKeyID    = "local-1"
	maxMint       = 10_000_000 // tickets of one call
)

// TicketCmd groups what is done with tickets.
type TicketCmd struct {
	Mint TicketMintCmd `cmd:"" help:"Write tickets to a file, one a line, each its own buyer."`
}

// TicketMintCmd mints tickets.
type TicketMintCmd struct {
	Sale   string        `required:"" help:"Sale id."`
	Count  int           `required:"" help:"Number of tickets."`
	Out    string        `required:"" help:"File to write, one ticket a line; - for standard output." placeholder:"FILE"`
	Prefix string        `help:"Buyers are PREFIX1, PREFIX2, …" default:"buyer-"`
	Max    uint32        `help:"Units each buyer may have; 0 leaves it to the sale's limit."`
	From   time.Duration `help:"Valid from now plus this." default:"-1m"`
	For    time.Duration `help:"Valid for this long." default:"48h"`
}

// Run mints the tickets.
func (c *TicketMintCmd) Run(_ context.Context, g *Globals) (err error) {
	if c.Count < 1 || c.Count > maxMint {
		return fmt.Errorf("--count: want 1 to %d", maxMint)
	}
	keys, err := g.ticketKeys()
	if err != nil {
		return err
	}
	out := bufio.NewWriterSize(g.Stdout, 1<<16)
	if c.Out != "-" {
		f, err := os.Create(c.Out)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, f.Close()) }()
		out.Reset(f)
	}
	from := time.Now().Add(c.From)
	t := ticket.Ticket{
		Sale: engine.SaleID(c.Sale), Max: c.Max,
		NotBefore: from.UnixMilli(), NotAfter: from.Add(c.For).UnixMilli(),
	}
	for i := range c.Count {
		t.Buyer = engine.BuyerID(fmt.Sprintf("%s%d", c.Prefix, i+1))
		token, err := keys.Mint(&t)
		if err != nil {
			return err
		}
		_, _ = out.WriteString(token) // the first error of a bufio.Writer stays and comes with Flush
		_ = out.WriteByte('\n')
	}
	if c.Out != "-" {
		fmt.Fprintf(g.Stdout, "%d tickets of sale %s in %s\n", c.Count, c.Sale, c.Out)
	}
	return out.Flush()
}

// ticketKeys is the ring that verifies and mints.
func (g *Globals) ticketKeys() (*ticket.Keys, error) {
	s, err := g.secrets()
	if err != nil {
		return nil, err
	}
	numbers, err := numbered("ticket_keys", s.TicketKeys)
	if err != nil {
		return nil, err
	}
	ring := make(map[uint8][]byte, len(numbers))
	for n, key := range numbers {
		if n < 0 || n > math.MaxUint8 {
			return nil, fmt.Errorf("secrets: ticket_keys: number %d: want 0 to %d", n, math.MaxUint8)
		}
		ring[uint8(n)] = key
	}
	return ticket.NewKeys(uint8(s.TicketKey), ring)
}

// TokenCmd groups what is done with bearer tokens.
type TokenCmd struct {
	Mint TokenMintCmd `cmd:"" help:"Print a bearer token (EdDSA JWT) for a buyer."`
}

// TokenMintCmd mints a token.
type TokenMintCmd struct {
	JSON  JSONFlag      `help:"Print JSON." name:"json"`
	Buyer string        `required:"" help:"Buyer id."`
	For   time.Duration `help:"Valid for this long." default:"1h"`
}

// Run mints the token.
func (c *TokenMintCmd) Run(_ context.Context, g *Globals) error {
	if err := engine.BuyerID(c.Buyer).Validate(); err != nil {
		return err
	}
	s, err := g.secrets()
	if err != nil {
		return err
	}
	key, err := s.tokenKey()
	if err != nil {
		return err
	}
	token, err := status.MintToken(key, status.Token{
		KeyID: tokenKeyID, Issuer: tokenIssuer, Audience: tokenAudience,
		Buyer: c.Buyer, Expires: time.Now().Add(c.For),
	})
	if err != nil {
		return err
	}
	return g.say(map[string]string{"token": token}, "%s\n", token)
}
