package ticket

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"hash"
	"sync"
)

// MinKeyLen is the least bytes of a ticket key.
const MinKeyLen = 32

// Keys is a ring of ticket keys by number: one mints, all verify. To turn a key
// out, first add the new one everywhere, then mint with it, and drop the old one
// when its last ticket has ended.
type Keys struct {
	mint uint8
	ring [256]*key
}

type key struct{ macs sync.Pool }

type mac struct {
	hash hash.Hash
	sum  [sha256.Size]byte
}

// NewKeys makes a ring of keys, each of at least MinKeyLen bytes, by number. mint
// is the number of the one that signs new tickets.
func NewKeys(mint uint8, secrets map[uint8][]byte) (*Keys, error) {
	k := &Keys{mint: mint}
	for number, secret := range secrets {
		if len(secret) < MinKeyLen {
			return nil, fmt.Errorf("ticket key %d has %d bytes, want at least %d", number, len(secret), MinKeyLen)
		}
		derive := hmac.New(sha256.New, secret)
		derive.Write([]byte{'t', 'i', 'c', 'k', 'e', 't', ' ', format, 0, number})
		own := derive.Sum(nil)
		k.ring[number] = &key{macs: sync.Pool{New: func() any { return &mac{hash: hmac.New(sha256.New, own)} }}}
	}
	if k.ring[mint] == nil {
		return nil, fmt.Errorf("ticket keys: number %d is to mint and is not among them", mint)
	}
	return k, nil
}

// Mint writes a ticket down and signs it. The error is the one of Validate.
func (k *Keys) Mint(t *Ticket) (string, error) {
	if err := t.Validate(); err != nil {
		return "", err
	}
	b := appendPayload(make([]byte, 0, maxBytes), k.mint, t)
	m := k.ring[k.mint].macs.Get().(*mac)
	b = append(b, m.of(b)...)
	k.ring[k.mint].macs.Put(m)
	return encoding.EncodeToString(b), nil
}

// Verify reads a token into c if a key of the ring signed it. It does not look
// at times nor at whose sale it is. The error is one of ErrShape, ErrKey and
// ErrMAC. It allocates nothing; token is not kept.
func (k *Keys) Verify(c *Claims, token []byte) error {
	if len(token) > MaxTokenLen {
		return ErrShape
	}
	n, err := encoding.Decode(c.buf[:], token)
	if err != nil || n < headLen+macLen || c.buf[0] != format || encoding.EncodedLen(n) != len(token) {
		return ErrShape // the last: Decode skips line breaks
	}
	own := k.ring[c.buf[1]]
	if own == nil {
		return ErrKey
	}
	payload, sent := c.buf[:n-macLen], c.buf[n-macLen:n]
	m := own.macs.Get().(*mac)
	same := subtle.ConstantTimeCompare(m.of(payload), sent)
	own.macs.Put(m)
	if same != 1 {
		return ErrMAC
	}
	return c.parse(payload)
}

func (m *mac) of(b []byte) []byte {
	m.hash.Reset()
	m.hash.Write(b)
	return m.hash.Sum(m.sum[:0])[:macLen]
}
