package audit_test

import (
	"bytes"
	"testing"
	"time"

	"github.com/doorbuster/doorbuster/engine"
	"github.com/doorbuster/doorbuster/engine/audit"
	"github.com/doorbuster/doorbuster/engine/backing/backingtest"
	"github.com/doorbuster/doorbuster/engine/orders"
	"github.com/doorbuster/doorbuster/engine/postgres"
)

func TestTallyCountsOneSale(t *testing.T) {
	t.Parallel()
	ctx, url := t.Context(), backingtest.Database(t)
	if err := orders.Migrate(ctx, url); err != nil {
		t.Fatal(err)
	}
	pool, err := postgres.Open(ctx, url, postgres.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	store := orders.New(pool)
	now := time.Now().UTC().Truncate(time.Millisecond)
	for _, id := range []engine.SaleID{"one", "two"} {
		if err := store.CreateSale(ctx, engine.Sale{
			ID: id, KeyNumber: 1, Mode: engine.ModeStandard, Payment: engine.PayAtOrder, Provider: "instant", Currency: "KRW",
			Opens: now, Closes: now.Add(time.Hour), Items: []engine.Item{{SKU: "MUG", Price: 5, Units: 10}},
		}, orders.Note{Who: "test", Why: "test"}); err != nil {
			t.Fatal(err)
		}
		arrive(t, store, id)
	}
	a, err := audit.Open(audit.Config{DatabaseURL: url, RedisURL: backingtest.RedisURL(t)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(a.Close)
	got, err := a.Tally(ctx, "one")
	if err != nil || got.Orders != 3 || got.Confirmed != 2 || got.Last.Before(now) || time.Since(got.Last) > time.Minute {
		t.Errorf("%+v, %v", got, err)
	}
	if got, err := a.Tally(ctx, "three"); err != nil || got != (audit.Tally{}) {
		t.Errorf("a sale that is not there: %+v, %v", got, err)
	}
}

// arrive ingests three orders of the sale and confirms two.
func arrive(t *testing.T, store *orders.Store, sale engine.SaleID) {
	t.Helper()
	key, err := engine.NewOrderKey(bytes.Repeat([]byte("k"), 32), 1, sale)
	if err != nil {
		t.Fatal(err)
	}
	var arrivals []orders.Arrival
	for i, buyer := range []engine.BuyerID{"anna", "ben", "cleo"} {
		arrivals = append(arrivals, orders.Arrival{Order: engine.Order{
			Basket: engine.Basket{
				Order: key.ID(buyer, []byte("k")), Buyer: buyer, Total: 5,
				Lines: []engine.Line{{SKU: "MUG", Quantity: 1, Price: 5}},
			},
			Hold: engine.Hold{Epoch: 0, Seq: int64(i + 1)}, AcceptedAt: time.Now().UnixMilli(),
		}})
	}
	rep, err := store.IngestAndClaim(t.Context(), sale, arrivals, time.Minute)
	if err != nil || len(rep.Claimed) != 3 {
		t.Fatalf("%+v, %v", rep, err)
	}
	var pays []orders.Payment
	for _, p := range rep.Claimed[:2] {
		pays = append(pays, orders.Payment{Order: p.Order, Attempt: p.Attempt, Result: orders.Confirmed})
	}
	if _, err := store.Settle(t.Context(), sale, pays, nil); err != nil {
		t.Fatal(err)
	}
}
