package main

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/doorbuster/doorbuster/engine"
	"github.com/doorbuster/doorbuster/engine/audit"
	"github.com/doorbuster/doorbuster/engine/client"
	"github.com/doorbuster/doorbuster/loadtest"
	"github.com/doorbuster/doorbuster/loadtest/history"
	"github.com/doorbuster/doorbuster/stock"
)

const (
	pairs        = 100 // buyers who ask both doors at the same moment
	roamers      = 12  // buyers with several clients at both doors
	stormBuyers  = 2_500
	stormUnits   = 900
	stormMark    = 100 // orders after which a door dies
	flagRounds   = 5
	flagClears   = 150 * time.Millisecond // a door refuses by nothing that it read longer ago than this
	doorsLimit   = 3 * time.Minute
	doorPrice    = 1_500
	doorCurrency = "KRW"
)

// doors is one sale that is sold by a process for each role, two of them doors.
type doors struct {
	g     *Globals
	sale  engine.SaleID
	procs [2]*child
	urls  []string
	rec   *history.Recorder
	web   *http.Client
}

func openDoors(ctx context.Context, t *testing.T) *doors {
	t.Helper()
	g := onEstate(t)
	must(t, g, "migrate")
	d := &doors{g: g, sale: "two-doors", rec: history.NewRecorder(), web: &http.Client{
		Timeout: probeTimeout, Transport: &http.Transport{MaxIdleConnsPerHost: 2 * pairs},
	}}
	t.Cleanup(d.web.CloseIdleConnections)
	for _, role := range []string{roleRecovery, roleRelay, roleWorker} {
		serve(t, g, role, "--roles", role)
	}
	for i := range d.procs {
		var at servingAt
		d.procs[i], at = serve(t, g, fmt.Sprintf("door-%d", i), "--roles", "door,status", "--buyer-rate", "10000", "--buyer-burst", "10000")
		d.urls = append(d.urls, at.URL)
	}
	file := []string{
		"id: " + string(d.sale), "provider: instant", "currency: " + doorCurrency, "opens: +1s", "closes: +1h", "limit_per_buyer: 2",
		"items:", fmt.Sprintf("  - {sku: MUG, price: %d, units: %d}", doorPrice, stormUnits),
	}
	for i := range flagRounds {
		file = append(file, fmt.Sprintf("  - {sku: RARE-%d, price: %d, units: 1}", i, doorPrice))
	}
	must(t, g, "sale", "create", "-f", saleFile(t, file...))
	for _, url := range d.urls {
		until(ctx, t, "the sale opens at "+url, func() bool { return d.page(ctx, url).State == "open" })
	}
	return d
}

// page is what a door remembers of the sale; zero if it says nothing.
func (d *doors) page(ctx context.Context, url string) client.Sale {
	c, err := client.New(client.Config{URL: url, HTTP: d.web})
	if err != nil {
		return client.Sale{}
	}
	page, err := c.Sale(ctx, d.sale)
	if err != nil {
		return client.Sale{}
	}
	return page
}

// buyer asks for one unit of the item.
func (d *doors) buyer(k loadtest.Ticket, sku string) *history.Buyer {
	return &history.Buyer{
		Who: history.Who{Sale: d.sale, Buyer: k.Buyer}, Ticket: k.Token, URLs: d.urls,
		Lines: []engine.Line{{SKU: engine.SKU(sku), Quantity: 1, Price: doorPrice}}, Total: engine.Money{Amount: doorPrice, Currency: doorCurrency},
		Keys: 3, Rec: d.rec, HTTP: d.web,
	}
}

func (d *doors) mint(t *testing.T, prefix string, n int) []loadtest.Ticket {
	t.Helper()
	return mint(t, d.g, TicketMintCmd{Sale: string(d.sale), Prefix: prefix, Count: n})
}

