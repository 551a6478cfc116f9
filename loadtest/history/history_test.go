package history_test

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/doorbuster/doorbuster/engine"
	"github.com/doorbuster/doorbuster/engine/audit"
	"github.com/doorbuster/doorbuster/loadtest/history"
)

// told is a history of one buyer, one request after another. Its verbs return
// themselves, so that a history reads as a sentence.
type told []history.Op

var ann = history.Who{Sale: "drop", Buyer: "ann"}

func (h told) then(in history.Input, out history.Output) told {
	at := int64(2 * len(h))
	return append(slices.Clone(h), history.Op{Who: ann, Input: in, Output: out, Call: at, Return: at + 1})
}

func ask(key string) history.Input {
	return history.Input{Ask: history.Order, Key: key, Body: 1, Units: 1}
}

func again(key string) history.Input { in := ask(key); in.Repeat = true; return in }

func (h told) accept(key string, order engine.OrderID) told {
	return h.then(ask(key), history.Output{Status: 202, Type: "accepted", Order: order, Hold: "1." + string(order)})
}

func (h told) replay(key string, order engine.OrderID, status string) told {
	return h.then(again(key), history.Output{Status: 202, Type: status, Order: order, Hold: "1." + string(order), Replayed: true})
}

func (h told) refuse(in history.Input, slug string) told {
	status := map[string]int{"idempotency-mismatch": 422, "outcome-unknown": 503, "overloaded": 503, "sale-frozen": 503}[slug]
	return h.then(in, history.Output{Status: max(status, 409), Type: slug})
}

func (h told) silence(key string) told { return h.then(ask(key), history.Output{}) }

func (h told) read(order engine.OrderID, status string) told {
	return h.then(history.Input{Ask: history.Read, Order: order}, history.Output{Status: 200, Type: status, Order: order})
}

func (h told) cancel(order engine.OrderID, status int, typ string) told {
	return h.then(history.Input{Ask: history.Cancel, Order: order}, history.Output{Status: status, Type: typ, Order: order})
}

func (h told) restock(n int64) told {
	return h.then(history.Input{Ask: history.Restock, Units: n}, history.Output{Status: 200})
}

// at lets the last request run from and to the given times.
func (h told) at(call, end int64) told {
	h[len(h)-1].Call, h[len(h)-1].Return = call, end
	return h
}

func changed(key string) history.Input { in := ask(key); in.Body = 2; return in }

