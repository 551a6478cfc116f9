package audit_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/doorbuster/doorbuster/engine"
	"github.com/doorbuster/doorbuster/engine/audit"
	"github.com/doorbuster/doorbuster/engine/orders"
	"github.com/doorbuster/doorbuster/engine/queue"
	"github.com/doorbuster/doorbuster/payment/provider"
)

var allLaws = []int{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14}

func TestHonestSalePasses(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.withQueues()
	b.sell()
	r := b.rest()
	for i := range r.Laws {
		if l := &r.Laws[i]; l.Holds != audit.Holds || l.Number != allLaws[i] {
			t.Errorf("law %d %s: %s", l.Number, l.Holds, l.Detail)
		}
	}
	if r.Verdict != audit.Pass || len(r.Laws) != len(allLaws) {
		t.Errorf("verdict %s, %d laws", r.Verdict, len(r.Laws))
	}
	if r.Units != 8 || r.Accepted != 4 || r.Confirmed != 3 || r.Cancelled != 1 || r.UnitsConfirmed != 6 || r.Oversold != 0 || r.Stuck != 0 {
		t.Errorf("figures %+v", r.Figures)
	}
	for what, got := range map[string][2]int64{
		"requests": {*r.Requests, 7}, "sold out": {*r.SoldOut, 1}, "refused": {*r.Refused, 1}, "lost": {*r.Lost, 0},
		"undersold": {*r.Undersold, 0}, "double charged": {*r.DoubleCharged, 0}, "declined": {r.CancelReasons["declined"], 1},
	} {
		if got[0] != got[1] {
			t.Errorf("%s: %d, want %d", what, got[0], got[1])
		}
	}
}

func TestReportJSON(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.sell()
	text, err := json.Marshal(b.rest())
	b.ok(err)
	var m map[string]any
	b.ok(json.Unmarshal(text, &m))
	for _, key := range []string{
		"units", "requests", "accepted", "confirmed", "cancelled", "sold_out", "refused", "oversold", "undersold", "lost",
		"stuck", "double_charged", "seconds", "accepted_per_s", "confirmed_per_s", "laws", "verdict",
	} {
		if _, ok := m[key]; !ok {
			t.Errorf("no %q in %s", key, text)
		}
	}
	var back audit.Report
	b.ok(json.Unmarshal(text, &back))
	if l := back.Law(9); l == nil || l.Holds != audit.Unchecked || !l.Excused {
		t.Errorf("law 9 without queues: %+v", l)
	}
	if l := back.Law(3); l == nil || l.Holds != audit.Holds {
		t.Errorf("law 3: %+v", l)
	}
}

type breach struct {
	name string
	law  int
	want string
	do   func(b *bundle, ann engine.Order)
}

