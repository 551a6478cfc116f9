package main

import (
	"context"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/doorbuster/doorbuster/engine"
	"github.com/doorbuster/doorbuster/engine/audit"
	"github.com/doorbuster/doorbuster/engine/backing"
	"github.com/doorbuster/doorbuster/loadtest"
	"github.com/doorbuster/doorbuster/loadtest/history"
)

const (
	troubleUnits  = 2_000
	troubleBuyers = 6_000
	troubleMark   = troubleUnits / 4 // accepted orders after which the server dies
	troubleAway   = 5 * time.Second
	troubleLimit  = 3 * time.Minute
	probeEvery    = 100 * time.Millisecond
	probeTimeout  = 10 * time.Second
	probes        = int(troubleAway/probeEvery) * 2 // at most
)

// trouble is a server that dies in the middle of a demo's storm and comes back,
// and buyers who ask in the meantime.
type trouble struct {
	d            *demo
	name         backing.Name
	killed, back time.Time
	err          error
	done         chan struct{} // the server is back and every probe had its answer
	rec          *history.Recorder
	web          *http.Client
}

// troubled is a demo on the tests' own servers, one of which will die.
func troubled(t *testing.T, name backing.Name) *trouble {
	t.Helper()
	g := onEstate(t)
	d := &demo{cmd: &DemoCmd{Units: troubleUnits, Buyers: troubleBuyers, Connections: 64}, g: g}
	x := &trouble{d: d, name: name, done: make(chan struct{}), rec: history.NewRecorder(), web: &http.Client{Timeout: probeTimeout}}
	t.Cleanup(func() {
		x.web.CloseIdleConnections()
		for _, c := range []*child{d.server, d.provider} {
			if err := c.stop(); err != nil {
				t.Errorf("stop: %v", err)
			}
		}
		if t.Failed() {
			t.Log(g.Stderr.(*syncBuffer).String())
		}
		showLog(t, g, "serve")
		showLog(t, g, "sandbox")
	})
	return x
}

// strike kills the server, waits and brings it back. Meanwhile buyers ask, each
// for his first time and each until he knows.
func (x *trouble) strike(ctx context.Context, tickets []loadtest.Ticket) {
	defer close(x.done)
	if x.err = x.d.services.Kill(ctx, x.name); x.err != nil {
		return
	}
	x.killed = time.Now()
	back := time.NewTimer(troubleAway)
	defer back.Stop()
	tick := time.NewTicker(probeEvery)
	defer tick.Stop()
	var asking sync.WaitGroup
	defer asking.Wait()
	for i := 0; ; i++ {
		select {
		case <-ctx.Done():
			x.err = ctx.Err()
			return
		case <-back.C:
			x.back = time.Now()
			x.err = x.d.services.Start(ctx, x.name)
			return
		case <-tick.C:
			if i < len(tickets) {
				asking.Go(func() { x.probe(ctx, tickets[i]) })
			}
		}
	}
}

// probe asks under one key until the answer is final. It says from the first that
// it repeats: so no door answers it from memory.
func (x *trouble) probe(ctx context.Context, k loadtest.Ticket) {
	b := &history.Buyer{
		Who: history.Who{Sale: x.d.sale.ID, Buyer: k.Buyer}, Ticket: k.Token, URLs: []string{x.d.serving.URL},
		Lines: []engine.Line{{SKU: demoSKU, Quantity: 1, Price: demoPrice}}, Total: engine.Money{Amount: demoPrice, Currency: demoCurrency},
		Rec: x.rec, HTTP: x.web,
	}
	again := time.NewTicker(5 * probeEvery)
	defer again.Stop()
	for {
		if out := b.Order(ctx, 0, history.Wish{Key: "probe", Repeat: true}); out.Status != 0 && out.Status != 429 && out.Status < 500 {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-again.C:
		}
	}
}

