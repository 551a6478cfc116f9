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

// Outbox reads up to limit entries of an epoch, oldest first, and how many there
// are.
func (s *Store) Outbox(ctx context.Context, sale engine.SaleID, epoch int64, limit int) (entries []Entry, length int64, err error) {
	var messages *redis.XMessageSliceCmd
	var count *redis.IntCmd
	err = s.on(ctx, sale, func(c *redis.Client) error {
		pipe := c.Pipeline()
		count = pipe.XLen(ctx, keysOf(sale, epoch).outbox)
		messages = pipe.XRangeN(ctx, keysOf(sale, epoch).outbox, "-", "+", int64(limit))
		_, err := pipe.Exec(ctx)
		return err
	})
	if err != nil {
		return nil, 0, fmt.Errorf("outbox of sale %s: %w", sale, err)
	}
	for _, m := range messages.Val() {
		id, _, _ := strings.Cut(m.ID, "-")
		body, _ := m.Values[entryField].(string)
		e := Entry{Body: []byte(body)}
		if e.ID, err = strconv.ParseInt(id, 10, 64); err != nil {
			return nil, 0, fmt.Errorf("outbox of sale %s: entry %q", sale, m.ID)
		}
		if e.At, err = acceptedAt(e.Body); err != nil {
			return nil, 0, fmt.Errorf("outbox of sale %s: entry %s: %w", sale, m.ID, err)
		}
		entries = append(entries, e)
	}
	return entries, count.Val(), nil
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
