package provider

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"iter"
	"sync"

	"github.com/doorbuster/doorbuster/engine"
)

const (
	instantShards = 64
	// MaxKey bounds a key in bytes: an order id, a colon and five digits.
	MaxKey = engine.OrderIDLen + 6
)

// Instant is a provider in this process that answers at once and forgets
// everything with the process: for benches and for tests. It keeps a charge in
// less than 100 bytes, without a pointer for the garbage collector to follow.
type Instant struct {
	// Decline, if set, says which requests are declined. It must say the same of
	// the same request each time. Set it before the first call.
	Decline func(Request) bool

	seed   maphash.Seed
	shards [instantShards]instantShard
}

type instantShard struct {
	mu      sync.Mutex
	charges map[shortKey]shortCharge
	refunds map[string]int64 // by key and refund key; few
}

type shortKey [MaxKey]byte // padded with 0, which no key contains

type shortCharge struct {
	amount, captured, refunded int64
	currency                   [3]byte
	state                      State
}

// ErrKey says that a key is empty, too long or holds a zero byte.
var ErrKey = errors.New("provider: bad key")

// NewInstant returns an empty instant provider that approves everything.
func NewInstant() *Instant {
	p := &Instant{seed: maphash.MakeSeed()}
	for i := range p.shards {
		p.shards[i].charges = make(map[shortKey]shortCharge)
		p.shards[i].refunds = make(map[string]int64)
	}
	return p
}

func short(key string) (k shortKey, err error) {
	if key == "" || len(key) > MaxKey {
		return k, fmt.Errorf("key of %d bytes, want 1 to %d: %w", len(key), MaxKey, ErrKey)
	}
	copy(k[:], key)
	return k, nil
}

func (k *shortKey) String() string {
	n := len(k)
	for n > 0 && k[n-1] == 0 {
		n--
	}
	return string(k[:n])
}

func (s shortCharge) charge(key string) Charge {
	c := Charge{Key: key, Amount: s.amount, Captured: s.captured, Refunded: s.refunded, State: s.state}
	if s.currency[0] != 0 {
		c.Currency = string(s.currency[:])
	}
	if order, _, err := ParseKey(key); err == nil {
		c.Order = order
	}
	return c
}

func shorten(c *Charge) shortCharge {
	s := shortCharge{amount: c.Amount, captured: c.Captured, refunded: c.Refunded, state: c.State}
	copy(s.currency[:], c.Currency)
	return s
}

func (p *Instant) shard(key string) *instantShard {
	return &p.shards[maphash.String(p.seed, key)%instantShards]
}

// change reads the charge under the key, lets f change it, and keeps what f says
// has changed.
func (p *Instant) change(key string, f func(c *Charge, known bool) (changed bool, err error)) error {
	k, err := short(key)
	if err != nil {
		return err
	}
	s := p.shard(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	kept, known := s.charges[k]
	c := kept.charge(key)
	changed, err := f(&c, known)
	if changed {
		s.charges[k] = shorten(&c)
	}
	return err
}

// Authorise implements Provider.
func (p *Instant) Authorise(_ context.Context, r Request) (auth Auth, err error) {
	if order, _, err := ParseKey(r.Key); err != nil || order != r.Order {
		return Auth{}, fmt.Errorf("key %q of order %s: %w", r.Key, r.Order, ErrKey)
	}
	err = p.change(r.Key, func(c *Charge, known bool) (bool, error) {
		if known {
			auth, err = c.Repeat(r)
			return false, err
		}
		auth.Outcome = Approved
		if p.Decline != nil && p.Decline(r) {
			auth.Outcome = Declined
		}
		*c = Authorised(r, auth.Outcome)
		return true, nil
	})
	return auth, err
}

// AuthoriseAll implements Batch.
func (p *Instant) AuthoriseAll(ctx context.Context, rs []Request, out []Auth) error {
	for i := range rs {
		var err error
		if out[i], err = p.Authorise(ctx, rs[i]); err != nil {
			return err
		}
	}
	return nil
}

// Capture implements Provider.
func (p *Instant) Capture(_ context.Context, key string, amount engine.Money) error {
	return p.change(key, func(c *Charge, known bool) (bool, error) {
		if !known {
			return false, fmt.Errorf("capture %s: %w", key, ErrNotFound)
		}
		return c.Capture(amount)
	})
}

// CaptureAll implements Batch.
func (p *Instant) CaptureAll(ctx context.Context, cs []Capture, out []error) error {
	for i := range cs {
		out[i] = p.Capture(ctx, cs[i].Key, cs[i].Amount)
	}
	return nil
}

// Void implements Provider.
func (p *Instant) Void(_ context.Context, key string) error {
	return p.change(key, func(c *Charge, known bool) (bool, error) {
		if !known {
			*c = Closed(key)
			return true, nil
		}
		return c.Void()
	})
}

// Refund implements Provider.
func (p *Instant) Refund(_ context.Context, key, refundKey string, amount engine.Money) error {
	return p.change(key, func(c *Charge, known bool) (bool, error) {
		if !known {
			return false, fmt.Errorf("refund %s: %w", key, ErrNotFound)
		}
		once := key + " " + refundKey
		refunds := p.shard(key).refunds // its lock is held
		if before, done := refunds[once]; done {
			if before != amount.Amount {
				return false, fmt.Errorf("refund %s: %w", once, ErrMismatch)
			}
			return false, nil
		}
		if err := c.Refund(amount); err != nil {
			return false, err
		}
		refunds[once] = amount.Amount
		return true, nil
	})
}

// Lookup implements Provider.
func (p *Instant) Lookup(_ context.Context, key string) (charge Charge, err error) {
	err = p.change(key, func(c *Charge, known bool) (bool, error) {
		if !known {
			return false, fmt.Errorf("look up %s: %w", key, ErrNotFound)
		}
		charge = *c
		return false, nil
	})
	return charge, err
}

// Ledger implements Auditor. Charges made while it runs may or may not be in it.
func (p *Instant) Ledger(ctx context.Context) iter.Seq2[Charge, error] {
	return func(yield func(Charge, error) bool) {
		var page []Charge
		for i := range p.shards {
			page = p.shards[i].page(page[:0])
			for j := range page {
				if !yield(page[j], nil) {
					return
				}
			}
			if err := ctx.Err(); err != nil {
				yield(Charge{}, fmt.Errorf("read the instant provider's ledger: %w", err))
				return
			}
		}
	}
}

// page copies the shard, so that no lock is held while the reader works.
func (s *instantShard) page(dst []Charge) []Charge {
	s.mu.Lock()
	defer s.mu.Unlock()
	for k, c := range s.charges {
		dst = append(dst, c.charge(k.String()))
	}
	return dst
}

// Forgets says that the book is in memory.
func (p *Instant) Forgets() {}

var _ Forgetful = (*Instant)(nil)
