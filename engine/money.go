package engine

import (
	"errors"
	"fmt"
	"math/bits"
)

// MaxAmount bounds every amount, in minor units (ISO 4217): large enough for any
// drop, small enough that sums of orders stay far from overflow and exact in a
// Lua number (2^53).
const MaxAmount = 1_000_000_000_000

// ErrAmount says that an amount is negative or above MaxAmount.
var ErrAmount = errors.New("amount out of range")

// Money is an amount in minor units of its currency (KRW and JPY have none, so
// there a unit is a won or a yen).
type Money struct {
	Amount   int64  `json:"amount"`   // minor units
	Currency string `json:"currency"` // ISO 4217, three capitals
}

// ValidateCurrency tells why the code is not an ISO 4217 code, or nil. It checks
// the form, not the register.
func ValidateCurrency(code string) error {
	if len(code) != 3 {
		return fmt.Errorf("currency %q: want three capitals, as in KRW or USD", code)
	}
	for i := range 3 {
		if code[i] < 'A' || code[i] > 'Z' {
			return fmt.Errorf("currency %q: want three capitals, as in KRW or USD", code)
		}
	}
	return nil
}

// Times multiplies a unit price by a quantity. Both must be in [0, MaxAmount],
// and so must the product; else ErrAmount.
func Times(priceMinor, quantity int64) (int64, error) {
	if priceMinor < 0 || quantity < 0 {
		return 0, ErrAmount
	}
	hi, lo := bits.Mul64(uint64(priceMinor), uint64(quantity))
	if hi != 0 || lo > MaxAmount {
		return 0, ErrAmount
	}
	return int64(lo), nil
}

// Total adds up quantity × price over lines, in minor units, or ErrAmount.
func Total(lines []Line) (int64, error) {
	var sum int64
	for _, l := range lines {
		n, err := Times(l.Price, l.Quantity)
		if err != nil {
			return 0, err
		}
		if sum += n; sum > MaxAmount {
			return 0, ErrAmount
		}
	}
	return sum, nil
}
