package loadtest

import (
	"time"

	"github.com/doorbuster/doorbuster/engine/audit"
)

// Log takes the client log: one answer per request sent. *audit.LogWriter is
// one. It must be safe for use by many goroutines.
type Log interface {
	Write(a *audit.Answer) error
}

// answer is what is known of a request when its answer came, or did not.
type answer struct {
	ticket *Ticket
	key    []byte
	basket *Basket
	hash   uint64
	at     time.Time
	err    error
}

func (a *answer) write(log Log, r *reply) error {
	line := audit.Answer{
		At: a.at, Buyer: a.ticket.Buyer, Key: string(a.key),
		Body: a.hash, Lines: a.basket.Lines, Total: a.basket.Total.Amount,
	}
	if a.err == nil {
		v := Judge(r.status, r.body)
		line.Status, line.Type, line.Order, line.Replayed = r.status, v.Type, v.Order, v.Replayed
	}
	return log.Write(&line)
}
