package payment_test

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/doorbuster/doorbuster/engine"
	"github.com/doorbuster/doorbuster/payment/provider"
)

// safeBuffer is a log that a test reads while it is written.
type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *safeBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *safeBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// An attempt that the provider does not speak of is asked for again and again, with
// more patience the older it is, and never ended by a guess. From ten minutes on an
// operator is told, once an order, and each look is counted.
func TestUnknownForLong(t *testing.T) {
	t.Parallel()
	for n, c := range []struct {
		age       time.Duration
		low, high time.Duration // of the next look
		overdue   bool
	}{
		{time.Second, 2 * time.Second, 4 * time.Second, false},
		{time.Minute, 16 * time.Second, 32 * time.Second, false},
		{9 * time.Minute, 128 * time.Second, 300 * time.Second, false},
		{11 * time.Minute, 165 * time.Second, 5 * time.Minute, true},
		{19 * time.Hour, 5 * time.Minute, 5 * time.Minute, true},
		{100 * time.Hour, 5 * time.Minute, 5 * time.Minute, true},
	} {
		t.Run(c.age.String(), func(t *testing.T) {
			b := newBench(t)
			b.p = &troubled{b.instant, func(string, string) (error, bool) { return provider.ErrUnknown, false }}
			var out safeBuffer
			b.log = slog.New(slog.NewTextHandler(&out, nil))
			o := order(n+1, 1)
			r := &row{Order: o, state: engine.Paying, attempt: 1, again: true, age: c.age}
			b.h.rows[o.Order] = r
			b.start(t)
			b.h.until(t, "three looks", func() bool { return len(r.next) >= 3 })
			b.stop()
			for _, next := range r.next {
				if next < c.low || next > c.high {
					t.Errorf("next look after %v, want %v to %v", next, c.low, c.high)
				}
			}
			if r.state != engine.Paying {
				t.Errorf("guessed: %v", r.state)
			}
			told := strings.Count(out.String(), "ask them")
			if counted := b.counted(t, "pay", "overdue"); (told == 1) != c.overdue || (counted >= 3) != c.overdue {
				t.Errorf("told %d times, counted %v", told, counted)
			}
		})
	}
}

// counted reads doorbuster_payment_orders_total.
func (b *bench) counted(t *testing.T, stage, result string) float64 {
	t.Helper()
	families, err := b.reg.Gather()
	must(t, err)
	for _, f := range families {
		for _, m := range f.GetMetric() {
			l := m.GetLabel()
			if f.GetName() == "doorbuster_payment_orders_total" && l[0].GetValue() == result && l[1].GetValue() == stage {
				return m.GetCounter().GetValue()
			}
		}
	}
	t.Fatalf("no counter %s %s", stage, result)
	return 0
}

// A provider forgets its keys after a day: an old attempt that it does not know is
// closed, not repeated; a young one is repeated.
func TestOldKeyIsClosedNotRepeated(t *testing.T) {
	t.Parallel()
	for age, want := range map[time.Duration]engine.OrderState{19 * time.Hour: engine.Confirmed, 21 * time.Hour: engine.Cancelled} {
		b := newBench(t)
		o := order(1, 1)
		b.h.rows[o.Order] = &row{Order: o, state: engine.Paying, attempt: 1, again: true, age: age}
		b.start(t)
		b.atRest(t, 1)
		b.lawSix(t)
		if r := b.h.rows[o.Order]; r.state != want {
			t.Errorf("%v old: %v, want %v", age, r.state, want)
		}
		if want == engine.Cancelled {
			c, err := b.instant.Lookup(t.Context(), provider.Key(o.Order, 1))
			if err != nil || c.State != provider.StateVoided {
				t.Errorf("the key is open: %+v, %v", c, err)
			}
		}
	}
}

// slow answers late.
type slow struct {
	provider.Provider
	by    time.Duration
	mu    sync.Mutex
	calls map[string]int
}

func (p *slow) Authorise(ctx context.Context, r provider.Request) (provider.Auth, error) {
	p.count("authorise")
	time.Sleep(p.by)
	return p.Provider.Authorise(ctx, r)
}

func (p *slow) Lookup(ctx context.Context, key string) (provider.Charge, error) {
	p.count("lookup")
	return p.Provider.Lookup(ctx, key)
}

func (p *slow) count(call string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.calls[call]++
}

// The lease is short, for a payer who dies; one who lives keeps it however slow the
// provider is, and nobody asks for his orders beside him.
func TestLeaseIsKeptWhileWorking(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		p := &slow{Provider: b.instant, by: 35 * time.Second, calls: map[string]int{}}
		b.p, b.h.patient = p, true
		b.q.publish(envelope(1, 5, 1))
		b.start(t)
		time.Sleep(time.Minute)
		b.atRest(t, 5)
		b.stop()
		if p.calls["authorise"] != 5 || p.calls["lookup"] != 0 {
			t.Errorf("calls %v, want 5 authorise", p.calls)
		}
		if c := b.h.counts(); c[engine.Confirmed] != 5 {
			t.Errorf("%v", c)
		}
		if b.h.lease > 10*time.Second {
			t.Errorf("leased for %v: so long a dead worker's orders wait", b.h.lease)
		}
	})
}

// The instant provider's book ends with its process: the worker says so, once a sale.
// What was authorised and not written down before the end is authorised again under
// the same key by the next process, and captured once in its book.
func TestForgetfulProvider(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	var out safeBuffer
	b.log = slog.New(slog.NewTextHandler(&out, nil))
	o := order(1, 1)
	b.h.rows[o.Order] = &row{Order: o, state: engine.Paying, attempt: 1, again: true} // of a process that ended
	b.q.publish(envelope(2, 3, 1))
	b.start(t)
	b.atRest(t, 4)
	b.lawSix(t)
	if n := strings.Count(out.String(), "forgets its book"); n != 1 || !strings.Contains(out.String(), "sale=drop") {
		t.Errorf("told %d times: %s", n, out.String())
	}
}
