package loadtest_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/doorbuster/doorbuster/engine"
	"github.com/doorbuster/doorbuster/engine/client"
	"github.com/doorbuster/doorbuster/engine/door"
	"github.com/doorbuster/doorbuster/engine/orders"
	"github.com/doorbuster/doorbuster/loadtest"
	"github.com/doorbuster/doorbuster/loadtest/history"
)

// What the buyers of TestHistoriesOfBuyers do.
const (
	sharers     = 24 // ask for one scarce item
	owners      = 24 // ask each for an item of his own, which is restocked
	limit       = 3  // units a buyer
	ownUnits    = 1
	scarceUnits = sharers * limit / 2
	clients     = 4 // of each buyer
	steps       = 12
	keysOfOne   = 5
	price       = 1500
	loadedIn    = 20 * time.Second
	richIn      = time.Minute // from which on no more rounds begin
)

// sell creates the house's sale: unpaid orders wait for their buyer, who may
// cancel them.
func sell(t *testing.T, h *house) {
	t.Helper()
	sale := engine.Sale{
		ID: h.sale, Name: "test", KeyNumber: 1, Mode: engine.ModeStandard, Payment: engine.PayCheckout, Provider: "instant",
		Currency: "KRW", Opens: time.Now(), Closes: time.Now().Add(time.Hour), LimitPerBuyer: limit, HoldFor: 10 * time.Minute, ReplayWindow: time.Hour,
		Items: []engine.Item{{SKU: "MUG", Name: "Mug", Price: price, Units: scarceUnits}},
	}
	for i := range owners {
		sale.Items = append(sale.Items, engine.Item{SKU: own(i), Name: "His", Price: price, Units: ownUnits})
	}
	if err := h.orders.CreateSale(t.Context(), sale, orders.Note{Who: "test", Why: "test"}); err != nil {
		t.Fatal(err)
	}
	c := must(client.New(client.Config{URL: h.url}))(t)
	defer c.Close()
	for deadline := time.Now().Add(loadedIn); ; { // the door's page is the only sign there is
		if s, err := c.Sale(t.Context(), h.sale); err == nil && s.State == "open" {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("the sale was not loaded")
		}
		pause(t.Context())
	}
}

func pause(ctx context.Context) {
	select {
	case <-ctx.Done():
	case <-time.After(20 * time.Millisecond):
	}
}

func own(i int) engine.SKU { return engine.SKU(fmt.Sprintf("OWN-%d", i)) }

// Every buyer asks over several clients at once, under few keys, repeats, changes
// his mind and cancels, over HTTP at a real door on real servers. What each of
// them hears must be what an engine says that does one thing after another.
func TestHistoriesOfBuyers(t *testing.T) {
	h := newHouse(t, func(c *door.Config) { c.BuyerRate, c.BuyerBurst = 1e6, 1e6 })
	sell(t, h)
	rec, web := history.NewRecorder(), &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: (sharers + owners) * clients}}
	t.Cleanup(web.CloseIdleConnections)
	tickets := h.tickets(t, sharers+owners)
	buyers := make([]*history.Buyer, len(tickets))
	for i := range tickets {
		b := &history.Buyer{
			Who: history.Who{Sale: h.sale, Buyer: tickets[i].Buyer}, Ticket: tickets[i].Token, URLs: []string{h.url},
			Lines: []engine.Line{{SKU: "MUG", Quantity: 1, Price: price}}, Total: engine.Money{Amount: price, Currency: "KRW"},
			Keys: keysOfOne, Rec: rec, HTTP: web,
		}
		if i >= sharers {
			b.Lines[0].SKU = own(i - sharers)
		}
		buyers[i] = b
	}
	var ops, sharing, owning []history.Op
	began := time.Now()
	for round := range uint64(math.MaxUint32) {
		askAll(t, h, buyers, round)
		ops = rec.Ops()
		sharing, owning = parted(ops, tickets[sharers].Buyer, tickets)
		if len(lacking(ops, sharing)) == 0 || time.Since(began) > richIn {
			break
		}
		pause(t.Context())
	}
	check(t, history.Rules{Limit: limit}, sharing)
	check(t, history.Rules{Limit: limit, Stock: ownUnits}, owning)
	mustBeRich(t, ops, sharing)
	mustRefuseLies(t, history.Rules{Limit: limit}, sharing)
}

// askAll is a round: each buyer asks, and items of the owners are restocked in the first.
func askAll(t *testing.T, h *house, buyers []*history.Buyer, round uint64) {
	t.Helper()
	var all sync.WaitGroup
	for i, b := range buyers {
		all.Go(func() { b.Crowd(t.Context(), clients, steps, round<<32+uint64(i)) })
		if i >= sharers && round == 0 {
			all.Go(func() { restock(t, h, b) })
		}
	}
	all.Wait()
}

