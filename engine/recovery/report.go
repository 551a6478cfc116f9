package recovery

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/doorbuster/doorbuster/engine"
	"github.com/doorbuster/doorbuster/engine/orders"
	"github.com/doorbuster/doorbuster/stock"
)

// Report is what is known of one sale's recovery. Milliseconds throughout; a
// pointer that is nil could not be read, or does not apply.
type Report struct {
	Sale        engine.SaleID    `json:"sale"`
	State       engine.SaleState `json:"state"`
	Epoch       int64            `json:"epoch"` // 0: not loaded yet
	Frozen      bool             `json:"frozen"`
	Incarnation *int64           `json:"incarnation"`
	Safety      string           `json:"safety,omitempty"` // of a durable sale: what it waits for
	Leader      *Leadership      `json:"leader"`           // null: nobody
	Rebuild     *RebuildReport   `json:"rebuild"`          // the one under way, or the last; null: none is noted
	Heartbeat   *Heartbeat       `json:"heartbeat"`
	Outbox      *int64           `json:"outbox"`       // entries not yet confirmed, in the epoch in use
	PendingRows int64            `json:"pending_rows"` // release rows that Redis has not followed
	Parked      int64            `json:"parked"`       // orders set aside until they can be taken again
	ClockSkewMS *int64           `json:"clock_skew_ms"`
	Sweep       *SweepReport     `json:"sweep"` // the last one noted; notes are a minute old at most unless it did something
	Redis       string           `json:"redis_problem,omitempty"`
}

// Leadership is who leads a sale.
type Leadership struct {
	Process string `json:"process"` // host:pid
	LeftMS  int64  `json:"lease_left_ms"`
	Number  int64  `json:"number"` // the fence; rises when the lead changes hands
}

// RebuildReport is a rebuild.
type RebuildReport struct {
	Running bool      `json:"running"`
	Phase   Phase     `json:"phase,omitempty"` // of a running one
	PhaseMS int64     `json:"phase_ms,omitempty"`
	Why     string    `json:"why"`
	Began   time.Time `json:"began"` // frozen since then, while it runs
	Trouble string    `json:"trouble,omitempty"`
	Steps   []Step    `json:"steps"` // that are over
}

// Heartbeat is the number from which doors take their lease, watched for a moment.
type Heartbeat struct {
	Number int64 `json:"number"`
	Rising bool  `json:"rising"`
	AgeMS  int64 `json:"age_ms"` // since it was seen to rise, or since it is watched
}

// SweepReport is one sweep.
type SweepReport struct {
	At time.Time `json:"at"`
	SweepCounts
}

// Observer asks PostgreSQL and Redis about recovery. It needs no process of that
// role, and changes nothing.
type Observer struct {
	Orders interface {
		Recoveries(ctx context.Context, sale engine.SaleID) ([]orders.Recovery, error)
		Sale(ctx context.Context, id engine.SaleID) (engine.Sale, orders.Status, error)
	}
	Stock interface {
		Watch(ctx context.Context, sale engine.SaleID, epoch int64) (stock.Watch, error)
		Outbox(ctx context.Context, sale engine.SaleID, epoch int64, limit int) ([]stock.Entry, int64, error)
	}
}

const (
	watchBeats = 3 * beatEvery // that a heartbeat is watched before it is said to stand
	lookEvery  = 50 * time.Millisecond
)

// Reports returns the reports of one sale, or of all in use for "". It takes as
// long as a heartbeat needs to rise, at most 1.5 s for all sales together.
// orders.ErrNoSale.
func (o *Observer) Reports(ctx context.Context, sale engine.SaleID) ([]Report, error) {
	known, err := o.Orders.Recoveries(ctx, sale)
	if err != nil {
		return nil, err
	}
	out := make([]Report, len(known))
	for i := range known {
		if out[i], err = reportOf(&known[i]); err != nil {
			return nil, fmt.Errorf("notes of sale %s: %w", known[i].Sale, err)
		}
		if known[i].Epoch > 0 {
			o.look(ctx, &out[i])
		}
	}
	o.watch(ctx, out)
	return out, nil
}

