package loadtest

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/doorbuster/doorbuster/engine"
)

// Page is GET /v1/sales/{id} as far as the crowd reads it.
type Page struct {
	State  string
	Opens  time.Time
	Closes time.Time
	Now    time.Time // by the sale's clock
	Items  []PageItem
}

// PageItem is the stock of one SKU, in units.
type PageItem struct {
	SKU       engine.SKU `json:"sku"`
	Units     int64      `json:"units"`
	Available int64      `json:"available"`
	Held      int64      `json:"held"`
	Sold      int64      `json:"sold"`
}

// stock adds up the items a basket asks for.
func (p *Page) stock(b *Basket) (s PageItem) {
	for i := range p.Items {
		for j := range b.Lines {
			if it := &p.Items[i]; it.SKU == b.Lines[j].SKU {
				s.Units += it.Units
				s.Available += it.Available
				s.Held += it.Held
				s.Sold += it.Sold
			}
		}
	}
	return s
}

// instant reads a time as RFC 3339 or in Unix milliseconds.
type instant struct{ time.Time }

// UnmarshalJSON reads either form.
func (t *instant) UnmarshalJSON(b []byte) error {
	if ms, err := strconv.ParseInt(string(b), 10, 64); err == nil {
		t.Time = time.UnixMilli(ms).UTC()
		return nil
	}
	return json.Unmarshal(b, &t.Time)
}

// readPage asks for the sale's page.
func readPage(ctx context.Context, c *conn, sale engine.SaleID) (Page, error) {
	req := "GET /v1/sales/" + string(sale) + " HTTP/1.1\r\nHost: " + c.host() + "\r\n\r\n"
	var r reply
	if err := c.do(ctx, time.Now(), []byte(req), &r); err != nil {
		return Page{}, fmt.Errorf("page of sale %s: %w", sale, err)
	}
	if r.status != http.StatusOK {
		return Page{}, fmt.Errorf("page of sale %s: status %d", sale, r.status)
	}
	var p struct {
		State              string
		Opens, Closes, Now instant
		Items              []PageItem
	}
	if err := json.Unmarshal(r.body, &p); err != nil {
		return Page{}, fmt.Errorf("page of sale %s: %w", sale, err)
	}
	return Page{State: p.State, Opens: p.Opens.Time, Closes: p.Closes.Time, Now: p.Now.Time, Items: p.Items}, nil
}