// TestTwoDoors sells one sale over two doors, each role in a process of its own:
// one key at both doors at the same moment is one order; a restock clears what
// both doors remember; one door is killed in the middle of a storm, and the laws
// hold.
func TestTwoDoors(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), doorsLimit)
	defer cancel()
	d := openDoors(ctx, t)
	t.Run("same key at both doors", func(t *testing.T) { d.sameKey(ctx, t) })
	t.Run("many clients at both doors", func(t *testing.T) { d.roam(ctx, t) })
	t.Run("restock clears the flags", func(t *testing.T) { d.restock(ctx, t) })
	t.Run("a sale that never was", func(t *testing.T) { d.neverWas(ctx, t) })
	var answers bytes.Buffer
	t.Run("a door dies in the storm", func(t *testing.T) { d.storm(ctx, t, &answers) })

	crowd, err := history.FromLog(d.sale, &answers)
	if err != nil {
		t.Fatal(err)
	}
	found, err := history.Check(history.Rules{Limit: 2}, append(crowd, d.rec.Ops()...))
	if err != nil {
		t.Error(err)
	}
	t.Logf("histories: %+v", found)
}

// sameKey lets each buyer ask both doors for one order at the same moment.
func (d *doors) sameKey(ctx context.Context, t *testing.T) {
	t.Helper()
	for _, k := range d.mint(t, "pair-", pairs) {
		b, start := d.buyer(k, "MUG"), make(chan struct{})
		var outs [2]history.Output
		var both sync.WaitGroup
		for i := range outs {
			both.Go(func() {
				<-start
				for again := false; outs[i].Status != 202 && ctx.Err() == nil; again = true { // a door may say 503
					outs[i] = b.Order(ctx, i, history.Wish{Key: "same", Door: i, Repeat: again})
				}
			})
		}
		close(start)
		both.Wait()
		if outs[0].Status != 202 || outs[1].Status != 202 || outs[0].Order != outs[1].Order || outs[0].Hold != outs[1].Hold || (!outs[0].Replayed && !outs[1].Replayed) {
			t.Fatalf("%s heard %+v and %+v: want one order, accepted once", k.Buyer, outs[0], outs[1])
		}
	}
}

func (d *doors) roam(ctx context.Context, t *testing.T) {
	t.Helper()
	var all sync.WaitGroup
	for i, k := range d.mint(t, "roamer-", roamers) {
		all.Go(func() { d.buyer(k, "MUG").Crowd(ctx, 4, 10, uint64(i)) })
	}
	all.Wait()
}

// hears asks for one unit, under the same key, until a door says something other than to
// try again: on a busy machine leases end and confirms are late.
func (d *doors) hears(ctx context.Context, b *history.Buyer, w history.Wish) (out history.Output) {
	for ctx.Err() == nil && (out.Status == 0 || out.Status == http.StatusServiceUnavailable) {
		out = b.Order(ctx, 0, w)
	}
	return out
}

// neverWas asks with a ticket for a sale that nobody made: PostgreSQL says that there is none.
func (d *doors) neverWas(ctx context.Context, t *testing.T) {
	t.Helper()
	k := mint(t, d.g, TicketMintCmd{Sale: "never-was", Prefix: "lost-", Count: 1})[0]
	b := d.buyer(k, "MUG")
	b.Who.Sale, b.Rec = "never-was", history.NewRecorder()
	for door := range d.urls {
		if out := d.hears(ctx, b, history.Wish{Key: "k", Door: door}); out.Status != http.StatusNotFound || out.Type != "not-found" {
			t.Errorf("door %d: %+v", door, out)
		}
	}
}