// Every law, broken in every way it can be: by rows, keys, charges and lines that
// should not be. want is part of what the report must say.
var breaks = []breach{
	{"a unit vanished in Redis", 1, "is not units", func(b *bundle, _ engine.Order) { b.slot("a:MUG", -1) }},
	{"negative stock in Redis", 1, "negative", func(b *bundle, _ engine.Order) { b.slot("a:MUG", -1); b.slot("h:MUG", 1) }},
	{"a record that cannot be read", 1, "cannot be read", func(b *bundle, o engine.Order) { b.damage(o) }},
	{"held without a record", 1, "held records add up to 0", func(b *bundle, _ engine.Order) { b.slot("s:MUG", -1); b.slot("h:MUG", 1) }},

	{"claimed without an order", 2, "claimed 1, but live orders have 2", func(b *bundle, _ engine.Order) {
		b.sql(`UPDATE items SET claimed = 1, units = 2 WHERE sku = 'CAP'`, `UPDATE orders SET lines = 'CAP*2*900,MUG*1*1500' WHERE buyer = 'ann'`)
	}},
	{"claimed above units", 2, "5 units claimed and 5 in live orders, of 4", func(b *bundle, _ engine.Order) {
		b.sql(`ALTER TABLE items DROP CONSTRAINT items_not_oversold`, `UPDATE items SET units = 4 WHERE sku = 'MUG'`)
	}},
	{"an order of an unknown item", 2, "no such item", func(b *bundle, _ engine.Order) {
		b.sql(`UPDATE orders SET lines = 'HAT*1*1500' WHERE buyer = 'bob'`)
	}},
	{"a counter lost", 2, "counter b:ann is missing", func(b *bundle, _ engine.Order) { b.sql(`DELETE FROM counters WHERE key = 'b:ann'`) }},
	{"a counter too high", 2, "counter b:ann is 3, live orders have 2", func(b *bundle, _ engine.Order) {
		b.sql(`UPDATE counters SET used = 3 WHERE key = 'b:ann'`)
	}},

	{"oversold", 3, "MUG: 5 units confirmed, of 4", func(b *bundle, _ engine.Order) {
		b.sql(`ALTER TABLE items DROP CONSTRAINT items_not_oversold`, `UPDATE items SET units = 4 WHERE sku = 'MUG'`)
	}},

	{"above the buyer's limit", 4, "buyer dan: order", func(b *bundle, _ engine.Order) { b.sql(`UPDATE orders SET limit_buyer = 1 WHERE buyer = 'dan'`) }},
	{"two orders above the limit", 4, "took him to 4 units, limit 2", func(b *bundle, _ engine.Order) {
		b.sql(`UPDATE orders SET buyer = 'bob' WHERE buyer = 'dan'`)
	}},
	{"above an identity's limit", 4, "identity 616e6e", func(b *bundle, _ engine.Order) {
		b.sql(`UPDATE orders SET identities = '616e6e0000000000' WHERE buyer = 'bob'`)
	}},

	{"an end that nobody was told", 5, "no release row tells it", func(b *bundle, _ engine.Order) { b.sql(`DELETE FROM moves`) }},
	{"told before its end", 5, "a release row ends it", func(b *bundle, _ engine.Order) {
		b.sql(`UPDATE orders SET state = 2, finished_at = NULL WHERE buyer = 'bob'`)
	}},
	{"finished and still open", 5, "is paying, finished true", func(b *bundle, _ engine.Order) { b.sql(`UPDATE orders SET state = 2 WHERE buyer = 'bob'`) }},
	{"cancelled without a reason", 5, `for reason ""`, func(b *bundle, _ engine.Order) { b.sql(`UPDATE orders SET reason = 0 WHERE buyer = 'cy'`) }},

	{"confirmed, not charged", 6, "is confirmed and not charged", func(b *bundle, _ engine.Order) { b.ledger(withoutOne()) }},
	{"charged twice", 6, "is charged 4800", func(b *bundle, o engine.Order) { b.charge(o.Order, 2, o.Total, true) }},
	{"charged twice, in parts", 6, "charged 2 times", func(b *bundle, o engine.Order) {
		b.ledger(func(c *provider.Charge) bool { c.Captured /= 2; c.Amount /= 2; return true })
		b.charge(o.Order, 2, o.Total, true)
	}},
	{"charged above its amount", 6, "is charged 12399", func(b *bundle, o engine.Order) { b.charge(o.Order, 2, 9999, false) }},
	{"cancelled, money kept", 6, "were kept", func(b *bundle, _ engine.Order) { b.charge(b.id("cy"), 2, price, true) }},
	{"cancelled, still authorised", 6, "are still authorised", func(b *bundle, _ engine.Order) { b.charge(b.id("cy"), 2, price, false) }},
	{"confirmed, money back", 6, "its money went back", func(b *bundle, o engine.Order) {
		b.ok(b.bank.Refund(b.t.Context(), provider.Key(o.Order, 1), "r", engine.Money{Amount: o.Total, Currency: "KRW"}))
	}},
	{"another currency", 6, "is charged in USD", func(b *bundle, _ engine.Order) {
		b.ledger(func(c *provider.Charge) bool { c.Currency = "USD"; return true })
	}},
	{"charged for no order", 6, "nobody knows it", func(b *bundle, _ engine.Order) { b.charge(b.key.ID("zoe", []byte("k")), 1, 1, false) }},
	{"our books differ", 6, "our books say", func(b *bundle, _ engine.Order) { b.sql(`UPDATE charges SET captured = captured - 1`) }},
	{"our books do not balance", 6, "do not add up to 0", func(b *bundle, _ engine.Order) {
		b.sql(`ALTER TABLE postings DISABLE TRIGGER ALL`, `UPDATE postings SET amount = amount + 1 WHERE account = 1`)
	}},
	{"our books have no charge", 6, "have no charge in our books", func(b *bundle, _ engine.Order) { b.sql(`DELETE FROM charges`) }},

	{"one number, two orders", 7, "1.2 names orders", func(b *bundle, _ engine.Order) {
		b.sql(`DROP INDEX orders_hold`, `UPDATE orders SET hold_seq = 2 WHERE buyer = 'ann'`)
	}},
	{"a number without an order", 7, "number 5 of 5 has no order", func(b *bundle, _ engine.Order) { b.slot("seq", 1) }},
	{"a number never given out", 7, "number 77 was never given out", func(b *bundle, _ engine.Order) {
		b.sql(`UPDATE orders SET hold_seq = 77 WHERE buyer = 'ann'`)
	}},

	{"a 202 lost", 8, "was answered 202 and is not there", func(b *bundle, _ engine.Order) { b.sql(`DELETE FROM orders WHERE buyer = 'ann'`) }},
	{"a 202 not at its end", 8, "is still paying", func(b *bundle, _ engine.Order) {
		b.sql(`UPDATE orders SET state = 2, finished_at = NULL WHERE buyer = 'ann'`)
	}},
	{"another buyer's order", 8, "is buyer zoe's", func(b *bundle, _ engine.Order) { b.sql(`UPDATE orders SET buyer = 'zoe' WHERE buyer = 'ann'`) }},
	{"another price", 8, "buyer saw the price 2400, his order has 2399", func(b *bundle, _ engine.Order) {
		b.sql(`UPDATE orders SET total = 2399 WHERE buyer = 'ann'`)
	}},
	{"lines of another price", 8, "its lines add up to 2399", func(b *bundle, _ engine.Order) {
		b.sql(`UPDATE orders SET lines = 'MUG*1*1500,CAP*1*899' WHERE buyer = 'ann'`)
	}},
	{"told cancelled, is confirmed", 8, "told cancelled", func(b *bundle, o engine.Order) {
		a := heard(o, "key-1")
		a.Status, a.Type = 200, audit.TypeCancelled
		b.say(a)
	}},
	{"told confirmed, is cancelled", 8, "was told confirmed, it is cancelled", func(b *bundle, _ engine.Order) {
		b.sql(`UPDATE orders SET state = 4, reason = 6 WHERE buyer = 'ann'`)
	}},
	{"told of an order that is not there", 8, "which is not there", func(b *bundle, o engine.Order) {
		a := heard(o, "key-99")
		a.Status, a.Type, a.Order = 200, audit.TypeConfirmed, b.key.ID("ann", []byte("key-99"))
		b.say(a)
	}},
	{"202 without an order", 8, "answered 202 without an order", func(b *bundle, o engine.Order) {
		a := heard(o, "key-98")
		a.Order = ""
		b.say(a)
	}},

	{"an envelope in the outbox", 9, "1 envelopes in the outbox", func(b *bundle, _ engine.Order) {
		b.ok(b.rdb.Do(b.t.Context(), "XADD", b.redisKey("ob"), "99-0", "e", "1E|x\norder|1.99|1|").Err())
	}},
	{"a release row pending", 9, "release rows pending", func(b *bundle, _ engine.Order) { b.sql(`UPDATE moves SET done = false`) }},
	{"an order rejected", 9, "1 orders rejected", func(b *bundle, _ engine.Order) {
		b.ok(b.Reject(b.t.Context(), b.sale.ID, orders.Rejected{Bytes: []byte("x"), Cause: "poison"}))
	}},
	{"an order parked", 9, "1 orders parked", func(b *bundle, o engine.Order) { b.ok(b.Park(b.t.Context(), b.sale.ID, []engine.Order{o})) }},
	{"an order paying", 9, "1 orders paying", func(b *bundle, _ engine.Order) {
		b.sql(`UPDATE orders SET state = 2, finished_at = NULL WHERE buyer = 'ann'`)
	}},
	{"an order reserved", 9, "1 orders reserved", func(b *bundle, _ engine.Order) {
		b.sql(`UPDATE orders SET state = 1, finished_at = NULL WHERE buyer = 'ann'`)
	}},
	{"a task owed", 9, "1 tasks owed", func(b *bundle, _ engine.Order) {
		b.sql(`INSERT INTO tasks (due_at, book, kind, orders, attempts, amounts) SELECT now(), no, 1, '{}', '{}', '{}' FROM books`)
	}},
	{"frozen", 9, "frozen", func(b *bundle, _ engine.Order) { b.sql(`UPDATE sales SET frozen = true`) }},

	{"a leak", 10, "leak: available 1, want 2", func(b *bundle, _ engine.Order) { b.slot("a:CAP", -1); b.slot("s:CAP", 1) }},
	{"a phantom", 10, "phantom: available 3, want 2", func(b *bundle, _ engine.Order) { b.slot("a:CAP", 1); b.slot("s:CAP", -1) }},
	{"other units", 10, "units 4 in Redis, 3 in PostgreSQL", func(b *bundle, _ engine.Order) { b.slot("a:CAP", 1); b.slot("u:CAP", 1) }},
	{"still held", 10, "1 units still held", func(b *bundle, _ engine.Order) { b.slot("h:CAP", 1); b.slot("s:CAP", -1) }},
	{"a buyer's counter in Redis", 10, "buyer zoe: counter 1 in Redis, 0", func(b *bundle, _ engine.Order) {
		b.ok(b.rdb.HSet(b.t.Context(), b.redisKey("b"), "zoe", 1001).Err())
	}},
	{"a buyer's counter lost in Redis", 10, "buyer ann: no counter in Redis", func(b *bundle, _ engine.Order) {
		b.ok(b.rdb.HDel(b.t.Context(), b.redisKey("b"), "ann").Err())
	}},
	{"an identity's counter lost in Redis", 10, "identity 616e6e0000000000: no counter", func(b *bundle, _ engine.Order) {
		b.ok(b.rdb.HDel(b.t.Context(), b.redisKey("i"), "ann\x00\x00\x00\x00\x00").Err())
	}},
	{"another epoch", 10, "PostgreSQL in 2", func(b *bundle, _ engine.Order) { b.sql(`UPDATE sales SET epoch = 2`) }},

	{"told sold out when there were units", 11, "told sold out when enough was left", func(b *bundle, _ engine.Order) {
		a := audit.Answer{At: time.Now().Add(time.Minute), Buyer: "fay", Key: "k", Status: 409, Type: "sold-out"}
		a.Lines, a.Total = []engine.Line{{SKU: "CAP", Quantity: 2, Price: capPrice}}, 2*capPrice
		b.say(a)
	}},

	{"one key, two orders", 12, "before it was", func(b *bundle, o engine.Order) {
		a := heard(o, "key-1")
		a.Order = b.key.ID("ann", []byte("other"))
		b.say(a)
	}},
	{"one order, two keys", 12, "was given to buyer ann, key key-77", func(b *bundle, o engine.Order) { b.say(heard(o, "key-77")) }},
	{"another body taken as the same", 12, "another body under the same key was answered 202", func(b *bundle, o engine.Order) {
		a := heard(o, "key-1")
		a.Body++
		b.say(a)
	}},
	{"the same body refused", 12, "repeated order", func(b *bundle, o engine.Order) {
		a := heard(o, "key-1")
		a.Status, a.Type, a.Order = 422, "idempotency-mismatch", ""
		b.say(a)
	}},
	{"the books have another body", 12, "asked for something else", func(b *bundle, _ engine.Order) {
		b.sql(`UPDATE orders SET body = body + 1 WHERE buyer = 'ann'`)
	}},

	{"accepted too early", 14, "outside the window", func(b *bundle, _ engine.Order) {
		b.sql(`UPDATE orders SET accepted_at = accepted_at - interval '2 hours' WHERE buyer = 'ann'`)
	}},
	{"accepted too late", 14, "outside the window", func(b *bundle, _ engine.Order) {
		b.sql(`UPDATE sales SET closes = now() - interval '30 minutes'`, `UPDATE orders SET accepted_at = now() - interval '10 minutes' WHERE buyer = 'ann'`)
	}},
	{"accepted after it was ingested", 14, "in PostgreSQL at", func(b *bundle, _ engine.Order) {
		b.sql(`UPDATE orders SET ingested_at = ingested_at - interval '3 seconds' WHERE buyer = 'ann'`)
	}},
}

