package audit

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/doorbuster/doorbuster/engine"
)

const answerFields = 10 // after the format

// logLine is an Answer whose text still lies in the reader's buffer.
type logLine struct {
	at, total  int64
	buyer, key []byte
	typ, order []byte // nil if none
	body       uint64
	lines      *basket
	status     int
	replayed   bool
}

// basket is what a request asked for; equal texts share one.
type basket struct {
	text  string
	lines []engine.Line
	sum   int64 // Σ quantity × price, minor units
}

// logReader reads a client log line by line, without keeping it.
type logReader struct {
	r       *bufio.Reader
	n       int // lines read
	baskets map[string]*basket
}

func newLogReader(r io.Reader) *logReader {
	return &logReader{r: bufio.NewReaderSize(r, logBuffer), baskets: map[string]*basket{}}
}

var errCutOff = errors.New("the last line was cut off")

// next reads a line into l, whose slices hold until the next call. io.EOF at the
// end.
func (lr *logReader) next(l *logLine) error {
	text, err := lr.r.ReadSlice('\n')
	if errors.Is(err, io.EOF) {
		if len(text) > 0 {
			return fmt.Errorf("client log, line %d: %w", lr.n+1, errCutOff)
		}
		return io.EOF
	}
	lr.n++
	if err == nil {
		err = lr.parse(l, text[:len(text)-1])
	}
	if err != nil {
		return fmt.Errorf("client log, line %d: %w", lr.n, err)
	}
	return nil
}

func (lr *logReader) parse(l *logLine, text []byte) error {
	rest, ok := bytes.CutPrefix(text, []byte(answerFormat))
	if !ok {
		return engine.ErrFormat
	}
	var f [answerFields][]byte
	for i := range answerFields - 1 {
		if f[i], rest, ok = bytes.Cut(rest, []byte{' '}); !ok || len(f[i]) == 0 {
			return fmt.Errorf("%d fields, want %d", i+1, answerFields)
		}
	}
	f[answerFields-1] = rest
	*l = logLine{buyer: f[1], key: f[2], typ: orNone(f[7]), order: orNone(f[8])}
	var err error
	if l.at, err = strconv.ParseInt(string(f[0]), 10, 64); err != nil {
		return fmt.Errorf("time %q", f[0])
	}
	if l.body, err = strconv.ParseUint(string(f[3]), 16, 64); err != nil {
		return fmt.Errorf("body hash %q", f[3])
	}
	if l.lines, err = lr.basket(f[4]); err != nil {
		return err
	}
	if l.total, err = strconv.ParseInt(string(f[5]), 10, 64); err != nil {
		return fmt.Errorf("total %q", f[5])
	}
	if l.status, err = strconv.Atoi(string(f[6])); err != nil {
		return fmt.Errorf("status %q", f[6])
	}
	if string(f[9]) != "0" && string(f[9]) != "1" {
		return fmt.Errorf("replayed %q", f[9])
	}
	l.replayed = f[9][0] == '1'
	return nil
}

func orNone(b []byte) []byte {
	if len(b) == 1 && b[0] == '-' {
		return nil
	}
	return b
}

func (lr *logReader) basket(text []byte) (*basket, error) {
	if b := lr.baskets[string(text)]; b != nil {
		return b, nil
	}
	b := &basket{text: string(text)}
	var err error
	if b.lines, err = engine.ParseLines(b.text); err != nil {
		return nil, err
	}
	if b.sum, err = engine.Total(b.lines); err != nil {
		return nil, err
	}
	lr.baskets[b.text] = b
	return b, nil
}

// ReadLog reads a client log and hands over its answers in their order, which is
// that in which they were heard. An error names the line; one of take ends the
// reading.
func ReadLog(r io.Reader, take func(Answer) error) error {
	lr := newLogReader(r)
	var l logLine
	for {
		if err := lr.next(&l); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		err := take(Answer{
			At: time.UnixMilli(l.at).UTC(), Buyer: engine.BuyerID(l.buyer), Key: string(l.key), Body: l.body,
			Lines: l.lines.lines, Total: l.total, Status: l.status, Type: string(l.typ), Order: engine.OrderID(l.order), Replayed: l.replayed,
		})
		if err != nil {
			return fmt.Errorf("client log, line %d: %w", lr.n, err)
		}
	}
}