// restock puts a unit of the buyer's own item in, in the middle of what he does.
func restock(t *testing.T, h *house, b *history.Buyer) {
	t.Helper()
	pause(t.Context())
	end := b.Rec.Begin(b.Who, clients, history.Input{Ask: history.Restock, Units: 1})
	_, err := h.orders.Restock(t.Context(), h.sale, b.Lines[0].SKU, 1, orders.Note{Who: "test", Why: "test"})
	if err != nil {
		t.Error(err)
		end(history.Output{})
		return
	}
	end(history.Output{Status: 200})
}

// parted parts those who share from those who ask each for his own.
func parted(ops []history.Op, firstOwner engine.BuyerID, tickets []loadtest.Ticket) (sharing, owning []history.Op) {
	from := slices.IndexFunc(tickets, func(k loadtest.Ticket) bool { return k.Buyer == firstOwner })
	for i := range ops {
		if slices.IndexFunc(tickets, func(k loadtest.Ticket) bool { return k.Buyer == ops[i].Who.Buyer }) < from {
			sharing = append(sharing, ops[i])
		} else {
			owning = append(owning, ops[i])
		}
	}
	return sharing, owning
}

func check(t *testing.T, rules history.Rules, ops []history.Op) {
	t.Helper()
	found, err := history.Check(rules, ops)
	if err != nil {
		t.Error(err)
	}
	t.Logf("%d requests of %d buyers, %d orders", found.Ops, found.Buyers, found.Orders)
}

// heardIn counts what was heard.
func heardIn(ops []history.Op) map[string]int {
	heard := map[string]int{}
	for i := range ops {
		o := &ops[i]
		switch {
		case o.Input.Ask != history.Order:
		case o.Output.Replayed && o.Input.Repeat:
			heard["replayed to a repeat"]++
		case o.Output.Status == http.StatusAccepted && !o.Output.Replayed:
			heard["accepted anew"]++
		}
		heard[o.Input.Ask.String()+" "+o.Output.Type]++
	}
	return heard
}

// lacking names what the check is about and has not happened yet. On a busy machine the
// orders are ingested so late that nobody could cancel one in a single round.
func lacking(ops, sharing []history.Op) (names []string) {
	all, shared := heardIn(ops), heardIn(sharing)
	for _, what := range []string{"order idempotency-mismatch", "order sold-out", "cancel cancelled"} {
		if all[what] == 0 {
			names = append(names, what)
		}
	}
	for _, what := range []string{"accepted anew", "replayed to a repeat", "order limit-reached"} {
		if shared[what] == 0 {
			names = append(names, what+", of those who share")
		}
	}
	return names
}

// mustBeRich fails if something that the check is about did not happen.
func mustBeRich(t *testing.T, ops, sharing []history.Op) {
	t.Helper()
	if lacks := lacking(ops, sharing); len(lacks) > 0 {
		t.Errorf("nobody heard %q", lacks)
	}
	t.Log(heardIn(ops))
}

// mustRefuseLies changes single answers of a true history, each in a way that an
// engine could be wrong: every change must be found.
func mustRefuseLies(t *testing.T, rules history.Rules, ops []history.Op) {
	t.Helper()
	accepted := slices.IndexFunc(ops, func(o history.Op) bool {
		return o.Input.Ask == history.Order && o.Output.Status == 202 && !o.Output.Replayed
	})
	replayed := slices.IndexFunc(ops, func(o history.Op) bool { return o.Input.Ask == history.Order && o.Output.Replayed && o.Input.Repeat })
	limited := slices.IndexFunc(ops, func(o history.Op) bool { return o.Output.Type == "limit-reached" })
	if accepted < 0 || replayed < 0 || limited < 0 {
		t.Fatal("there is nothing to lie about")
	}
	var end int64 // of the last answer; who asked last need not have heard last
	for i := range ops {
		end = max(end, ops[i].Return)
	}
	for lie, tell := range map[string]func([]history.Op) []history.Op{
		"a unit too many": func(ops []history.Op) []history.Op {
			for i := range ops[limited].Input.Units + limit { // more than any cancel could give back
				more := ops[limited]
				more.Call, more.Return = end+2*i+1, end+2*i+2
				more.Input.Key = fmt.Sprintf("more-%d", i)
				more.Output = history.Output{Status: 202, Type: "accepted", Order: engine.OrderID(fmt.Sprintf("more-%d", i))}
				ops = append(ops, more)
			}
			return ops
		},
		"a lost accept": func(ops []history.Op) []history.Op {
			lost := ops[accepted]
			lost.Input.Repeat, lost.Output = true, history.Output{Status: 409, Type: "sold-out"}
			lost.Call, lost.Return = end+1, end+2
			return append(ops, lost)
		},
		"a repeat with another order": func(ops []history.Op) []history.Op {
			ops[replayed].Output.Order = "another"
			return ops
		},
	} {
		if _, err := history.Check(rules, tell(slices.Clone(ops))); !errors.Is(err, history.ErrRefused) {
			t.Errorf("%s was not found: %v", lie, err)
		}
	}
}