func TestEveryLawCanBreak(t *testing.T) {
	t.Parallel()
	for _, n := range allLaws {
		t.Run(fmt.Sprint("law ", n), func(t *testing.T) {
			t.Parallel()
			b, broken := setup(t), 0
			for _, c := range slices.Concat(breaks, endBreaks, stateBreaks) {
				if c.law == n {
					b.breakLaw(&c)
					b.fresh()
					broken++
				}
			}
			if broken == 0 {
				t.Error("nothing breaks this law")
			}
		})
	}
}

// breakLaw sells out a sale, breaks a law, and wants to see it told.
func (b *bundle) breakLaw(c *breach) {
	b.t.Helper()
	ann := b.sell()
	if r := b.rest(); len(r.Broken()) != 0 {
		b.t.Fatalf("%s: broken before it was broken: %v", c.name, r.Laws)
	}
	c.do(b, ann)
	r := b.rest()
	if l := r.Law(c.law); l == nil || l.Holds != audit.Broken || !strings.Contains(l.Detail, c.want) {
		b.t.Errorf("%s: got %+v, want it broken with %q", c.name, l, c.want)
	}
	if r.Verdict != audit.Fail {
		b.t.Errorf("%s: verdict %s", c.name, r.Verdict)
	}
}

// charge makes the provider charge an order behind our back.
func (b *bundle) charge(o engine.OrderID, attempt int, amount int64, capture bool) {
	b.t.Helper()
	key, money := provider.Key(o, attempt), engine.Money{Amount: amount, Currency: "KRW"}
	_, err := b.bank.Authorise(b.t.Context(), provider.Request{Key: key, Order: o, Buyer: "x", Amount: money})
	b.ok(err)
	if capture {
		b.ok(b.bank.Capture(b.t.Context(), key, money))
	}
}

