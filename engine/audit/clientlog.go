package audit

import (
	"bufio"
	"io"
	"time"

	"github.com/doorbuster/doorbuster/engine"
)

// Answer is one line of the client log: what one request asked and heard. The
// crowd writes it, so it is the one witness of what buyers were told.
//
// The bytes of a line are fields separated by one space, in this order:
//
//	1L at buyer key body lines total status type order replayed
//
// at is in Unix milliseconds by the client's clock, when the answer came; body
// is engine.BodyHash in 16 hex digits; lines is engine.AppendLines; total is in
// minor units; status is the HTTP status, 0 if none came; type is "accepted",
// "confirmed" or "cancelled" of an order, else the problem's type ("sold-out"),
// '-' if there was none; order is '-' if none was named; replayed is 1 or 0.
type Answer struct {
	At       time.Time
	Buyer    engine.BuyerID
	Key      string // Idempotency-Key
	Body     uint64
	Lines    []engine.Line
	Total    int64 // minor units
	Status   int
	Type     string
	Order    engine.OrderID
	Replayed bool
}

// AppendAnswer appends the line of an answer, with its line break.
func AppendAnswer(dst []byte, a *Answer) []byte { return append(dst, '\n') }

// LogWriter writes a client log. Safe for use by many goroutines.
type LogWriter struct{ w *bufio.Writer }

// NewLogWriter returns a writer of lines on w. Flush it at the end.
func NewLogWriter(w io.Writer) *LogWriter { return &LogWriter{w: bufio.NewWriter(w)} }

// Write writes one answer.
func (l *LogWriter) Write(a *Answer) error { return nil }

// Flush writes out what is buffered and returns the first error of any write.
func (l *LogWriter) Flush() error { return l.w.Flush() }
