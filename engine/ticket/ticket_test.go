package ticket_test

import (
	"bytes"
	"encoding/base64"
	"errors"
	"reflect"
	"strings"
	"testing"

	"github.com/doorbuster/doorbuster/engine"
	"github.com/doorbuster/doorbuster/engine/ticket"
)

func ring(t testing.TB, mint uint8, secrets map[uint8]string) *ticket.Keys {
	t.Helper()
	m := map[uint8][]byte{}
	for n, s := range secrets {
		m[n] = []byte(s)
	}
	k, err := ticket.NewKeys(mint, m)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

var (
	first  = strings.Repeat("a", ticket.MinKeyLen)
	second = strings.Repeat("b", ticket.MinKeyLen)
)

func sample() ticket.Ticket {
	return ticket.Ticket{
		Sale: "drop", Buyer: "buyer-1@mail", Tier: 3, NotBefore: 1_700_000_000_000, NotAfter: 1_700_000_600_000, Max: 2,
		Identities: []engine.Identity{{1, 2, 3}, {4}, {255, 255, 255, 255, 255, 255, 255, 255}},
	}
}

func mint(t testing.TB, k *ticket.Keys, tk ticket.Ticket) string {
	t.Helper()
	s, err := k.Mint(&tk)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestRoundTrip(t *testing.T) {
	k := ring(t, 1, map[uint8]string{1: first})
	longest := sample()
	longest.Sale = engine.SaleID(strings.Repeat("s", engine.MaxSaleIDLen))
	longest.Buyer = engine.BuyerID(strings.Repeat("b", engine.MaxBuyerIDLen))
	none := sample()
	none.Identities, none.Max, none.Tier = nil, 0, 0
	var c ticket.Claims // one for all: nothing of the last ticket may show in the next
	for _, want := range []ticket.Ticket{sample(), longest, none} {
		token := mint(t, k, want)
		if len(token) > ticket.MaxTokenLen {
			t.Errorf("token of %d bytes, MaxTokenLen is %d", len(token), ticket.MaxTokenLen)
		}
		if err := k.Verify(&c, []byte(token)); err != nil {
			t.Fatal(err)
		}
		if got := c.Ticket(); !reflect.DeepEqual(got, want) {
			t.Errorf("got %+v\nwant %+v", got, want)
		}
	}
	if got := len(mint(t, k, longest)); got != ticket.MaxTokenLen {
		t.Errorf("longest token has %d bytes, MaxTokenLen is %d", got, ticket.MaxTokenLen)
	}
}

func TestVerifyRefusesEveryChangedBit(t *testing.T) {
	k := ring(t, 1, map[uint8]string{1: first, 2: second})
	token := []byte(mint(t, k, sample()))
	raw, _ := base64.RawURLEncoding.DecodeString(string(token))
	var c ticket.Claims
	for i := range raw {
		for bit := range 8 {
			changed := bytes.Clone(raw)
			changed[i] ^= 1 << bit
			s := base64.RawURLEncoding.AppendEncode(nil, changed)
			if err := k.Verify(&c, s); !errors.Is(err, ticket.ErrInvalid) {
				t.Fatalf("byte %d bit %d changed: %v", i, bit, err)
			}
		}
	}
	for i := range token { // shorter ones
		if err := k.Verify(&c, token[:i]); !errors.Is(err, ticket.ErrInvalid) {
			t.Fatalf("cut to %d bytes: %v", i, err)
		}
	}
}

func TestVerifyRefuses(t *testing.T) {
	k := ring(t, 1, map[uint8]string{1: first, 2: second})
	token := mint(t, k, sample())
	raw, _ := base64.RawURLEncoding.DecodeString(token)
	other := bytes.Clone(raw)
	other[1] = 2
	unknown := bytes.Clone(raw)
	unknown[1] = 3
	newer := bytes.Clone(raw)
	newer[0] = 2
	enc := base64.RawURLEncoding.EncodeToString
	stray := []byte(enc(raw[:len(raw)-len(raw)%3-1])) // a token whose last digit has bits to spare
	stray[len(stray)-1]++
	for name, c := range map[string]struct {
		token string
		want  error
	}{
		"empty":              {"", ticket.ErrShape},
		"not base64":         {"!!!!", ticket.ErrShape},
		"padded":             {token + "=", ticket.ErrShape},
		"standard alphabet":  {strings.Repeat("+/", 40), ticket.ErrShape},
		"line break inside":  {token[:10] + "\n" + token[10:], ticket.ErrShape},
		"stray bits":         {string(stray), ticket.ErrShape},
		"too long":           {token + strings.Repeat("A", ticket.MaxTokenLen), ticket.ErrShape},
		"bytes left over":    {enc(append(bytes.Clone(raw), 0)), ticket.ErrMAC},
		"other format":       {enc(newer), ticket.ErrShape},
		"another key":        {enc(other), ticket.ErrMAC},
		"unknown key":        {enc(unknown), ticket.ErrKey},
		"zeroes":             {enc(make([]byte, 80)), ticket.ErrShape},
		"JWT with alg none":  {enc([]byte(`{"alg":"none"}`)) + "." + enc([]byte(`{"sale":"drop"}`)) + ".", ticket.ErrShape},
		"JWT with alg HS256": {"eyJhbGciOiJIUzI1NiJ9.eyJzYWxlIjoiZHJvcCJ9.c2ln", ticket.ErrShape},
	} {
		var claims ticket.Claims
		if err := k.Verify(&claims, []byte(c.token)); !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %v", name, err, c.want)
		}
	}
}

func TestKeyRing(t *testing.T) {
	old := ring(t, 1, map[uint8]string{1: first})
	both := ring(t, 2, map[uint8]string{1: first, 2: second})
	only := ring(t, 2, map[uint8]string{2: second})
	var c ticket.Claims
	before, after := mint(t, old, sample()), mint(t, both, sample())
	if err := both.Verify(&c, []byte(before)); err != nil {
		t.Errorf("ticket of the key before: %v", err)
	}
	if err := both.Verify(&c, []byte(after)); err != nil {
		t.Errorf("ticket of the new key: %v", err)
	}
	if err := only.Verify(&c, []byte(before)); !errors.Is(err, ticket.ErrKey) {
		t.Errorf("ticket of a key turned out: %v", err)
	}
	if _, err := ticket.NewKeys(1, map[uint8][]byte{1: []byte("short")}); err == nil {
		t.Error("short key accepted")
	}
	if _, err := ticket.NewKeys(9, map[uint8][]byte{1: []byte(first)}); err == nil {
		t.Error("no key to mint with, and no error")
	}
	// The number is part of the key: the same secret under another one signs otherwise.
	same := ring(t, 2, map[uint8]string{1: first, 2: first})
	raw, _ := base64.RawURLEncoding.DecodeString(before)
	raw[1] = 2
	if err := same.Verify(&c, base64.RawURLEncoding.AppendEncode(nil, raw)); !errors.Is(err, ticket.ErrMAC) {
		t.Errorf("renumbered ticket: %v", err)
	}
}

func TestMintRefuses(t *testing.T) {
	k := ring(t, 1, map[uint8]string{1: first})
	for name, change := range map[string]func(*ticket.Ticket){
		"bad sale":             func(t *ticket.Ticket) { t.Sale = "Drop" },
		"no buyer":             func(t *ticket.Ticket) { t.Buyer = "" },
		"separator in buyer":   func(t *ticket.Ticket) { t.Buyer = "a|b" },
		"ends before it opens": func(t *ticket.Ticket) { t.NotAfter = t.NotBefore - 1 },
		"negative time":        func(t *ticket.Ticket) { t.NotBefore = -1 },
		"four identities":      func(t *ticket.Ticket) { t.Identities = make([]engine.Identity, 4) },
		"an identity twice":    func(t *ticket.Ticket) { t.Identities = []engine.Identity{{1}, {1}} },
	} {
		tk := sample()
		change(&tk)
		if _, err := k.Mint(&tk); err == nil {
			t.Errorf("%s: minted", name)
		}
	}
}

func TestVerifyDoesNotAllocate(t *testing.T) {
	k := ring(t, 1, map[uint8]string{1: first})
	token := []byte(mint(t, k, sample()))
	forged := bytes.Clone(token)
	forged[20] ^= 1
	var c ticket.Claims
	if n := testing.AllocsPerRun(200, func() { _ = k.Verify(&c, token); _ = k.Verify(&c, forged) }); n != 0 && !raceEnabled {
		t.Errorf("%v allocations", n)
	}
}

func FuzzVerify(f *testing.F) {
	k := ring(f, 1, map[uint8]string{1: first})
	good := sample()
	f.Add(mint(f, k, good))
	f.Add("")
	f.Fuzz(func(t *testing.T, s string) {
		var c ticket.Claims
		if err := k.Verify(&c, []byte(s)); err != nil {
			return
		}
		tk := c.Ticket()
		if again, err := k.Mint(&tk); err != nil || again != s {
			t.Fatalf("verified %q, minted again it is %q (%v)", s, again, err)
		}
	})
}