// id finds the order of a buyer who has one.
func (b *bundle) id(buyer engine.BuyerID) engine.OrderID {
	b.t.Helper()
	of, err := b.OrdersOf(b.t.Context(), b.sale.ID, buyer, 1)
	b.ok(err)
	return of[0].Order.Order
}

// edited is a ledger as somebody else would tell it.
type edited struct {
	of   *bundle
	edit func(*provider.Charge) bool // false: leave it out
}

func (b *bundle) ledger(edit func(*provider.Charge) bool) {
	b.cfg.Ledgers = map[string]audit.Ledger{"instant": edited{b, edit}}
	b.open()
}

func (e edited) Ledger(ctx context.Context) iter.Seq2[provider.Charge, error] {
	return func(yield func(provider.Charge, error) bool) {
		for c, err := range e.of.bank.Ledger(ctx) {
			if !e.edit(&c) {
				continue
			}
			if !yield(c, err) {
				return
			}
		}
	}
}

// withoutOne leaves out one captured charge.
func withoutOne() func(*provider.Charge) bool {
	left := false
	return func(c *provider.Charge) bool {
		if left || c.State != provider.StateCaptured {
			return true
		}
		left = true
		return false
	}
}

func TestUndersoldWhenNothingEverCameBack(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for _, buyer := range []engine.BuyerID{"ann", "bob"} {
		b.buy(buyer, orders.Confirmed, mugs(2)...)
	}
	// The fifth mug: two buyers want it and hear only that the door is full.
	for _, buyer := range []engine.BuyerID{"cy", "dan"} {
		b.say(audit.Answer{At: time.Now(), Buyer: buyer, Key: "k", Lines: mugs(1), Total: price, Status: 503, Type: "overloaded"})
	}
	r := b.rest()
	if l := r.Law(11); l.Holds != audit.Broken || !strings.Contains(l.Detail, "1 of 5 units unsold, demand was 6") || *r.Undersold != 1 {
		t.Errorf("%+v, undersold %d", l, *r.Undersold)
	}
}

