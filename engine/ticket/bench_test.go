package ticket_test

import (
	"bytes"
	"testing"

	"github.com/doorbuster/doorbuster/engine"
	"github.com/doorbuster/doorbuster/engine/ticket"
)

func BenchmarkVerify(b *testing.B) {
	keys, err := ticket.NewKeys(1, map[uint8][]byte{1: bytes.Repeat([]byte("k"), 32)})
	if err != nil {
		b.Fatal(err)
	}
	s, err := keys.Mint(&ticket.Ticket{Sale: "drop-2026", Buyer: "buyer-000001", NotAfter: 1 << 41, Identities: []engine.Identity{{1}}})
	if err != nil {
		b.Fatal(err)
	}
	token := []byte(s)
	var c ticket.Claims
	b.ReportAllocs()
	for b.Loop() {
		if err := keys.Verify(&c, token); err != nil {
			b.Fatal(err)
		}
	}
}
