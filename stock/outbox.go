package stock

import (
	"bytes"
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/redis/go-redis/v9"

	"github.com/doorbuster/doorbuster/engine"
)

// Entry is one entry of the outbox: an envelope that is not known to be confirmed.
type Entry struct {
	ID   int64  // first seq of the call that made it
	At   int64  // Unix milliseconds of that call
	Body []byte // engine.Envelope
}

// Mark deletes entries from the outbox, after the broker has confirmed them. It
// needs no grip, because it acts on the keys of that epoch alone; entries that
// are gone do not matter.
func (s *Store) Mark(ctx context.Context, sale engine.SaleID, epoch int64, entries []int64) error {
	if len(entries) == 0 {
		return nil
	}
	ids := make([]string, len(entries))
	for i, id := range entries {
		ids[i] = entryID(id)
	}
	err := s.on(ctx, sale, func(c *redis.Client) error {
		return c.XDel(ctx, keysOf(sale, epoch).outbox, ids...).Err()
	})
	if err != nil {
		return fmt.Errorf("mark %d entries of sale %s: %w", len(entries), sale, err)
	}
	return nil
}

// maxForeign bounds how many slices of an outbox are passed over because they hold
// nothing but entries that are not the script's.
const maxForeign = 16

// Outbox reads up to limit entries of an epoch, oldest first, and how many there
// are. An entry whose envelope cannot be read is handed over all the same, as old as
// the one before it: whoever publishes it brings its bytes to a worker, who puts them
// aside where they are seen. One under an id that the script does not give is left out.
// Both are told: see OnUnreadable.
func (s *Store) Outbox(ctx context.Context, sale engine.SaleID, epoch int64, limit int) (entries []Entry, length int64, err error) {
	from := "-"
	for range maxForeign {
		messages, n, err := s.outbox(ctx, keysOf(sale, epoch).outbox, page{sale, from, limit})
		if err != nil {
			return nil, 0, fmt.Errorf("outbox of sale %s: %w", sale, err)
		}
		for _, m := range messages {
			if e, ok := s.entry(Unreadable{Sale: sale, Epoch: epoch, What: "entry", ID: m.ID}, m); ok {
				entries = append(entries, e)
			}
		}
		datePast(entries)
		if length = n; len(entries) > 0 || len(messages) < limit || limit <= 0 {
			break
		}
		from = "(" + messages[len(messages)-1].ID
	}
	return entries, length, nil
}

// page is a part of a sale's outbox.
type page struct {
	sale  engine.SaleID
	from  string
	limit int
}

func (s *Store) outbox(ctx context.Context, key string, of page) ([]redis.XMessage, int64, error) {
	var messages *redis.XMessageSliceCmd
	var count *redis.IntCmd
	err := s.on(ctx, of.sale, func(c *redis.Client) error {
		pipe := c.Pipeline()
		count = pipe.XLen(ctx, key)
		messages = pipe.XRangeN(ctx, key, of.from, "+", int64(of.limit))
		_, err := pipe.Exec(ctx)
		return err
	})
	if err != nil {
		return nil, 0, err
	}
	return messages.Val(), count.Val(), nil
}

// entry reads one entry; At is 0 if it cannot be read. False if its id is not one of
// the script's, and so nobody could mark it.
func (s *Store) entry(u Unreadable, m redis.XMessage) (e Entry, ok bool) {
	u.Bytes, _ = m.Values[entryField].(string)
	e.Body = []byte(u.Bytes)
	first, rest, _ := strings.Cut(m.ID, "-")
	if e.ID, u.Cause = strconv.ParseInt(first, 10, 64); u.Cause == nil && rest != "0" {
		u.Cause = fmt.Errorf("id %s: %w", m.ID, engine.ErrFormat)
	}
	if u.Cause != nil {
		s.leaveOut(u)
		return Entry{}, false
	}
	if e.At, u.Cause = acceptedAt(e.Body); u.Cause != nil {
		e.At = 0
		s.leaveOut(u)
	}
	return e, true
}

// datePast gives entries without a time that of the one before or, at the head, after.
func datePast(entries []Entry) {
	for i := range entries {
		if entries[i].At == 0 && i > 0 {
			entries[i].At = entries[i-1].At
		}
	}
	for i := len(entries) - 2; i >= 0; i-- {
		if entries[i].At == 0 {
			entries[i].At = entries[i+1].At
		}
	}
}

func entryID(first int64) string { return strconv.FormatInt(first, 10) + "-0" }

// acceptedAt reads when an envelope was made from its first order: all orders of
// a call carry the same time.
func acceptedAt(body []byte) (int64, error) {
	_, line, _ := bytes.Cut(body, []byte("\n"))
	f := bytes.SplitN(line, []byte("|"), 4) // order, hold, accepted, …
	if len(f) < 4 {
		return 0, engine.ErrFormat
	}
	return strconv.ParseInt(string(f[2]), 10, 64)
}