func TestTooLittleDemandIsNotUndersold(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.buy("ann", orders.Confirmed, mugs(2)...)
	b.say(audit.Answer{At: time.Now(), Buyer: "bob", Key: "k", Lines: mugs(3), Total: 3 * price, Status: 409, Type: "limit-reached"})
	r := b.rest()
	if l := r.Law(11); l.Holds != audit.Holds || *r.Undersold != 0 {
		t.Errorf("%+v, undersold %d", l, *r.Undersold)
	}
}

func TestQueuedMessagesBreakLaw9(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.withQueues()
	b.sell()
	pub := queue.NewPublisher(b.cfg.Queue)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- pub.Run(ctx) }()
	deadline := time.Now().Add(10 * time.Second)
	err := queue.ErrDown
	for errors.Is(err, queue.ErrDown) && time.Now().Before(deadline) {
		err = pub.Publish(ctx, b.sale.ID, []byte("1E|x"))
	}
	b.ok(err)
	cancel()
	b.ok(<-done)
	if l := b.rest().Law(9); l.Holds != audit.Broken || !strings.Contains(l.Detail, "1 messages queued") {
		t.Errorf("%+v", l)
	}
}

func TestUncheckedIsNeverHolds(t *testing.T) {
	t.Parallel()
	const nowhere = "127.0.0.1:1"
	for name, c := range map[string]struct {
		change  func(*audit.Config)
		want    []int
		verdict string
		noLog   bool
	}{
		"no PostgreSQL":    {func(c *audit.Config) { c.DatabaseURL = "postgres://x@" + nowhere + "/x" }, []int{2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14}, audit.Fail, false},
		"no Redis":         {func(c *audit.Config) { c.RedisURL = "redis://" + nowhere }, []int{1, 7, 9, 10, 13, 14}, audit.Fail, false},
		"no broker":        {func(c *audit.Config) { c.Queue = queue.Config{URL: "amqp://" + nowhere} }, []int{9}, audit.Fail, false},
		"ledger down":      {func(c *audit.Config) { c.Ledgers["instant"] = provider.NewHTTP("http://" + nowhere) }, []int{6, 9}, audit.Fail, false},
		"no ledger at all": {func(c *audit.Config) { c.Ledgers = nil }, []int{6, 9}, audit.Pass, false},
		"no client log":    {func(*audit.Config) {}, []int{8, 9, 11, 12}, audit.Pass, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			b.sell()
			c.change(&b.cfg)
			b.open()
			r := b.rest()
			if c.noLog {
				bare, err := b.auditor.AtRest(t.Context(), b.sale.ID, nil)
				b.ok(err)
				r = &bare
			}
			if got := r.Unchecked(); !slices.Equal(got, c.want) {
				t.Errorf("unchecked %v, want %v", got, c.want)
			}
			if r.Verdict != c.verdict || len(r.Broken()) != 0 {
				t.Errorf("verdict %s, broken %v", r.Verdict, r.Broken())
			}
		})
	}
}

