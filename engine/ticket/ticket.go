package ticket

import (
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/doorbuster/doorbuster/engine"
)

const (
	format  = 1
	macLen  = 16
	timeLen = 8
	maxLen  = 4

	headLen    = 3 // format, key number, tier
	maxPayload = headLen + 1 + engine.MaxSaleIDLen + 1 + engine.MaxBuyerIDLen + 2*timeLen + maxLen +
		1 + engine.MaxIdentities*len(engine.Identity{})
	maxBytes = maxPayload + macLen
)

// MaxTokenLen is the most bytes a token has.
const MaxTokenLen = (maxBytes*8 + 5) / 6

// Why a token is refused. Every reason is an ErrInvalid.
var (
	ErrInvalid = errors.New("ticket invalid")
	ErrShape   = fmt.Errorf("%w: not a token of this format", ErrInvalid)
	ErrKey     = fmt.Errorf("%w: unknown key number", ErrInvalid)
	ErrMAC     = fmt.Errorf("%w: not signed by the key it names", ErrInvalid)
)

var encoding = base64.RawURLEncoding.Strict()

// Ticket is what a token says. It is valid in [NotBefore, NotAfter].
type Ticket struct {
	Sale       engine.SaleID
	Buyer      engine.BuyerID
	Tier       uint8             // of access; the door does not look at it
	NotBefore  int64             // Unix milliseconds
	NotAfter   int64             // Unix milliseconds
	Max        uint32            // units its buyer may have in this sale; 0 is no bound
	Identities []engine.Identity // at most engine.MaxIdentities, no two alike
}

// Validate tells why the ticket cannot be minted, or nil.
func (t *Ticket) Validate() error {
	if err := t.Sale.Validate(); err != nil {
		return err
	}
	if err := t.Buyer.Validate(); err != nil {
		return err
	}
	if t.NotBefore < 0 || t.NotAfter < t.NotBefore {
		return fmt.Errorf("ticket of buyer %s: not after (%d) lies before not before (%d)", t.Buyer, t.NotAfter, t.NotBefore)
	}
	if len(t.Identities) > engine.MaxIdentities {
		return fmt.Errorf("ticket of buyer %s: %d identities, at most %d", t.Buyer, len(t.Identities), engine.MaxIdentities)
	}
	for i := range t.Identities {
		for j := range i {
			if t.Identities[i] == t.Identities[j] {
				return fmt.Errorf("ticket of buyer %s: the same identity twice", t.Buyer)
			}
		}
	}
	return nil
}

// Claims is a verified ticket. Its slices point into the value itself, so it
// costs no memory of its own and must not be copied or used after it is verified
// into again. The zero value is ready for [Keys.Verify].
type Claims struct {
	Sale      []byte
	Buyer     []byte
	Tier      uint8
	NotBefore int64  // Unix milliseconds
	NotAfter  int64  // Unix milliseconds
	Max       uint32 // units; 0 is no bound

	Identities []engine.Identity

	buf [maxBytes + 2]byte
	ids [engine.MaxIdentities]engine.Identity
}

// Ticket copies the claims out.
func (c *Claims) Ticket() Ticket {
	return Ticket{
		Sale: engine.SaleID(c.Sale), Buyer: engine.BuyerID(c.Buyer), Tier: c.Tier,
		NotBefore: c.NotBefore, NotAfter: c.NotAfter, Max: c.Max,
		Identities: append([]engine.Identity(nil), c.Identities...),
	}
}

// appendPayload appends what the MAC covers.
func appendPayload(dst []byte, key uint8, t *Ticket) []byte {
	dst = append(dst, format, key, t.Tier, byte(len(t.Sale)))
	dst = append(dst, t.Sale...)
	dst = append(dst, byte(len(t.Buyer)))
	dst = append(dst, t.Buyer...)
	dst = binary.BigEndian.AppendUint64(dst, uint64(t.NotBefore))
	dst = binary.BigEndian.AppendUint64(dst, uint64(t.NotAfter))
	dst = binary.BigEndian.AppendUint32(dst, t.Max)
	dst = append(dst, byte(len(t.Identities)))
	for i := range t.Identities {
		dst = append(dst, t.Identities[i][:]...)
	}
	return dst
}

// parse reads a payload whose MAC was right. It still trusts no length.
func (c *Claims) parse(b []byte) error {
	c.Tier = b[2]
	rest := b[headLen:]
	var ok bool
	if c.Sale, rest, ok = cutField(rest); !ok {
		return ErrShape
	}
	if c.Buyer, rest, ok = cutField(rest); !ok {
		return ErrShape
	}
	if len(rest) < 2*timeLen+maxLen+1 {
		return ErrShape
	}
	c.NotBefore = int64(binary.BigEndian.Uint64(rest))
	c.NotAfter = int64(binary.BigEndian.Uint64(rest[timeLen:]))
	c.Max = binary.BigEndian.Uint32(rest[2*timeLen:])
	n := int(rest[2*timeLen+maxLen])
	rest = rest[2*timeLen+maxLen+1:]
	if n > engine.MaxIdentities || len(rest) != n*len(engine.Identity{}) {
		return ErrShape
	}
	for i := range n {
		copy(c.ids[i][:], rest[i*len(engine.Identity{}):])
	}
	c.Identities = c.ids[:n]
	return nil
}

func cutField(b []byte) (field, rest []byte, ok bool) {
	if len(b) == 0 || len(b) < 1+int(b[0]) {
		return nil, nil, false
	}
	n := 1 + int(b[0])
	return b[1:n], b[n:], true
}