// reportOf is what PostgreSQL alone tells.
func reportOf(k *orders.Recovery) (Report, error) {
	r := Report{Sale: k.Sale, State: k.State, Epoch: k.Epoch, Frozen: k.Frozen, PendingRows: k.Pending, Parked: k.Parked}
	if k.Leader != "" && k.LeadLeft > 0 {
		process, _, _ := cutLast(k.Leader)
		r.Leader = &Leadership{Process: process, LeftMS: k.LeadLeft.Milliseconds(), Number: k.Number}
	}
	if !k.Began.IsZero() {
		r.Rebuild = &RebuildReport{Running: !k.Finished, Why: k.Why, Began: k.Began, Trouble: k.Trouble}
		if err := json.Unmarshal(k.Steps, &r.Rebuild.Steps); err != nil {
			return r, err
		}
		if k.Phase != "" {
			r.Rebuild.Phase, r.Rebuild.PhaseMS = Phase(k.Phase), max(0, k.Now.Sub(k.PhaseAt).Milliseconds())
		}
	}
	if !k.Swept.IsZero() {
		r.Sweep = &SweepReport{At: k.Swept}
		return r, json.Unmarshal(k.Sweep, &r.Sweep.SweepCounts)
	}
	return r, nil
}

func cutLast(s string) (before, after string, found bool) {
	i := strings.LastIndexByte(s, ':')
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+1:], true
}

// look is what Redis adds.
func (o *Observer) look(ctx context.Context, r *Report) {
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	asked := time.Now()
	_, status, err := o.Orders.Sale(ctx, r.Sale)
	answered := time.Now()
	if err != nil {
		return // it was there a moment ago: the report goes without the clocks
	}
	w, err := o.Stock.Watch(ctx, r.Sale, r.Epoch)
	watched := time.Now()
	if err != nil {
		r.Redis = err.Error()
		return
	}
	by := measureSkew(interval{asked, answered}, status.Now, interval{answered, watched}, w.Now).by.Milliseconds()
	r.ClockSkewMS, r.Incarnation, r.Safety = &by, &w.Incarnation, w.Safety.String()
	r.Heartbeat = &Heartbeat{Number: w.Heartbeat}
	if _, n, err := o.Stock.Outbox(ctx, r.Sale, w.Epoch, 1); err == nil {
		r.Outbox = &n
	}
	switch {
	case w.Epoch != r.Epoch:
		r.Redis = fmt.Sprintf("Redis has epoch %d", w.Epoch)
	case w.Frozen:
		r.Redis = "frozen"
	}
}

// watch looks at the heartbeats until each has risen, or should have.
func (o *Observer) watch(ctx context.Context, all []Report) {
	began := time.Now()
	left := make([]*Report, 0, len(all))
	for i := range all {
		if all[i].Heartbeat != nil && !all[i].Frozen && all[i].State != engine.SaleSettled {
			left = append(left, &all[i])
		}
	}
	rose := map[*Report]time.Time{}
	for len(left) > 0 && time.Since(began) < watchBeats && sleep(ctx, lookEvery, nil) {
		left = slices.DeleteFunc(left, func(r *Report) bool {
			w, err := o.Stock.Watch(ctx, r.Sale, r.Epoch)
			if err != nil || w.Epoch != r.Epoch {
				return errors.Is(err, stock.ErrNoSale)
			}
			if w.Heartbeat <= r.Heartbeat.Number {
				return false
			}
			r.Heartbeat.Number, r.Heartbeat.Rising = w.Heartbeat, true
			rose[r] = time.Now()
			return true
		})
	}
	for i := range all {
		if h := all[i].Heartbeat; h != nil {
			at, ok := rose[&all[i]]
			if !ok {
				at = began
			}
			h.AgeMS = time.Since(at).Milliseconds()
		}
	}
}
