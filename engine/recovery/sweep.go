package recovery

import (
	"context"
	"fmt"
	"time"

	"github.com/doorbuster/doorbuster/engine"
	"github.com/doorbuster/doorbuster/engine/orders"
)

const (
	sweepAge   = 30 * time.Second // younger records may still be on their way
	sweepAsk   = 1024             // holds asked about at once
	sweepMost  = 64               // envelopes published in one sweep of an epoch
	seenMost   = 1 << 26          // seqs of an epoch remembered as known: 8 MiB of bits
	againMost  = 1 << 16          // republished holds remembered
	confirmMax = 3 * time.Second  // most wait for a confirm
)

// sweeper publishes orders again that Redis holds and PostgreSQL does not know
// under that hold: the message got lost (a purged queue), or the door and its
// outbox entry did. It reads every epoch's records in slices and gives Redis as
// much time to breathe as a slice took.
type sweeper struct {
	k     *keeper
	known map[int64]*bitset         // epoch of the hold → seqs that PostgreSQL knows; it never forgets one
	again map[engine.Hold]time.Time // published again, at
}

func newSweeper(k *keeper) *sweeper {
	return &sweeper{k: k, known: map[int64]*bitset{}, again: map[engine.Hold]time.Time{}}
}

// SweepCounts is what one sweep did.
type SweepCounts struct {
	Records   int `json:"records"`   // read
	Held      int `json:"held"`      // of them held
	Unknown   int `json:"unknown"`   // of them not known to PostgreSQL under their hold
	Published int `json:"published"` // orders published again
	Dropped   int `json:"dropped"`   // epochs whose keys were deleted
}

func (c *SweepCounts) add(o SweepCounts) {
	c.Records += o.Records
	c.Held += o.Held
	c.Unknown += o.Unknown
	c.Published += o.Published
	c.Dropped += o.Dropped
}

// runOnce sweeps every epoch that has keys, and drops those that need none.
func (s *sweeper) runOnce(ctx context.Context) (SweepCounts, error) {
	v := s.k.view()
	if !v.sound() {
		return SweepCounts{}, nil
	}
	began := s.k.r.now()
	epochs, err := s.k.r.cfg.Stock.Epochs(ctx, s.k.sale)
	if err != nil {
		return SweepCounts{}, fmt.Errorf("list epochs: %w", err)
	}
	var sum SweepCounts
	for _, epoch := range epochs {
		if epoch > v.fence.Epoch || (epoch == v.fence.Epoch && heldIn(&v) == 0) {
			continue
		}
		c, err := s.sweep(ctx, &v, epoch)
		sum.add(c)
		if err != nil {
			return sum, fmt.Errorf("sweep epoch %d: %w", epoch, err)
		}
		if epoch < v.fence.Epoch && c.Unknown == 0 {
			dropped, err := s.drop(ctx, &v, epoch)
			if err != nil {
				return sum, fmt.Errorf("drop epoch %d: %w", epoch, err)
			}
			sum.Dropped += dropped
		}
	}
	s.k.meter.swept(sum, s.k.r.now().Sub(began))
	return sum, nil
}

func heldIn(v *view) (n int64) {
	for i := range v.watch.Items {
		n += v.watch.Items[i].Held
	}
	return n
}

func (s *sweeper) sweep(ctx context.Context, v *view, epoch int64) (SweepCounts, error) {
	var sum SweepCounts
	var lost []engine.Order
	for cursor, first := uint64(0), true; first || cursor != 0; first = false {
		began := s.k.r.now()
		recs, next, err := s.k.r.cfg.Stock.Records(ctx, s.k.sale, epoch, cursor)
		if err != nil {
			return sum, err
		}
		cursor = next
		sum.Records += len(recs)
		held := s.notKnown(recs, &sum)
		for len(held) > 0 {
			n := min(len(held), sweepAsk)
			unknown, err := s.ask(ctx, held[:n])
			if err != nil {
				return sum, err
			}
			sum.Unknown += len(unknown)
			lost = append(lost, s.due(v, unknown)...)
			held = held[n:]
		}
		for len(lost) >= engine.MaxGroup && sum.Published < sweepMost*engine.MaxGroup {
			if err := s.publish(ctx, lost[:engine.MaxGroup], &sum); err != nil {
				return sum, err
			}
			lost = lost[engine.MaxGroup:]
		}
		if cursor != 0 && !s.k.r.sleep(ctx, s.k.r.now().Sub(began)) {
			return sum, ctx.Err()
		}
	}
	if len(lost) > 0 && sum.Published < sweepMost*engine.MaxGroup {
		return sum, s.publish(ctx, lost[:min(len(lost), engine.MaxGroup)], &sum)
	}
	return sum, nil
}

