package sandbox

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"github.com/doorbuster/doorbuster/engine"
	"github.com/doorbuster/doorbuster/payment/provider"
)

// Lines of the ledger file; the leading 1 is the format's number.
//
//	1A|key|order|amount|currency   authorised
//	1D|key|order|amount|currency   declined
//	1C|key|amount|currency         captured
//	1V|key                         voided, or closed if it was not there
//	1R|key|refund key|amount|currency
//
// maxEventBytes bounds one of them.
const maxEventBytes = 1024

var errEvent = errors.New("not a ledger event")

// book is every charge, in memory and in the ledger file.
type book struct {
	mu      sync.Mutex
	file    *os.File
	size    int64 // bytes of whole lines in the file
	charges map[string]*provider.Charge
	refunds map[string]int64 // by key and refund key
	line    []byte
	broken  error // the file could not be put right after a failed write
}

func openBook(path string) (*book, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("ledger: %w", err)
	}
	b := &book{file: f, charges: make(map[string]*provider.Charge), refunds: make(map[string]int64)}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("ledger %s is used by another process: %w", path, err), f.Close())
	}
	if err := b.replay(); err != nil {
		return nil, errors.Join(fmt.Errorf("ledger %s: %w", path, err), f.Close())
	}
	return b, nil
}

// replay reads the file, and cuts off a last line that was not finished.
func (b *book) replay() error {
	r := bufio.NewReaderSize(b.file, 1<<16)
	for n := 1; ; n++ {
		line, err := r.ReadString('\n')
		if errors.Is(err, io.EOF) {
			break // what is in line was never answered
		}
		if err != nil {
			return err
		}
		if err := b.apply(strings.TrimSuffix(line, "\n")); err != nil {
			return fmt.Errorf("line %d: %w", n, err)
		}
		b.size += int64(len(line))
	}
	if err := b.file.Truncate(b.size); err != nil {
		return err
	}
	_, err := b.file.Seek(b.size, io.SeekStart)
	return err
}

// apply changes the charges as an event says. An event that was refused when it
// happened was not written, so a refusal here means a broken file.
func (b *book) apply(line string) error {
	f := strings.Split(line, "|")
	amountAt := map[string]int{"1A": 3, "1D": 3, "1C": 2, "1R": 3, "1V": -1}
	at, known := amountAt[f[0]]
	if !known || (at >= 0 && len(f) != at+2) || (at < 0 && len(f) != 2) {
		return fmt.Errorf("%q: %w", line, errEvent)
	}
	key := f[1]
	var amount engine.Money
	if at >= 0 {
		n, err := strconv.ParseInt(f[at], 10, 64)
		if err != nil {
			return fmt.Errorf("%q: %w", line, errEvent)
		}
		amount = engine.Money{Amount: n, Currency: f[at+1]}
	}
	switch f[0] {
	case "1A", "1D":
		outcome := provider.Approved
		if f[0] == "1D" {
			outcome = provider.Declined
		}
		c := provider.Authorised(provider.Request{Key: key, Order: engine.OrderID(f[2]), Amount: amount}, outcome)
		b.charges[key] = &c
		return nil
	case "1V":
		if b.charges[key] == nil {
			c := provider.Closed(key)
			b.charges[key] = &c
			return nil
		}
	}
	c := b.charges[key]
	if c == nil {
		return fmt.Errorf("%q: %w", line, provider.ErrNotFound)
	}
	var err error
	switch f[0] {
	case "1C":
		_, err = c.Capture(amount)
	case "1V":
		_, err = c.Void()
	case "1R":
		if err = c.Refund(amount); err == nil {
			b.refunds[key+" "+f[2]] = amount.Amount
		}
	}
	return err
}

// write appends an event to the file, and only then applies it.
func (b *book) write(fields ...string) error {
	if b.broken != nil {
		return b.broken
	}
	for _, f := range fields {
		if strings.ContainsAny(f, "|\n") {
			return fmt.Errorf("%q: %w", f, errEvent)
		}
	}
	line := strings.Join(fields, "|")
	if len(line) > maxEventBytes {
		return fmt.Errorf("%d bytes: %w", len(line), errEvent)
	}
	b.line = append(append(b.line[:0], line...), '\n')
	if _, err := b.file.Write(b.line); err != nil {
		// Half a line must not stay, or the next one would be glued to it.
		if b.broken = b.file.Truncate(b.size); b.broken == nil {
			_, b.broken = b.file.Seek(b.size, io.SeekStart)
		}
		return fmt.Errorf("write the ledger: %w", err)
	}
	b.size += int64(len(b.line))
	return b.apply(line)
}

func number(n int64) string { return strconv.FormatInt(n, 10) }

// authorise answers from the book, or makes the charge.
func (b *book) authorise(r provider.Request, decline bool) (provider.Charge, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if c := b.charges[r.Key]; c != nil {
		_, err := c.Repeat(r)
		return *c, err
	}
	letter := "1A"
	if decline {
		letter = "1D"
	}
	if err := b.write(letter, r.Key, string(r.Order), number(r.Amount.Amount), r.Amount.Currency); err != nil {
		return provider.Charge{}, err
	}
	return *b.charges[r.Key], nil
}

// capture tries the change on a copy first: only what is allowed is written.
func (b *book) capture(key string, amount engine.Money) (provider.Charge, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	c := b.charges[key]
	if c == nil {
		return provider.Charge{}, provider.ErrNotFound
	}
	try := *c
	changed, err := try.Capture(amount)
	if changed {
		err = b.write("1C", key, number(amount.Amount), amount.Currency)
	}
	return *c, err
}

func (b *book) void(key string) (provider.Charge, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	changed, err := true, error(nil)
	if c := b.charges[key]; c != nil {
		try := *c
		changed, err = try.Void()
	}
	if changed {
		err = b.write("1V", key)
	}
	if err != nil {
		return provider.Charge{}, err
	}
	return *b.charges[key], nil
}

func (b *book) refund(key, refundKey string, amount engine.Money) (provider.Charge, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	c := b.charges[key]
	if c == nil {
		return provider.Charge{}, provider.ErrNotFound
	}
	if before, done := b.refunds[key+" "+refundKey]; done {
		if before != amount.Amount {
			return *c, provider.ErrMismatch
		}
		return *c, nil
	}
	try := *c
	err := try.Refund(amount)
	if err == nil {
		err = b.write("1R", key, refundKey, number(amount.Amount), amount.Currency)
	}
	return *c, err
}

func (b *book) lookup(key string) (provider.Charge, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	c := b.charges[key]
	if c == nil {
		return provider.Charge{}, false
	}
	return *c, true
}

// all copies the charges, so that a slow reader holds no lock.
func (b *book) all() []provider.Charge {
	b.mu.Lock()
	defer b.mu.Unlock()
	cs := make([]provider.Charge, 0, len(b.charges))
	for _, c := range b.charges {
		cs = append(cs, *c)
	}
	return cs
}

func (b *book) close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.broken = os.ErrClosed
	return b.file.Close()
}

// clean tells whether s may stand in the file.
func clean(s string) bool { return s != "" && !bytes.ContainsAny([]byte(s), "|\n") }
