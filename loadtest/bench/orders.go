package bench

import (
	"crypto/rand"
	"strconv"

	"github.com/doorbuster/doorbuster/engine"
)

// ids makes baskets of distinct orders and buyers without the door's HMAC: where
// the stock or the rows alone are measured, making the order must cost little.
type ids struct {
	prefix string // base32 digits
	lines  []engine.Line
	body   uint64
}

const idDigits = "abcdefghijklmnopqrstuvwxyz234567"

// counterDigits hold the number of an order within a run: 32^6 of them.
const counterDigits = 6

func newIDs() *ids {
	b := basket()
	random := make([]byte, engine.OrderIDLen-counterDigits)
	_, _ = rand.Read(random) // never fails (crypto/rand)
	for i, c := range random {
		random[i] = idDigits[c&31]
	}
	return &ids{prefix: string(random), lines: b.Lines, body: engine.BodyHash(b.Lines, b.Total.Amount, b.Total.Currency)}
}

// basket returns the basket of order i. Safe for use by many goroutines.
func (s *ids) basket(i int) engine.Basket {
	var id [engine.OrderIDLen]byte
	copy(id[:], s.prefix)
	for at, n := engine.OrderIDLen-1, i; at >= len(s.prefix); at, n = at-1, n>>5 {
		id[at] = idDigits[n&31]
	}
	return engine.Basket{
		Order: engine.OrderID(id[:]), Buyer: engine.BuyerID("buyer-" + strconv.Itoa(i)),
		Lines: s.lines, Total: price, Body: s.body,
	}
}
