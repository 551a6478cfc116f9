package provider

import (
	"fmt"

	"github.com/doorbuster/doorbuster/engine"
)

// State is where a charge stands at the provider. Numbers are stored in the
// sandbox's ledger file as letters, not as these values.
type State byte

// The states of a charge.
const (
	StateDeclined   State = 1 // nothing was or will be authorised
	StateAuthorised State = 2
	StateCaptured   State = 3 // Refunded may be above 0
	StateVoided     State = 4 // closed; nothing was captured
	StateRefunded   State = 5 // everything captured was given back
)

// String names the state.
func (s State) String() string {
	names := [...]string{"", "declined", "authorised", "captured", "voided", "refunded"}
	if int(s) >= len(names) || s == 0 {
		return "unknown"
	}
	return names[s]
}

// ParseState reads what State.String writes.
func ParseState(s string) (State, error) {
	for st := StateDeclined; st <= StateRefunded; st++ {
		if st.String() == s {
			return st, nil
		}
	}
	return 0, fmt.Errorf("charge state %q", s)
}

// Charge is what a provider has under one key. Amounts are in minor units of
// Currency. A key that was voided before any authorise came has Amount 0.
type Charge struct {
	Key      string
	Order    engine.OrderID
	Amount   int64 // authorised, or asked for if declined
	Captured int64
	Refunded int64
	Currency string // ISO 4217
	State    State
}

// Authorised returns the charge that a first Authorise makes.
func Authorised(r Request, outcome Outcome) Charge {
	c := Charge{Key: r.Key, Order: r.Order, Amount: r.Amount.Amount, Currency: r.Amount.Currency, State: StateDeclined}
	if outcome == Approved {
		c.State = StateAuthorised
	}
	return c
}

// Closed returns the charge that a Void of an unknown key makes: nothing, for good.
func Closed(key string) Charge {
	c := Charge{Key: key, State: StateVoided}
	if order, _, err := ParseKey(key); err == nil {
		c.Order = order
	}
	return c
}

// Repeat answers an Authorise whose key has this charge already: what was
// answered before, whatever came after, except that a voided key authorises
// nothing. ErrMismatch for another order or amount.
func (c *Charge) Repeat(r Request) (Auth, error) {
	if c.State == StateVoided {
		return Auth{Outcome: Declined}, nil
	}
	if c.Order != r.Order || c.Amount != r.Amount.Amount || c.Currency != r.Amount.Currency {
		return Auth{}, fmt.Errorf("authorise %s: %w", r.Key, ErrMismatch)
	}
	if c.State == StateDeclined {
		return Auth{Outcome: Declined}, nil
	}
	return Auth{Outcome: Approved}, nil
}

// Capture takes the amount. It tells whether anything changed: a repeat of the
// same capture does not. ErrRefused.
func (c *Charge) Capture(amount engine.Money) (changed bool, err error) {
	switch {
	case (c.State == StateCaptured || c.State == StateRefunded) && amount.Amount == c.Captured && amount.Currency == c.Currency:
		return false, nil
	case c.State != StateAuthorised:
		return false, fmt.Errorf("capture %s, which is %s: %w", c.Key, c.State, ErrRefused)
	case amount.Currency != c.Currency || amount.Amount < 0 || amount.Amount > c.Amount:
		return false, fmt.Errorf("capture %s: %d %s of %d %s: %w", c.Key, amount.Amount, amount.Currency, c.Amount, c.Currency, ErrRefused)
	}
	c.State, c.Captured = StateCaptured, amount.Amount
	return true, nil
}

// Void gives the authorisation back. A repeat, and a void of what was declined,
// change nothing. ErrRefused if it was captured.
func (c *Charge) Void() (changed bool, err error) {
	switch c.State {
	case StateVoided, StateDeclined:
		return false, nil
	case StateAuthorised:
		c.State = StateVoided
		return true, nil
	}
	return false, fmt.Errorf("void %s, which is %s: %w", c.Key, c.State, ErrRefused)
}

// Refund gives back some of what was captured. The caller sees to it that a refund
// key counts once. ErrRefused above what is left.
func (c *Charge) Refund(amount engine.Money) error {
	if c.State != StateCaptured || amount.Currency != c.Currency || amount.Amount <= 0 || amount.Amount > c.Captured-c.Refunded {
		return fmt.Errorf("refund %d %s of %s, which is %s with %d of %d refunded: %w",
			amount.Amount, amount.Currency, c.Key, c.State, c.Refunded, c.Captured, ErrRefused)
	}
	if c.Refunded += amount.Amount; c.Refunded == c.Captured {
		c.State = StateRefunded
	}
	return nil
}
