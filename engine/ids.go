package engine

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base32"
	"encoding/binary"
	"fmt"
	"hash"
	"strconv"
	"strings"
	"sync"
)

// Limits on the names a caller may send. They keep '|', ',' and control bytes
// out of records, which are separated by them.
const (
	MaxSaleIDLen  = 40 // bytes
	MaxSKULen     = 40 // bytes
	MaxBuyerIDLen = 64 // bytes
	MaxKeyLen     = 64 // bytes of an Idempotency-Key
	OrderIDLen    = 26 // base32 digits, 130 bits
	MaxIdentities = 3  // identity hashes behind one buyer
)

// SaleID names a sale: lower-case letters, digits and '-', at most MaxSaleIDLen
// bytes. It is the Redis Cluster hash tag of everything the sale owns there.
type SaleID string

// SKU names an item within a sale.
type SKU string

// BuyerID names a buyer as the issuer of his ticket knows him.
type BuyerID string

// Identity is a truncated hash of something behind a buyer (payment
// instrument, address, phone) on which a limit is counted.
type Identity [8]byte

// OrderID is OrderIDLen lower-case base32 digits (RFC 4648 alphabet), derived
// from sale, buyer and Idempotency-Key: see [OrderKey].
type OrderID string

// Hold names one accept: the epoch in which it was made and its sequence number
// there. It is kept through rebuilds, so it may be older than the epoch it is
// found in. Epoch 0 means: made by the release row whose id is Seq.
type Hold struct {
	Epoch int64
	Seq   int64
}

// String writes a hold as "epoch.seq", the form ParseHold reads.
func (h Hold) String() string {
	return strconv.FormatInt(h.Epoch, 10) + "." + strconv.FormatInt(h.Seq, 10)
}

// ParseHold reads the form that Hold.String writes.
func ParseHold(s string) (Hold, error) {
	epoch, seq, ok := strings.Cut(s, ".")
	e, err1 := strconv.ParseInt(epoch, 10, 64)
	n, err2 := strconv.ParseInt(seq, 10, 64)
	if !ok || err1 != nil || err2 != nil || e < 0 || n < 0 {
		return Hold{}, fmt.Errorf("hold %q is not epoch.seq", s)
	}
	return Hold{Epoch: e, Seq: n}, nil
}

// Validate tells why the id cannot name a sale, or nil.
func (id SaleID) Validate() error {
	if id == "" || len(id) > MaxSaleIDLen || id[0] == '-' {
		return fmt.Errorf("sale id %q: want 1 to %d of a-z, 0-9 and '-', not beginning with '-'", string(id), MaxSaleIDLen)
	}
	for i := range len(id) {
		if c := id[i]; !isLower(c) && !isDigit(c) && c != '-' {
			return fmt.Errorf("sale id %q: byte %d is not a-z, 0-9 or '-'", string(id), i)
		}
	}
	return nil
}

// Validate tells why the SKU cannot name an item, or nil.
func (s SKU) Validate() error {
	return validateName("sku", string(s), MaxSKULen, "._-")
}

// Validate tells why the id cannot name a buyer, or nil.
func (b BuyerID) Validate() error {
	return validateName("buyer", string(b), MaxBuyerIDLen, "._-@:+")
}

// Validate tells why the id cannot name an order, or nil.
func (id OrderID) Validate() error {
	if len(id) != OrderIDLen {
		return fmt.Errorf("order id %q: want %d base32 digits", string(id), OrderIDLen)
	}
	for i := range len(id) {
		if c := id[i]; !isLower(c) && (c < '2' || c > '7') {
			return fmt.Errorf("order id %q: byte %d is not a base32 digit (a-z, 2-7)", string(id), i)
		}
	}
	return nil
}

// ValidateKey tells why an Idempotency-Key cannot be used, or nil: printable
// ASCII, 1 to MaxKeyLen bytes.
func ValidateKey(key []byte) error {
	if len(key) == 0 || len(key) > MaxKeyLen {
		return fmt.Errorf("Idempotency-Key: want 1 to %d printable ASCII bytes, got %d", MaxKeyLen, len(key))
	}
	for i, c := range key {
		if c < 0x21 || c > 0x7e {
			return fmt.Errorf("Idempotency-Key: byte %d is not printable ASCII", i)
		}
	}
	return nil
}

func validateName(what, s string, most int, extra string) error {
	if s == "" || len(s) > most {
		return fmt.Errorf("%s %q: want 1 to %d bytes", what, s, most)
	}
	for i := range len(s) {
		c := s[i]
		if isLower(c) || isDigit(c) || (c >= 'A' && c <= 'Z') {
			continue
		}
		if i == 0 || strings.IndexByte(extra, c) < 0 {
			return fmt.Errorf("%s %q: byte %d is not allowed (letters, digits and, after the first, %s)", what, s, i, extra)
		}
	}
	return nil
}

func isLower(c byte) bool { return c >= 'a' && c <= 'z' }
func isDigit(c byte) bool { return c >= '0' && c <= '9' }

var orderDigits = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// OrderKey derives order ids for one sale. Safe for use by many goroutines.
type OrderKey struct {
	macs sync.Pool
	sale SaleID
}

// NewOrderKey derives the sale's own id key from a numbered master key. The
// master key must be at least 32 bytes; its number is fixed for a sale's life,
// because another key would give a repeated request another order.
func NewOrderKey(master []byte, number int, sale SaleID) (*OrderKey, error) {
	if len(master) < 32 {
		return nil, fmt.Errorf("order id master key %d has %d bytes, want at least 32", number, len(master))
	}
	mac := hmac.New(sha256.New, master)
	mac.Write([]byte("doorbuster order id 1\x00"))
	mac.Write([]byte(sale))
	key := mac.Sum(nil)
	return &OrderKey{sale: sale, macs: sync.Pool{New: func() any {
		return &orderMAC{mac: hmac.New(sha256.New, key)}
	}}}, nil
}

type orderMAC struct {
	mac hash.Hash
	buf [2*MaxKeyLen + 64 + 12]byte
	sum [sha256.Size]byte
}

// AppendID appends the id of the order that this buyer asks for under this key:
// base32(HMAC-SHA256(sale key, length-prefixed sale, buyer, key)), 130 bits. The
// same three always give the same id; nobody without the key can guess one.
func (k *OrderKey) AppendID(dst []byte, buyer BuyerID, key []byte) []byte {
	m := k.macs.Get().(*orderMAC)
	b := m.buf[:0]
	b = binary.BigEndian.AppendUint16(b, uint16(len(k.sale)))
	b = append(b, k.sale...)
	b = binary.BigEndian.AppendUint16(b, uint16(len(buyer)))
	b = append(b, buyer...)
	b = binary.BigEndian.AppendUint16(b, uint16(len(key)))
	b = append(b, key...)
	m.mac.Reset()
	m.mac.Write(b)
	sum := m.mac.Sum(m.sum[:0])
	var digits [28]byte // 17 bytes make 28 digits; the first 26 carry 130 bits
	orderDigits.Encode(digits[:], sum[:17])
	k.macs.Put(m)
	return append(dst, digits[:OrderIDLen]...)
}

// ID is AppendID as a string.
func (k *OrderKey) ID(buyer BuyerID, key []byte) OrderID {
	return OrderID(k.AppendID(nil, buyer, key))
}
