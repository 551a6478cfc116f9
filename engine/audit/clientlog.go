package audit

import (
	"bufio"
	"fmt"
	"io"
	"strconv"
	"sync"
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
// at is in Unix milliseconds by the client's clock, when the answer came or was
// given up; body is engine.BodyHash in 16 hex digits; lines is
// engine.AppendLines; total is in minor units; status is the HTTP status, 0 if
// none came; type is "accepted", "confirmed" or "cancelled" of an order, else the
// problem's type ("sold-out"), '-' if there was none; order is '-' if none was
// named; replayed is 1 or 0. A request that was repeated is a line of its own
// each time. A file whose last line has no line break was cut off.
type Answer struct {
	At       time.Time // written to the millisecond
	Buyer    engine.BuyerID
	Key      string // Idempotency-Key
	Body     uint64 // engine.BodyHash of what was asked
	Lines    []engine.Line
	Total    int64  // minor units
	Status   int    // HTTP; 0: no answer
	Type     string // see above; empty is none
	Order    engine.OrderID
	Replayed bool
}

const answerFormat = "1L "

// What an Answer about an order has as its type.
const (
	TypeAccepted  = "accepted"
	TypeConfirmed = "confirmed"
	TypeCancelled = "cancelled"
)

// AppendAnswer appends the line of an answer, with its line break.
func AppendAnswer(dst []byte, a *Answer) []byte {
	dst = append(dst, answerFormat...)
	dst = strconv.AppendInt(dst, a.At.UnixMilli(), 10)
	dst = append(dst, ' ')
	dst = append(dst, a.Buyer...)
	dst = append(dst, ' ')
	dst = append(dst, a.Key...)
	dst = append(dst, ' ')
	for shift := 60; shift >= 0; shift -= 4 {
		dst = append(dst, "0123456789abcdef"[a.Body>>uint(shift)&15])
	}
	dst = append(dst, ' ')
	dst = engine.AppendLines(dst, a.Lines)
	dst = append(dst, ' ')
	dst = strconv.AppendInt(dst, a.Total, 10)
	dst = append(dst, ' ')
	dst = strconv.AppendInt(dst, int64(a.Status), 10)
	dst = appendOr(dst, a.Type)
	dst = appendOr(dst, string(a.Order))
	if a.Replayed {
		return append(dst, " 1\n"...)
	}
	return append(dst, " 0\n"...)
}

func appendOr(dst []byte, s string) []byte {
	dst = append(dst, ' ')
	if s == "" {
		return append(dst, '-')
	}
	return append(dst, s...)
}

const logBuffer = 256 << 10 // bytes, of a writer and of a reader

// LogWriter writes a client log. Safe for use by many goroutines.
type LogWriter struct {
	mu  sync.Mutex
	w   *bufio.Writer
	buf []byte
	err error
}

// NewLogWriter returns a writer of lines on w. Flush it at the end.
func NewLogWriter(w io.Writer) *LogWriter {
	return &LogWriter{w: bufio.NewWriterSize(w, logBuffer)}
}

// Write writes one answer. The error is the first of any write.
func (l *LogWriter) Write(a *Answer) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err == nil {
		l.buf = AppendAnswer(l.buf[:0], a)
		_, l.err = l.w.Write(l.buf)
	}
	return l.err
}

// Flush writes out what is buffered. The error is the first of any write.
func (l *LogWriter) Flush() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err == nil {
		l.err = l.w.Flush()
	}
	if l.err != nil {
		return fmt.Errorf("write client log: %w", l.err)
	}
	return nil
}