func TestHistories(t *testing.T) {
	t.Parallel()
	two := history.Rules{Limit: 2}
	declines := history.Rules{Limit: 1, Ends: true}
	lossy := history.Rules{Limit: 1, Ends: true, Lossy: true}
	own := history.Rules{Stock: 1}
	var h told
	for name, c := range map[string]struct {
		rules history.Rules
		told  told
		legal bool
	}{
		"one order, repeated until it is confirmed": {two, h.accept("k", "a").replay("k", "a", "accepted").read("a", "paying").replay("k", "a", "confirmed").read("a", "confirmed"), true},
		"a changed body is refused":                 {two, h.accept("k", "a").refuse(changed("k"), "idempotency-mismatch"), true},
		"limit is reached":                          {two, h.accept("k", "a").accept("l", "b").refuse(ask("m"), "limit-reached"), true},
		"a cancel gives back":                       {two, h.accept("k", "a").accept("l", "b").cancel("a", 200, "cancelled").accept("m", "c").replay("k", "a", "cancelled"), true},
		"a cancel gives back, later":                {two, h.accept("k", "a").accept("l", "b").cancel("a", 200, "cancelled").refuse(ask("m"), "limit-reached").accept("m", "c"), true},
		"a wish may be too late":                    {two, h.accept("k", "a").cancel("a", 202, "paying").read("a", "confirmed"), true},
		"memory refuses who does not say repeat":    {two, h.accept("k", "a").refuse(ask("k"), "sold-out").replay("k", "a", "accepted"), true},
		"silence that took":                         {two, h.silence("k").replay("k", "a", "accepted"), true},
		"silence that took nothing":                 {two, h.silence("k").refuse(again("k"), "sold-out"), true},
		"silence that takes late":                   {two, h.silence("k").refuse(again("k"), "sold-out").replay("k", "a", "accepted"), true},
		"silence that counts":                       {history.Rules{Limit: 1}, h.silence("k").refuse(ask("l"), "limit-reached"), true},
		"a decline gives back":                      {declines, h.accept("k", "a").accept("l", "b").read("a", "cancelled"), true},
		"a rebuild finds the same order":            {lossy, h.accept("k", "a").accept("k", "a"), true},
		"a rebuild forgets what nobody was told":    {lossy, h.refuse(ask("k"), "outcome-unknown").refuse(ask("l"), "limit-reached").accept("l", "b").refuse(again("k"), "limit-reached"), true},
		"a restock brings units":                    {own, h.accept("k", "a").refuse(again("l"), "sold-out").restock(1).refuse(again("l"), "sold-out").accept("l", "b").refuse(again("m"), "sold-out"), true},
		"two clients, either order":                 {two, h.replay("k", "a", "accepted").at(0, 9).accept("k", "a").at(1, 8), true},

		"a doubled unit":                          {two, h.accept("k", "a").accept("l", "b").accept("m", "c"), false},
		"a doubled unit of his own item":          {own, h.accept("k", "a").accept("l", "b"), false},
		"more units than a restock brought":       {own, h.accept("k", "a").restock(1).accept("l", "b").accept("m", "c"), false},
		"sold out while units are there":          {history.Rules{Stock: 2}, h.accept("k", "a").refuse(again("l"), "sold-out"), false},
		"a lost accept":                           {two, h.accept("k", "a").refuse(again("k"), "sold-out"), false},
		"a lost accept, sold again":               {two, h.accept("k", "a").accept("k", "a"), false},
		"a lost accept, not found":                {two, h.accept("k", "a").then(history.Input{Ask: history.Read, Order: "a"}, history.Output{Status: 404, Type: "not-found"}), false},
		"a lost accept, though Redis was lost":    {lossy, h.accept("k", "a").refuse(again("k"), "sold-out"), false},
		"a repeat with another order":             {two, h.accept("k", "a").replay("k", "b", "accepted"), false},
		"a repeat with another hold":              {two, h.accept("k", "a").then(again("k"), history.Output{Status: 202, Type: "accepted", Order: "a", Hold: "1.7", Replayed: true}), false},
		"a repeat of nothing":                     {two, h.replay("k", "a", "accepted"), false},
		"two orders under one key, after silence": {two, h.silence("k").accept("k", "a").accept("k", "b"), false},
		"one order under two keys":                {two, h.accept("k", "a").accept("l", "a"), false},
		"a changed body that is taken":            {two, h.accept("k", "a").then(changed("k"), history.Output{Status: 202, Type: "accepted", Order: "a", Replayed: true}), false},
		"a mismatch that is none":                 {two, h.accept("k", "a").refuse(again("k"), "idempotency-mismatch"), false},
		"a limit below the limit":                 {two, h.accept("k", "a").refuse(ask("l"), "limit-reached"), false},
		"a limit that stays after it gave back":   {two, h.accept("k", "a").accept("l", "b").cancel("a", 200, "cancelled").replay("k", "a", "cancelled").refuse(ask("m"), "limit-reached"), false},
		"cancelled though nobody wished it":       {two, h.accept("k", "a").read("a", "cancelled"), false},
		"cancelled, then confirmed":               {declines, h.accept("k", "a").read("a", "cancelled").replay("k", "a", "confirmed"), false},
		"confirmed, then it gives back":           {declines, h.accept("k", "a").read("a", "confirmed").accept("l", "b"), false},
		"a refusal that took":                     {two, h.refuse(ask("k"), "overloaded").replay("k", "a", "accepted"), false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if _, err := history.Check(c.rules, c.told); (err == nil) != c.legal || (err != nil && !errors.Is(err, history.ErrRefused)) {
				t.Errorf("legal %t, want %t: %v", err == nil, c.legal, err)
			}
		})
	}
}