// notKnown picks the held orders that PostgreSQL was not yet found to know.
func (s *sweeper) notKnown(recs []engine.Record, sum *SweepCounts) []engine.Order {
	var held []engine.Order
	for i := range recs {
		if recs[i].State != engine.RecordHeld {
			continue
		}
		sum.Held++
		if h := recs[i].Order.Hold; !s.known[h.Epoch].has(h.Seq) {
			held = append(held, recs[i].Order)
		}
	}
	return held
}

// ask returns those PostgreSQL does not know, and remembers those it knows: it
// never forgets an order.
func (s *sweeper) ask(ctx context.Context, held []engine.Order) ([]engine.Order, error) {
	ctx, cancel := s.k.r.within(ctx, callTime)
	defer cancel()
	holds := make([]orders.HoldOf, len(held))
	for i := range held {
		holds[i] = orders.HoldOf{Order: held[i].Order, Hold: held[i].Hold}
	}
	not, err := s.k.orders.Unknown(ctx, s.k.sale, holds)
	if err != nil {
		return nil, fmt.Errorf("ask PostgreSQL for %d holds: %w", len(holds), err)
	}
	unknown := make(map[orders.HoldOf]bool, len(not))
	for _, h := range not {
		unknown[h] = true
	}
	lost := held[:0]
	for i := range held {
		if unknown[holds[i]] {
			lost = append(lost, held[i])
		} else {
			s.remember(held[i].Hold)
		}
	}
	return lost, nil
}

func (s *sweeper) remember(h engine.Hold) {
	if h.Seq < 0 || h.Seq >= seenMost {
		return
	}
	if s.known[h.Epoch] == nil {
		s.known[h.Epoch] = &bitset{}
	}
	s.known[h.Epoch].add(h.Seq)
}

// due picks those to be published now. While the ingest is behind, an order
// younger than its lag is in the queue: publishing it again would only make the
// queue longer. For the same reason nothing is published again before its last
// message has had as long.
func (s *sweeper) due(v *view, unknown []engine.Order) []engine.Order {
	patience, now := sweepAge+v.lag, s.k.r.now()
	due := unknown[:0]
	for _, o := range unknown {
		if v.watch.Now-o.AcceptedAt < patience.Milliseconds() {
			continue
		}
		if at, ok := s.again[o.Hold]; ok && now.Sub(at) < patience {
			continue
		}
		due = append(due, o)
	}
	return due
}

// publish sends orders again as one envelope.
func (s *sweeper) publish(ctx context.Context, lost []engine.Order, sum *SweepCounts) error {
	ctx, cancel := s.k.r.within(ctx, confirmMax)
	defer cancel()
	body := engine.AppendEnvelope(nil, &engine.Envelope{Sale: s.k.sale, Orders: lost})
	if err := s.k.r.cfg.Publisher.Publish(ctx, s.k.sale, body); err != nil {
		return fmt.Errorf("publish %d orders again: %w", len(lost), err)
	}
	now := s.k.r.now()
	if len(s.again) >= againMost {
		clear(s.again)
	}
	for i := range lost {
		s.again[lost[i].Hold] = now
	}
	sum.Published += len(lost)
	s.k.log.Warn("published orders again that PostgreSQL never received", "orders", len(lost), "first", string(lost[0].Order))
	return nil
}

// bitset is a set of small numbers. The zero value and nil are empty.
type bitset struct{ words []uint64 }

func (b *bitset) has(n int64) bool {
	return b != nil && n >= 0 && n/64 < int64(len(b.words)) && b.words[n/64]&(1<<(n%64)) != 0
}

func (b *bitset) add(n int64) {
	if w := n / 64; w >= int64(len(b.words)) {
		b.words = append(b.words, make([]uint64, w+1-int64(len(b.words))+int64(len(b.words))/4)...)
	}
	b.words[n/64] |= 1 << (n % 64)
}