// TestServerKilledInTheStorm kills each server once, in the middle of the storm,
// and brings it back 5 s later. The one process of all roles stays up throughout
// and says 503 where it must; the sale goes on by itself, the laws hold, and
// nobody was told what could not be.
func TestServerKilledInTheStorm(t *testing.T) {
	for _, name := range []backing.Name{backing.Redis, backing.RabbitMQ, backing.PostgreSQL} {
		t.Run(string(name), func(t *testing.T) {
			x := troubled(t, name)
			ctx, cancel := context.WithTimeout(t.Context(), troubleLimit)
			defer cancel()
			var once sync.Once
			x.d.watch = func(s loadtest.Snapshot) {
				if s.Accepted >= troubleMark {
					once.Do(func() {
						go x.strike(ctx, mint(t, x.d.g, TicketMintCmd{Sale: string(x.d.sale.ID), Prefix: "probe-", Count: probes}))
					})
				}
			}
			r, err := x.d.run(ctx)
			if err != nil {
				t.Fatal(err)
			}
			select {
			case <-x.done:
			case <-ctx.Done():
				t.Fatal("the server was never killed, or never back")
			}
			if x.err != nil {
				t.Fatalf("fault: %v", x.err)
			}
			mustPass(t, r)
			x.mustHaveStayedUp(t)
			x.mustHaveToldTheTruth(t)
			t.Logf("accepted %d, cancelled %d, refused %d, %.1f s", r.Accepted, r.Cancelled, *r.Refused, r.Seconds)
		})
	}
}

// mustHold fails the test unless every law was checked and holds.
func mustHold(t *testing.T, r *audit.Report) {
	t.Helper()
	for i := range r.Laws {
		if l := &r.Laws[i]; l.Holds != audit.Holds {
			t.Errorf("law %d %s: %s: %s", l.Number, l.Name, l.Holds, l.Detail)
		}
	}
}

// mustPass fails the test unless every law was checked and holds, all is sold
// and nothing was lost.
func mustPass(t *testing.T, r *audit.Report) {
	t.Helper()
	mustHold(t, r)
	if r.Verdict != audit.Pass || r.UnitsConfirmed != r.Units || r.Oversold != 0 || r.Stuck != 0 {
		t.Errorf("verdict %s, %d of %d units confirmed, oversold %d, stuck %d", r.Verdict, r.UnitsConfirmed, r.Units, r.Oversold, r.Stuck)
	}
}

// mustHaveStayedUp fails the test if the server's process ended: nothing starts
// it again, so the one that runs is the one that was started.
func (x *trouble) mustHaveStayedUp(t *testing.T) {
	t.Helper()
	select {
	case err := <-x.d.server.ended:
		x.d.server.ended = nil
		t.Fatalf("the server's process ended: %v", err)
	default:
	}
	resp, err := x.web.Get(x.d.serving.Metrics + "/healthz")
	if err != nil {
		t.Fatalf("pid %d: %v", x.d.server.cmd.Process.Pid, err)
	}
	_ = resp.Body.Close()
	log, err := os.ReadFile(x.d.server.log)
	if err != nil || resp.StatusCode != http.StatusOK || strings.Contains(string(log), "panic") {
		t.Errorf("health %d, log read: %v, panics in it: %d", resp.StatusCode, err, strings.Count(string(log), "panic"))
	}
}

// mustHaveToldTheTruth checks what crowd and probes heard.
func (x *trouble) mustHaveToldTheTruth(t *testing.T) {
	t.Helper()
	f, err := os.Open(filepath.Join(x.d.g.Dir, string(x.d.sale.ID)+".answers"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	refused := 0 // with 503 while the server was away, by the crowd
	err = audit.ReadLog(f, func(a audit.Answer) error {
		if a.Status == 503 && a.At.After(x.killed) && a.At.Before(x.back) {
			refused++
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Seek(0, 0); err != nil {
		t.Fatal(err)
	}
	crowd, err := history.FromLog(x.d.sale.ID, f)
	if err != nil {
		t.Fatal(err)
	}
	probed, answers := x.rec.Ops(), map[int]int{}
	for i := range probed {
		answers[probed[i].Output.Status]++
	}
	if answers[503]+refused == 0 {
		t.Errorf("nobody heard 503 while %s was away; probes heard %v", x.name, answers)
	}
	if answers[0] > 0 || answers[500] > 0 {
		t.Errorf("probes heard nothing, or that something is broken: %v", answers)
	}
	rules := history.Rules{Limit: 1, Ends: true, Lossy: x.name == backing.Redis}
	found, err := history.Check(rules, append(crowd, probed...))
	if err != nil {
		t.Error(err)
	}
	t.Logf("503 meanwhile: %d of the crowd; probes heard %v; histories of %d buyers, %d requests", refused, answers, found.Buyers, found.Ops)
}