// restock sells items out, puts units in, and asks both doors for them as buyers do who
// do not say that they repeat. Whoever asks later than flagClears after the units were in
// Redis must not hear that there are none, however slow doors and machine are: what a door
// read before that moment is too old for it to refuse by.
func (d *doors) restock(ctx context.Context, t *testing.T) {
	t.Helper()
	b, err := d.g.backends()
	if err != nil {
		t.Fatal(err)
	}
	rdb, err := stock.Open(b.Redis)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = rdb.Close() }()
	slot := stock.New(rdb)
	tickets := d.mint(t, "rare-", 3*flagRounds)
	var late [2][]time.Duration // by door: from the restock to the 202
	for round := range flagRounds {
		sku, own := fmt.Sprintf("RARE-%d", round), tickets[3*round:]
		if out := d.hears(ctx, d.buyer(own[0], sku), history.Wish{Key: "rare"}); out.Status != http.StatusAccepted {
			t.Fatalf("the only unit: %+v", out)
		}
		for door := range d.urls {
			until(ctx, t, "the door remembers that it is sold out", func() bool {
				return slices.ContainsFunc(d.page(ctx, d.urls[door]).Items, func(i client.Item) bool { return string(i.SKU) == sku && i.Available == 0 })
			})
			// Another key than below: what a door once said 503 to passes its memory.
			if out := d.hears(ctx, d.buyer(own[1], sku), history.Wish{Key: "look", Door: door}); out.Type != "sold-out" {
				t.Fatalf("door %d: %+v", door, out)
			}
		}
		must(t, d.g, "sale", "restock", "--sale", string(d.sale), "--sku", sku, "--units", "2")
		until(ctx, t, "the restock", func() bool {
			w, err := slot.Watch(ctx, d.sale, 0)
			i := slices.IndexFunc(w.Items, func(i stock.Item) bool { return string(i.SKU) == sku })
			return err == nil && i >= 0 && w.Items[i].Available > 0
		})
		there := time.Now()
		var both sync.WaitGroup
		for door := range d.urls {
			both.Go(func() {
				b := d.buyer(own[1+door], sku)
				for out := (history.Output{}); out.Status != http.StatusAccepted; {
					if ctx.Err() != nil {
						t.Errorf("door %d never sold the restocked unit: %+v", door, out)
						return
					}
					asked := time.Since(there)
					if out = b.Order(ctx, 0, history.Wish{Key: "rare", Door: door}); out.Type == "sold-out" && asked > flagClears {
						t.Errorf("door %d said %q to a request made %v after the restock, want at most %v", door, out.Type, asked, flagClears)
						return
					}
				}
				late[door] = append(late[door], time.Since(there))
			})
		}
		both.Wait()
	}
	t.Logf("the restocked unit was bought after %v", late)
}

// hookLog does something after so many accepted orders.
type hookLog struct {
	loadtest.Log
	accepted atomic.Int64
	at       int64
	do       func()
}

func (h *hookLog) Write(a *audit.Answer) error {
	if a.Status == 202 && h.accepted.Add(1) == h.at {
		go h.do()
	}
	return h.Log.Write(a)
}

// kill9 kills a child, waits for its end and returns how it ended.
func kill9(c *child) error {
	_ = c.cmd.Process.Kill() // it may have ended
	err := <-c.ended
	c.ended = nil
	return err
}

// storm lets a crowd in over both doors and kills one of them.
func (d *doors) storm(ctx context.Context, t *testing.T, answers *bytes.Buffer) {
	t.Helper()
	log := audit.NewLogWriter(answers)
	killed := make(chan error, 1)
	hook := &hookLog{Log: log, at: stormMark, do: func() { killed <- kill9(d.procs[0]) }}
	r, err := loadtest.RunCrowd(ctx, loadtest.CrowdConfig{
		URLs: d.urls, Sale: d.sale, Basket: loadtest.Single("MUG", 1, doorPrice, doorCurrency),
		Tickets: d.mint(t, "crowd-", stormBuyers), Connections: 64, RepeatPerMille: 50, ChangePerMille: 20, Log: hook,
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := log.Flush(); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-killed:
		if err == nil {
			t.Fatal("the door ended by itself")
		}
	case <-ctx.Done():
		t.Fatal("the door was never killed")
	}
	t.Logf("crowd: %s after %v, %d accepted, %d unknown", r.End, r.Took, r.Accepted, r.Unknown)
	if r.Unknown == 0 {
		t.Error("nobody was at the door when it died")
	}
	file := filepath.Join(t.TempDir(), "answers")
	if err := os.WriteFile(file, answers.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Log(must(t, d.g, "audit", "--sale", string(d.sale), "--client-log", file))
}