func TestLogThatCannotBeReadLeavesItsLawsUnchecked(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.sell()
	whole := b.log.String()
	for name, log := range map[string]string{
		"cut off": whole[:len(whole)-3], "another format": "2L x\n", "too few fields": "1L 1 ann key\n", "binary": "\x00\xff\n",
		"bad lines": strings.Replace(whole, "MUG*1", "MUG*x", 1), "too long": "1L " + strings.Repeat("x", 1<<20) + "\n",
	} {
		r, err := b.auditor.AtRest(t.Context(), b.sale.ID, strings.NewReader(log))
		b.ok(err)
		if got := r.Unchecked(); !slices.Equal(got, []int{8, 9, 11, 12}) || r.Verdict != audit.Fail {
			t.Errorf("%s: unchecked %v, verdict %s", name, got, r.Verdict)
		}
	}
}

func TestUnknownSale(t *testing.T) {
	t.Parallel()
	b := setup(t)
	r, err := b.auditor.AtRest(t.Context(), "no-such-sale", nil)
	b.ok(err)
	if len(r.Unchecked()) != len(allLaws) || r.Verdict != audit.Fail {
		t.Errorf("%+v", r.Laws)
	}
}

func TestAnswerRoundTrip(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.sell()
	var again bytes.Buffer
	w := audit.NewLogWriter(&again)
	for range 3 {
		b.ok(w.Write(&audit.Answer{
			At: time.UnixMilli(1_700_000_000_123), Buyer: "ann", Key: "k!~", Body: 0xfe, Lines: mugs(2), Total: 3000, Status: 503, Type: "outcome-unknown",
		}))
	}
	b.ok(w.Flush())
	want := strings.Repeat("1L 1700000000123 ann k!~ 00000000000000fe MUG*2*1500 3000 503 outcome-unknown - 0\n", 3)
	if again.String() != want {
		t.Errorf("got %q", again.String())
	}
}

type fullDisk struct{}

var errFull = errors.New("no space left")

func (fullDisk) Write([]byte) (int, error) { return 0, errFull }

func TestLogWriterKeepsItsFirstError(t *testing.T) {
	t.Parallel()
	w := audit.NewLogWriter(fullDisk{})
	if err := w.Write(&audit.Answer{Lines: mugs(1)}); err != nil {
		t.Fatal("a buffered write failed")
	}
	for range 2 {
		if err := w.Flush(); !errors.Is(err, errFull) {
			t.Errorf("flush: %v", err)
		}
	}
	if err := w.Write(&audit.Answer{}); !errors.Is(err, errFull) {
		t.Errorf("write after it: %v", err)
	}
}
