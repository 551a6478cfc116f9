package audit_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/doorbuster/doorbuster/engine"
	"github.com/doorbuster/doorbuster/engine/audit"
	"github.com/doorbuster/doorbuster/engine/orders"
)

var liveLaws = []int{1, 2, 3, 4, 5, 6, 7, 14}

func TestLiveWhileOrdersAreUnderWay(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.sell()
	o, _ := b.ask("fay", engine.Line{SKU: "CAP", Quantity: 1, Price: capPrice}) // accepted, not ingested
	r := b.live()
	for i := range r.Laws {
		if l := &r.Laws[i]; l.Holds != audit.Holds || l.Number != liveLaws[i] {
			t.Errorf("law %d %s: %s", l.Number, l.Holds, l.Detail)
		}
	}
	if r.AtRest || r.Verdict != audit.Pass || r.Confirmed != 3 || r.Cancelled != 1 || r.Stuck != 0 {
		t.Errorf("%+v", r)
	}
	b.ingest(o)
	if r := b.live(); r.Stuck != 1 || r.Verdict != audit.Pass {
		t.Errorf("ingested: %+v", r)
	}
}

func TestLiveBreaks(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for _, c := range []struct {
		name string
		law  int
		want string
		do   func(b *bundle)
	}{
		{"Redis loses a unit", 1, "is not units", func(b *bundle) { b.slot("a:MUG", -1) }},
		{"claimed is wrong", 2, "claimed 0", func(b *bundle) { b.sql(`UPDATE items SET claimed = 0`) }},
		{"oversold", 3, "confirmed, of 4", func(b *bundle) {
			b.sql(`ALTER TABLE items DROP CONSTRAINT items_not_oversold`, `UPDATE items SET units = 4 WHERE sku = 'MUG'`)
		}},
		{"above the limit", 4, "limit 1", func(b *bundle) { b.sql(`UPDATE orders SET limit_buyer = 1 WHERE buyer = 'dan'`) }},
		{"a terminal state is left", 5, "was confirmed", func(b *bundle) {
			b.live()
			b.sql(`UPDATE orders SET state = 4, reason = 6 WHERE buyer = 'ann'`)
		}},
		{"charged twice", 6, "charged 2 times", func(b *bundle) { b.charge(b.id("ann"), 2, price, true) }},
		{"one number, two orders", 7, "names orders", func(b *bundle) {
			b.sql(`DROP INDEX orders_hold`, `UPDATE orders SET hold_seq = 2 WHERE buyer = 'ann'`)
		}},
		{"accepted too early", 14, "outside the window", func(b *bundle) {
			b.sql(`UPDATE orders SET accepted_at = accepted_at - interval '2 hours' WHERE buyer = 'ann'`)
		}},
	} {
		b.fresh()
		b.sell()
		c.do(b)
		if l := b.live().Law(c.law); l == nil || l.Holds != audit.Broken || !strings.Contains(l.Detail, c.want) {
			t.Errorf("%s: got %+v, want it broken with %q", c.name, l, c.want)
		}
	}
}

// What a sample saw stays in every later report, though it looks well again.
func TestBrokenAtASampleStaysBroken(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.sell()
	b.live()
	b.sql(`ALTER TABLE items DROP CONSTRAINT items_not_oversold`, `UPDATE items SET units = 4 WHERE sku = 'MUG'`)
	b.live()
	b.sql(`UPDATE items SET units = 5 WHERE sku = 'MUG'`)
	for _, r := range []*audit.Report{b.live(), b.rest()} {
		if l := r.Law(3); l.Holds != audit.Broken || !strings.HasPrefix(l.Detail, "at ") || r.Verdict != audit.Fail {
			t.Errorf("at rest %v: %+v", r.AtRest, l)
		}
	}
}

func TestSampleIsHeldAgainstTheEnd(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.sell()
	b.live()
	b.sql(`UPDATE orders SET finished_at = finished_at + interval '1 second' WHERE buyer = 'bob'`)
	if l := b.rest().Law(5); l.Holds != audit.Broken {
		t.Errorf("another end: %+v", l)
	}
	b.sql(`DELETE FROM orders WHERE buyer = 'dan'`)
	if l := b.rest().Law(5); !strings.Contains(l.Detail, "is gone") {
		t.Errorf("no order: %+v", l)
	}
}

// A Redis that lost its last second is not a broken law: recovery will rebuild.
func TestRedisBehindIsNotBroken(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.sell()
	b.slot("seq", -1)
	l := b.live().Law(7)
	if l.Holds != audit.Unchecked || !l.Excused || !strings.Contains(l.Detail, "a rebuild is due") {
		t.Errorf("%+v", l)
	}
}

func TestWatchReportsUntilItsEnd(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.sell()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	n := 0
	err := b.auditor.Watch(ctx, b.sale.ID, time.Millisecond, func(r audit.Report) {
		if n++; n == 3 {
			cancel()
		}
	})
	if err != nil || n != 3 {
		t.Errorf("%d reports, %v", n, err)
	}
}

func TestWaitForRest(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.withQueues()
	b.sell()
	o, _ := b.ask("fay", engine.Line{SKU: "CAP", Quantity: 1, Price: capPrice})
	steps := []struct {
		want string
		do   func()
	}{
		{"1 accepted orders not ingested", func() { b.ingest(o) }},
		{"1 orders reserved", func() { b.finish(o, orders.Confirmed) }},
		{"1 release rows pending", func() { b.apply() }},
	}
	for _, s := range steps {
		ctx, cancel := context.WithTimeout(t.Context(), 700*time.Millisecond)
		waiting, err := b.auditor.WaitForRest(ctx, b.sale.ID)
		cancel()
		if err == nil || !strings.Contains(waiting, s.want) {
			t.Errorf("waiting for %q (%v), want %q", waiting, err, s.want)
		}
		s.do()
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if waiting, err := b.auditor.WaitForRest(ctx, b.sale.ID); waiting != "" || err != nil {
		t.Errorf("at rest: %q, %v", waiting, err)
	}
	if r := b.rest(); !slices.Equal(r.Broken(), nil) || r.Verdict != audit.Pass {
		t.Errorf("%+v", r.Laws)
	}
}
