package bench

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/doorbuster/doorbuster/engine"
	"github.com/doorbuster/doorbuster/stock"
)

const (
	mib         = 1 << 20
	idleSettles = 2 * time.Second  // until a child's memory is what it keeps
	outboxEmpty = 10 * time.Second // for the door to mark what was confirmed
	saleSettles = 18 * time.Second // a door watches a sale for 15 s after the last question
	triesFor    = 3 * time.Minute
)

// bytesPerOrder is the first part of (i): what Redis uses more after a press than
// before it, for each order that it accepted and holds.
func (b *bench) bytesPerOrder(ctx context.Context, sale engine.SaleID, before int64) error {
	wait, cancel := context.WithTimeout(ctx, outboxEmpty)
	defer cancel()
	for {
		if _, left, err := b.stock.Outbox(ctx, sale, 1, 1); err == nil && left == 0 {
			break
		}
		if !pause(wait, poll) {
			b.say("(i): the outbox did not empty, bytes per order are left out")
			return ctx.Err()
		}
	}
	after, err := b.redisMemory(ctx)
	if err != nil {
		return err
	}
	w, err := b.stock.Watch(ctx, sale, 1)
	if err != nil {
		return err
	}
	if n := w.Items[0].Held; n > 0 {
		b.add("(i) bytes", float64(after-before)/float64(n))
		b.say("%-16s %9.0f bytes for each of %d orders", "(i)", float64(after-before)/float64(n), n)
	}
	return nil
}

// memory is the rest of (i).
func (b *bench) memory(ctx context.Context) error {
	if err := b.refusedTries(ctx); err != nil {
		return fmt.Errorf("refused tries: %w", err)
	}
	if err := b.idleConnections(ctx); err != nil {
		return fmt.Errorf("idle connections: %w", err)
	}
	if err := b.idleSales(ctx); err != nil {
		return fmt.Errorf("idle sales: %w", err)
	}
	return nil
}

// refusedTries shows that a try that gets nothing leaves nothing behind.
func (b *bench) refusedTries(ctx context.Context) error {
	s, err := b.newSlot(ctx, randomSale(), 1)
	if err != nil {
		return err
	}
	deadline := time.Now().Add(triesFor)
	var one stock.Decision
	if err := b.stock.Reserve(ctx, s.sale, s.grip, []engine.Basket{newIDs().basket(0)}, &one); err != nil {
		return err
	}
	before, err := b.redisMemory(ctx)
	if err != nil {
		return err
	}
	n, err := b.reserve(ctx, s, reserving{size: engine.MaxGroup, until: deadline, most: int64(b.plan.tries), want: engine.SoldOut})
	if err != nil {
		return err
	}
	after, err := b.redisMemory(ctx)
	if err != nil {
		return err
	}
	b.add("(i) tries", float64(n))
	b.add("(i) growth", float64(after-before))
	b.say("%-16s %9.0f tries refused, Redis grew by %d bytes", "(i)", float64(n), after-before)
	return b.drop(ctx, string(s.sale))
}

// idleConnections measures a door of its own with many connections open, each of
// which has asked once.
func (b *bench) idleConnections(ctx context.Context) (err error) {
	door, err := b.serve(ctx, "idle", "door")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, door.stop()) }()
	if !pause(ctx, idleSettles) {
		return ctx.Err()
	}
	none, err := door.resident()
	if err != nil {
		return err
	}
	addr := strings.TrimPrefix(door.urls[0], "http://")
	var conns []net.Conn
	defer func() {
		for _, c := range conns {
			_ = c.Close()
		}
	}()
	req := []byte("GET /v1/sales/none HTTP/1.1\r\nHost: " + addr + "\r\n\r\n")
	answer := make([]byte, 1<<10)
	var dialer net.Dialer
	for range b.plan.idle {
		c, err := dialer.DialContext(ctx, "tcp", addr)
		if err != nil {
			return err
		}
		conns = append(conns, c)
		if err := c.SetDeadline(time.Now().Add(stopTimeout)); err != nil {
			return err
		}
		if _, err := c.Write(req); err != nil {
			return err
		}
		if _, err := c.Read(answer); err != nil {
			return err
		}
	}
	if !pause(ctx, idleSettles) {
		return ctx.Err()
	}
	with, err := door.resident()
	if err != nil {
		return err
	}
	b.add("(i) door", float64(none)/mib)
	b.add("(i) connections", float64(with)/mib)
	b.say("%-16s %9.1f MiB, with %d idle connections %.1f MiB", "(i) door", float64(none)/mib, len(conns), float64(with)/mib)
	return nil
}

// idleSales measures a door of its own that was asked for many sales once.
func (b *bench) idleSales(ctx context.Context) (err error) {
	door, err := b.serve(ctx, "idle", "door")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, door.stop()) }()
	prefix := string(randomSale()) + "-"
	name := func(i int) engine.SaleID { return engine.SaleID(fmt.Sprintf("%s%d", prefix, i)) }
	defer func() { err = errors.Join(err, b.drop(context.WithoutCancel(ctx), prefix)) }()
	for i := range b.plan.idle {
		if _, err := b.newSlot(ctx, name(i), 1); err != nil {
			return err
		}
		if _, err := get(ctx, door.urls[0]+"/v1/sales/"+string(name(i))); err != nil {
			return err
		}
	}
	if !pause(ctx, saleSettles) {
		return ctx.Err()
	}
	with, err := door.resident()
	if err != nil {
		return err
	}
	b.add("(i) sales", float64(with)/mib)
	b.say("%-16s %9.1f MiB after %d sales, each asked for once and idle since", "(i) door", float64(with)/mib, b.plan.idle)
	return nil
}
