package control

import (
	"context"
	"fmt"
	"time"

	"github.com/doorbuster/doorbuster/engine"
)

// View is what an operator sees of a sale. Times are UTC, amounts minor units.
type View struct {
	Sale             engine.SaleID    `json:"sale"`
	Name             string           `json:"name,omitempty"`
	State            engine.SaleState `json:"state"`
	Epoch            int64            `json:"epoch"` // 0: not loaded into Redis yet
	Version          int64            `json:"version"`
	Frozen           bool             `json:"frozen"` // a rebuild is under way
	Mode             string           `json:"mode"`
	Payment          string           `json:"payment"`
	Provider         string           `json:"provider"`
	Currency         string           `json:"currency"`
	Opens            time.Time        `json:"opens"`
	Closes           time.Time        `json:"closes"`
	Now              time.Time        `json:"now"` // PostgreSQL's clock
	LimitPerBuyer    int64            `json:"limit_per_buyer"`
	LimitPerIdentity int64            `json:"limit_per_identity"`
	PendingMoves     int64            `json:"pending_moves"` // Redis has not followed these yet
	Items            []ItemView       `json:"items"`
	Redis            *RedisView       `json:"redis"` // null: not loaded, or no answer
	RedisProblem     string           `json:"redis_problem,omitempty"`
	Trail            []TrailView      `json:"trail"`
}

// ItemView is one SKU in PostgreSQL and, where Redis answered, there.
type ItemView struct {
	SKU       engine.SKU `json:"sku"`
	Name      string     `json:"name,omitempty"`
	Price     int64      `json:"price"`
	Units     int64      `json:"units"`
	Claimed   int64      `json:"claimed"` // by live orders
	Available *int64     `json:"available"`
	Held      *int64     `json:"held"`
	Sold      *int64     `json:"sold"`
}

// RedisView is how the sale stands in its slot.
type RedisView struct {
	State       engine.SaleState `json:"state"`
	Epoch       int64            `json:"epoch"`
	Incarnation int64            `json:"incarnation"`
	Version     int64            `json:"version"`
	Frozen      bool             `json:"frozen"`
	Seq         int64            `json:"seq"`
	LagMs       int64            `json:"lag_ms"`
	Now         time.Time        `json:"now"` // Redis' clock
}

// TrailView is one act of the trail.
type TrailView struct {
	At    time.Time  `json:"at"`
	What  string     `json:"what"`
	SKU   engine.SKU `json:"sku,omitempty"`
	Units int64      `json:"units,omitempty"`
	Who   string     `json:"who"`
	Why   string     `json:"why"`
}

// Show returns a sale as PostgreSQL and Redis have it. Redis being away is told
// in the View, not as an error. orders.ErrNoSale.
func (c *Control) Show(ctx context.Context, id engine.SaleID) (View, error) {
	s, st, err := c.cfg.Orders.Sale(ctx, id)
	if err != nil {
		return View{}, fmt.Errorf("show sale %s: %w", id, err)
	}
	v := View{
		Sale: s.ID, Name: s.Name, State: s.State, Epoch: s.Epoch, Version: s.Version, Frozen: st.Frozen,
		Mode: string(s.Mode), Payment: string(s.Payment), Provider: s.Provider, Currency: s.Currency,
		Opens: s.Opens, Closes: s.Closes, Now: st.Now, LimitPerBuyer: s.LimitPerBuyer, LimitPerIdentity: s.LimitPerIdentity,
	}
	for i := range s.Items {
		it := ItemView{SKU: s.Items[i].SKU, Name: s.Items[i].Name, Price: s.Items[i].Price, Units: s.Items[i].Units}
		for j := range st.Claimed {
			if st.Claimed[j].SKU == it.SKU {
				it.Claimed = st.Claimed[j].Units
			}
		}
		v.Items = append(v.Items, it)
	}
	if v.PendingMoves, err = c.cfg.Orders.Backlog(ctx, id); err != nil {
		return View{}, fmt.Errorf("show sale %s: %w", id, err)
	}
	if err := c.showTrail(ctx, &v); err != nil {
		return View{}, fmt.Errorf("show sale %s: %w", id, err)
	}
	if s.Epoch > 0 {
		c.showRedis(ctx, &v)
	}
	return v, nil
}

func (c *Control) showTrail(ctx context.Context, v *View) error {
	trail, err := c.cfg.Orders.Trail(ctx, v.Sale, trailShown)
	v.Trail = make([]TrailView, 0, len(trail))
	for _, e := range trail {
		v.Trail = append(v.Trail, TrailView{At: e.At, What: e.What, SKU: e.SKU, Units: e.Units, Who: e.Who, Why: e.Why})
	}
	return err
}

func (c *Control) showRedis(ctx context.Context, v *View) {
	w, err := c.cfg.Stock.Watch(ctx, v.Sale, v.Epoch)
	if err != nil {
		v.RedisProblem = err.Error()
		return
	}
	v.Redis = &RedisView{
		State: w.State, Epoch: w.Epoch, Incarnation: w.Incarnation, Version: w.Version, Frozen: w.Frozen,
		Seq: w.Seq, LagMs: w.Lag, Now: time.UnixMilli(w.Now).UTC(),
	}
	for i := range w.Items {
		for j := range v.Items {
			if it := &v.Items[j]; it.SKU == w.Items[i].SKU {
				it.Available, it.Held, it.Sold = &w.Items[i].Available, &w.Items[i].Held, &w.Items[i].Sold
			}
		}
	}
}
