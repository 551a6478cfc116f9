package loadtest

import (
	"bufio"
	"encoding/base64"
	"errors"
	"fmt"
	"io"

	"github.com/doorbuster/doorbuster/engine"
)

// Ticket is what a buyer shows at the door.
type Ticket struct {
	Buyer engine.BuyerID
	Token string
}

const maxTicketLine = 1 << 10 // bytes

var errTicket = errors.New("not a ticket")

// ReadTickets reads a ticket file: one token a line, each of its own buyer, as
// `doorbuster ticket mint` writes it. It does not verify them: whoever presses
// has no key.
func ReadTickets(r io.Reader) ([]Ticket, error) {
	lines := bufio.NewScanner(r)
	lines.Buffer(make([]byte, maxTicketLine), maxTicketLine)
	var tickets []Ticket
	for lines.Scan() {
		if len(lines.Bytes()) == 0 {
			continue
		}
		token := lines.Text()
		buyer, err := buyerOf(token)
		if err != nil {
			return nil, fmt.Errorf("tickets: line %d: %w", len(tickets)+1, err)
		}
		tickets = append(tickets, Ticket{Buyer: buyer, Token: token})
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("tickets: line %d: %w", len(tickets)+1, err)
	}
	return tickets, nil
}

// buyerOf reads the buyer out of a token: format, key number and tier are a byte
// each, then come sale and buyer with a length byte before them (engine/ticket).
func buyerOf(token string) (engine.BuyerID, error) {
	b, err := base64.RawURLEncoding.DecodeString(token)
	if err != nil {
		return "", errTicket
	}
	const fixed = 3
	if len(b) < fixed || b[0] != 1 {
		return "", errTicket
	}
	b = b[fixed:]
	for range 2 { // the sale is passed over
		if len(b) == 0 || len(b) < 1+int(b[0]) {
			return "", errTicket
		}
		b, token = b[1+int(b[0]):], string(b[1:1+int(b[0])])
	}
	buyer := engine.BuyerID(token)
	if buyer.Validate() != nil {
		return "", errTicket
	}
	return buyer, nil
}
