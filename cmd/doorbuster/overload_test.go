package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/doorbuster/doorbuster/engine"
	"github.com/doorbuster/doorbuster/engine/audit"
	"github.com/doorbuster/doorbuster/loadtest"
	"github.com/doorbuster/doorbuster/loadtest/proxy"
)

const (
	narrowGate    = 8
	narrowSale    = engine.SaleID("overload")
	narrowDelay   = 5 * time.Millisecond // to Redis, and back
	narrowLimit   = 2 * time.Minute
	burstRate     = 4000 // a second: ten times of what such a door accepts, and more
	calmRate      = 100
	overloadUnits = 900 // more than such a door can sell in the burst
	comeBack      = 1200
)

// TestOverload offers a door of a small capacity many times of it, from buyers who do
// not wait for one another. Those whom it cannot serve are told so at once and when to
// come again; its gate lets no more in than it should; nothing that it accepted is lost,
// and afterwards it sells what is left.
// How fast all that is `doorbuster bench --only overload` measures.
func TestOverload(t *testing.T) {
	g := onEstate(t)
	ctx, cancel := context.WithTimeout(t.Context(), narrowLimit)
	defer cancel()
	must(t, g, "migrate")
	serve(t, g, "overload-back", "--roles", "recovery,relay,worker")
	door := narrowDoor(t, g)
	must(t, g, "sale", "create", "-f", saleFile(t,
		"id: "+string(narrowSale), "provider: instant", "currency: "+doorCurrency, "opens: +1s", "closes: +1h", "limit_per_buyer: 1",
		"items:", fmt.Sprintf("  - {sku: MUG, price: %d, units: %d}", doorPrice, overloadUnits)))
	d := &doors{g: g, sale: narrowSale, web: &http.Client{Timeout: probeTimeout}}
	t.Cleanup(d.web.CloseIdleConnections)
	until(ctx, t, "the sale opens", func() bool { return d.page(ctx, door.URL).State == "open" })

	due := loadtest.Arrivals(1, loadtest.Pace{Rate: calmRate, Lasts: 500 * time.Millisecond},
		loadtest.Pace{Rate: burstRate, Lasts: 1500 * time.Millisecond}, loadtest.Pace{Rate: calmRate, Lasts: time.Second})
	file := filepath.Join(t.TempDir(), "answers")
	f, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	log := audit.NewLogWriter(f)
	watched := watchGate(ctx, door.Metrics)
	basket := loadtest.Single("MUG", 1, doorPrice, doorCurrency)
	samples, err := loadtest.RunArrivals(ctx, loadtest.PressConfig{
		URLs: []string{door.URL}, Sale: narrowSale, Basket: basket,
		Tickets:     mint(t, g, TicketMintCmd{Sale: string(narrowSale), Prefix: "over-", Count: len(due)}),
		Connections: 256, Log: log,
	}, due)
	if err != nil {
		t.Fatal(err)
	}
	if g := watched(); g.looks == 0 || g.used > narrowGate || g.limit != narrowGate {
		t.Errorf("the most seen of a gate of %d: %+v", narrowGate, g)
	}
	_, err = loadtest.RunCrowd(ctx, loadtest.CrowdConfig{
		URLs: []string{door.URL}, Sale: narrowSale, Basket: basket, Connections: narrowGate, Log: log,
		Tickets: mint(t, g, TicketMintCmd{Sale: string(narrowSale), Prefix: "back-", Count: comeBack}),
	})
	if err := errors.Join(err, log.Flush()); err != nil {
		t.Fatal(err)
	}
	mustKnowEveryAnswer(t, samples)
	mustBeNarrow(ctx, t, door.Metrics)
	t.Log(must(t, g, "audit", "--sale", string(narrowSale), "--client-log", file))
}

// narrowDoor is a door of a small capacity.
func narrowDoor(t *testing.T, g *Globals) servingAt {
	t.Helper()
	b, err := g.backends()
	if err != nil {
		t.Fatal(err)
	}
	redis, err := url.Parse(b.Redis)
	if err != nil {
		t.Fatal(err)
	}
	far, err := proxy.New(redis.Host)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(far.Close) // after the door has ended
	far.Set(proxy.Slow, narrowDelay)
	redis.Host = far.Addr()
	var at servingAt
	start(t, g, spec{name: "overload-door", ready: &at, env: []string{"REDIS_URL=" + redis.String()}, args: []string{
		"serve", "--roles", "door", "--listen", "127.0.0.1:0", "--metrics", "127.0.0.1:0", "--gate-max", strconv.Itoa(narrowGate),
	}})
	return at
}

// mustKnowEveryAnswer fails the test unless everybody was accepted, or told that
// nothing was taken and when to come again, and there were both.
func mustKnowEveryAnswer(t *testing.T, samples []loadtest.Sample) {
	t.Helper()
	sum := loadtest.Sum(samples, 0, time.Hour)
	t.Logf("%v; accepted p99 %v, refused p99 %v", sum.Heard, sum.P99, sum.Refused)
	if sum.Unheard != 0 || sum.Broken != 0 || sum.Untimed != 0 {
		t.Errorf("%d without an answer, %d with one that no door gives, %d without Retry-After", sum.Unheard, sum.Broken, sum.Untimed)
	}
	for heard := range sum.Heard {
		if !slices.Contains([]string{"accepted", "overloaded", "outcome-unknown", "sale-frozen"}, heard) {
			t.Errorf("%d heard %s", sum.Heard[heard], heard)
		}
	}
	if sum.Heard["accepted"] == 0 || sum.Heard["overloaded"] == 0 {
		t.Error("want both accepted and overloaded")
	}
}

const (
	gateUsed  = "doorbuster_door_gate_used_requests"
	gateLimit = "doorbuster_door_gate_limit_requests"
)

// gateSeen is the most that was seen of a gate, and how often somebody looked.
type gateSeen struct {
	used, limit float64
	looks       int
}

// watchGate looks at the gate again and again, until the function that it returns is
// called.
func watchGate(ctx context.Context, url string) (stop func() gateSeen) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan gateSeen, 1)
	go func() {
		var seen gateSeen
		for ctx.Err() == nil {
			m, err := metricsAt(ctx, url)
			if err != nil {
				continue // it is the end, or the door is busy
			}
			seen = gateSeen{max(seen.used, m[gateUsed]), max(seen.limit, m[gateLimit]), seen.looks + 1}
		}
		done <- seen
	}()
	return func() gateSeen {
		cancel()
		return <-done
	}
}

// mustBeNarrow fails the test if a script call carried more than the gate lets in.
func mustBeNarrow(ctx context.Context, t *testing.T, url string) {
	t.Helper()
	m, err := metricsAt(ctx, url)
	if err != nil {
		t.Fatal(err)
	}
	const groups = "doorbuster_door_group_orders"
	if all, narrow := m[groups+"_count"], m[groups+`_bucket{le="8"}`]; all == 0 || narrow != all {
		t.Errorf("%v of %v groups had at most %d members", narrow, all, narrowGate)
	}
}

// metricsAt reads what a server tells Prometheus: series with one label or none, by
// name; of those with a sale as the label the last.
func metricsAt(ctx context.Context, at string) (map[string]float64, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, at+"/metrics", nil)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	page, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, err
	}
	out := map[string]float64{}
	for line := range strings.Lines(string(page)) {
		name, value, ok := strings.Cut(strings.TrimSpace(line), " ")
		if v, err := strconv.ParseFloat(value, 64); ok && err == nil {
			if plain, _, labelled := strings.Cut(name, "{sale="); labelled {
				name = plain
			}
			out[name] = v
		}
	}
	return out, nil
}