// An order id belongs to one buyer, whatever each of them heard.
func TestOrderOfTwoBuyersIsRefused(t *testing.T) {
	t.Parallel()
	ops := told(nil).accept("k", "a").accept("k", "a")
	ops[1].Who.Buyer = "ben"
	if _, err := history.Check(history.Rules{}, ops); !errors.Is(err, history.ErrRefused) {
		t.Errorf("not refused: %v", err)
	}
}

// A request that is never answered stays one without an answer.
func TestRecorderKeepsWhatWasNeverAnswered(t *testing.T) {
	t.Parallel()
	rec := history.NewRecorder()
	rec.Begin(ann, 0, ask("k"))
	rec.Begin(ann, 1, again("k"))(history.Output{Status: 202, Type: "accepted", Order: "a", Replayed: true})
	found, err := history.Check(history.Rules{Limit: 1}, rec.Ops())
	if err != nil || found.Buyers != 1 || found.Ops != 2 || found.Orders != 1 {
		t.Errorf("%+v, %v", found, err)
	}
}

// Many requests without an answer leave nothing undecided: they are as one.
func TestStormOfSilenceIsDecided(t *testing.T) {
	t.Parallel()
	var h told
	for range 200 {
		h = h.silence("k").refuse(ask("k"), "outcome-unknown")
	}
	if _, err := history.Check(history.Rules{Limit: 1}, h.replay("k", "a", "accepted")); err != nil {
		t.Error(err)
	}
	if _, err := history.Check(history.Rules{Limit: 1}, h.replay("k", "a", "accepted").accept("l", "b")); !errors.Is(err, history.ErrRefused) {
		t.Errorf("not refused: %v", err)
	}
}

func TestCrowdLogIsRead(t *testing.T) {
	t.Parallel()
	const a, b = engine.OrderID("aaaaaaaaaaaaaaaaaaaaaaaaaa"), engine.OrderID("bbbbbbbbbbbbbbbbbbbbbbbbbb")
	line := audit.Answer{Buyer: "ann", Key: "k", Body: 1, Lines: []engine.Line{{SKU: "MUG", Quantity: 1, Price: 5}}, Total: 5}
	write := func(answers ...audit.Answer) string {
		var buf bytes.Buffer
		w := audit.NewLogWriter(&buf)
		for _, out := range answers {
			l := line
			l.Status, l.Type, l.Order, l.Replayed = out.Status, out.Type, out.Order, out.Replayed
			if err := w.Write(&l); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Flush(); err != nil {
			t.Fatal(err)
		}
		return buf.String()
	}
	unknown := audit.Answer{Status: 503, Type: "outcome-unknown", Order: a}
	taken := audit.Answer{Status: 202, Type: "accepted", Order: a, Replayed: true}
	other := audit.Answer{Status: 202, Type: "accepted", Order: b, Replayed: true}
	gone := audit.Answer{Status: 409, Type: "sold-out"}
	for name, c := range map[string]struct {
		log   string
		legal bool
	}{
		"found by the repeat":          {write(audit.Answer{}, unknown, taken), true},
		"another order":                {write(unknown, taken, other), false},
		"sold out to the holder":       {write(unknown, taken, gone), false},
		"sold out after unknown":       {write(unknown, gone), true},
		"sold out after unknown, then": {write(unknown, gone, other), false},
	} {
		ops, err := history.FromLog("drop", strings.NewReader(c.log))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := history.Check(history.Rules{Limit: 1, Ends: true}, ops); (err == nil) != c.legal {
			t.Errorf("%s: legal %t: %v", name, err == nil, err)
		}
	}
	if _, err := history.FromLog("drop", strings.NewReader("1L 5 ann")); err == nil {
		t.Error("a log that was cut off was read")
	}
}
