package bench

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/doorbuster/doorbuster/engine"
	"github.com/doorbuster/doorbuster/engine/audit"
	"github.com/doorbuster/doorbuster/engine/orders"
	"github.com/doorbuster/doorbuster/engine/queue"
	"github.com/doorbuster/doorbuster/engine/ticket"
	"github.com/doorbuster/doorbuster/loadtest"
)

const (
	sku         = "MUG"
	price       = 1500 // minor units
	currency    = "KRW"
	plenty      = 100_000_000 // units
	saleLasts   = 24 * time.Hour
	loadTimeout = 60 * time.Second // for recovery to load a sale, and the door to see it open
	restTimeout = 5 * time.Minute  // for the workers to end every order of a press
	poll        = 20 * time.Millisecond
)

var (
	errNotOpen = errors.New("the sale did not open in time")
	errNotRest = errors.New("the orders did not come to their end in time")
)

func basket() loadtest.Basket { return loadtest.Single(sku, 1, price, currency) }

// newSale creates a sale that is open at once, and waits until the door at url
// sells it.
func (b *bench) newSale(ctx context.Context, url, provider string, units int64) (engine.SaleID, error) {
	id := engine.SaleID("bench-" + strings.ToLower(rand.Text()[:8]))
	now := time.Now().UTC().Truncate(time.Millisecond)
	err := b.orders.CreateSale(ctx, engine.Sale{
		ID: id, Name: "bench", KeyNumber: b.cfg.KeyNumber, Mode: b.mode,
		Payment: engine.PayAtOrder, Provider: provider, Currency: currency,
		Opens: now.Add(-time.Second), Closes: now.Add(saleLasts), LimitPerBuyer: 4,
		HoldFor: engine.DefaultHoldFor, ReplayWindow: engine.DefaultReplay,
		Items: []engine.Item{{SKU: sku, Name: "Mug", Price: price, Units: units}},
	}, orders.Note{Who: "bench", Why: "benchmark"})
	if err != nil {
		return "", err
	}
	return id, b.waitOpen(ctx, url, id)
}

func (b *bench) waitOpen(ctx context.Context, url string, sale engine.SaleID) error {
	ctx, cancel := context.WithTimeout(ctx, loadTimeout)
	defer cancel()
	for {
		body, err := get(ctx, url+"/v1/sales/"+string(sale))
		if err == nil && strings.Contains(body, `"state":"open"`) {
			return nil
		}
		if !pause(ctx, poll) {
			return fmt.Errorf("sale %s at %s: %w (last answer %q, %w)", sale, url, errNotOpen, body, errors.Join(ctx.Err(), err))
		}
	}
}

func get(ctx context.Context, url string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	const most = 4 << 20 // bytes; a page of metrics is below 200 KiB
	body, err := io.ReadAll(io.LimitReader(resp.Body, most))
	return string(body), errors.Join(err, resp.Body.Close())
}

// pause waits, and tells whether ctx lasted.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// mint makes tickets for a sale, each of its own buyer.
func (b *bench) mint(sale engine.SaleID, n int) ([]loadtest.Ticket, error) {
	now := time.Now()
	t := ticket.Ticket{Sale: sale, NotBefore: now.Add(-time.Minute).UnixMilli(), NotAfter: now.Add(saleLasts).UnixMilli()}
	out := make([]loadtest.Ticket, n)
	for i := range out {
		t.Buyer = engine.BuyerID(fmt.Sprintf("buyer-%07d", i))
		token, err := b.cfg.Tickets.Mint(&t)
		if err != nil {
			return nil, err
		}
		out[i] = loadtest.Ticket{Buyer: t.Buyer, Token: token}
	}
	return out, nil
}

// waitRest waits until the sale is at rest: queues empty, every order at its end,
// captured, and followed by Redis. It returns what PostgreSQL then holds.
func (b *bench) waitRest(ctx context.Context, sale engine.SaleID, atLeast int64) (audit.Tally, error) {
	ctx, cancel := context.WithTimeout(ctx, restTimeout)
	defer cancel()
	// To ask for rest costs PostgreSQL a count of all orders, so the queues are waited for first.
	for {
		depths, _, err := queue.Depths(ctx, queue.Config{URL: b.cfg.AMQP})
		waiting := 0
		for _, n := range depths {
			waiting += n
		}
		if err == nil && waiting == 0 {
			break
		}
		if !pause(ctx, 10*poll) {
			return audit.Tally{}, fmt.Errorf("sale %s: %w: %d messages waiting, %w", sale, errNotRest, waiting, errors.Join(ctx.Err(), err))
		}
	}
	if waiting, err := b.audit.WaitForRest(ctx, sale); err != nil || waiting != "" {
		return audit.Tally{}, fmt.Errorf("sale %s: %s: %w", sale, waiting, errors.Join(errNotRest, err))
	}
	t, err := b.audit.Tally(ctx, sale)
	if err == nil && t.Orders < atLeast {
		err = fmt.Errorf("sale %s: %d orders were answered 202, PostgreSQL has %d", sale, atLeast, t.Orders)
	}
	return t, err
}
