package chaos

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/doorbuster/doorbuster/engine/control"
)

// Units of the sale, by moment, and what is kept back for a restock.
const (
	allUnits    = arrivals * 3
	fewUnits    = 1_200
	restockedBy = 600
)

const (
	promptly    = 250 * time.Millisecond // from the mark to the end of the strike
	firstMoment = 100 * time.Millisecond // after the open
	firstMark   = 15                     // accepts
	lastUnits   = 5
	lastKept    = 3   // units that nobody comes for until the nemesis has struck
	waveSeen    = 200 // "sold out" heard before units come back
	waveMark    = 10  // accepts after they did
	beats       = 3   // heartbeats before the open
)

// MinRate is how many orders a second must be accepted before a fault.
const MinRate = 300.0

// Moment says when a fault comes.
type Moment struct {
	Name       string
	units      int64
	lead       time.Duration // from the sale's creation to its open; 0: saleLead
	noDeclines bool          // every accept is final, so that what is left can be counted
	keep       int64
	rebuilds   bool // Redis forgets its scripts
	flows      bool // many orders come after it

	// wait returns when the mark is reached.
	wait func(ctx context.Context, h *house) error
	// missed says why a fault that ended now lies outside, "" if it does not.
	missed func(h *house, now time.Time) string
}

// Moments are all moments.
var Moments = []*Moment{
	{Name: "before-open", units: allUnits, lead: longLead, wait: waitBeats, missed: notBefore},
	{Name: "first-100ms", flows: true, units: allUnits, wait: waitAccepts(firstMark), missed: notFirst},
	{Name: "half-stock", flows: true, units: allUnits, wait: waitAccepts(allUnits / 2), missed: notAt(allUnits/2, allUnits*3/4)},
	{Name: "last-5-units", units: allUnits, noDeclines: true, keep: lastKept, wait: waitAccepts(allUnits - lastUnits), missed: notAt(allUnits-lastUnits, allUnits-1)},
	{Name: "restock-wave", flows: true, units: fewUnits, wait: waitWave, missed: notAt(fewUnits, fewUnits+restockedBy-waveMark)},
	{Name: "during-rebuild", units: allUnits, rebuilds: true, wait: waitRebuild, missed: func(*house, time.Time) string { return "" }},
}

// errNever is the cause of a mark that was not reached.
var errNever = errors.New("the moment never came: the crowd was done before")

// waitBeats waits for a built sale whose recovery beats.
func waitBeats(ctx context.Context, h *house) error {
	want := int64(beats - 1 + h.dice.IntN(2))
	return until(ctx, func() bool {
		w, err := h.stock.Watch(ctx, h.sale.ID, 0)
		return err == nil && w.Heartbeat >= want
	})
}

func waitAccepts(at int64) func(context.Context, *house) error {
	return func(ctx context.Context, h *house) error { return h.tally.accepts.reach(ctx, at) }
}

// waitWave lets the sale sell out, restocks it and waits until the first of the new
// units are gone.
func waitWave(ctx context.Context, h *house) error {
	if err := h.tally.accepts.reach(ctx, fewUnits); err != nil {
		return err
	}
	h.measure()
	if err := h.tally.soldOut.reach(ctx, waveSeen); err != nil {
		return err
	}
	had := h.tally.accepts.load()
	if err := h.ctl.Restock(ctx, h.sale.ID, saleSKU, restockedBy, control.Note{Who: "chaos", Why: "the wave"}); err != nil {
		return err
	}
	return h.tally.accepts.reach(ctx, had+waveMark)
}

// waitRebuild makes Redis forget its scripts when a quarter is sold, and waits for
// what recovery does then: one seed waits for the freeze, another for the cut.
func waitRebuild(ctx context.Context, h *house) error {
	if err := h.tally.accepts.reach(ctx, h.moment.units/4); err != nil {
		return err
	}
	h.measure()
	sale, _, err := h.orders.Sale(ctx, h.sale.ID)
	if err != nil {
		return err
	}
	if err := h.rdb.ScriptFlush(ctx).Err(); err != nil {
		return err
	}
	cut := h.dice.IntN(2) == 1
	return until(ctx, func() bool {
		now, st, err := h.orders.Sale(ctx, h.sale.ID)
		if err != nil {
			return false
		}
		if cut {
			return now.Epoch > sale.Epoch
		}
		w, err := h.stock.Watch(ctx, h.sale.ID, 0)
		return st.Frozen || err == nil && w.Frozen
	})
}

func notBefore(h *house, now time.Time) string {
	if !now.Before(h.sale.Opens) || h.tally.accepts.load() > 0 {
		return "the sale was open"
	}
	return ""
}

func notFirst(h *house, now time.Time) string {
	if since := now.Sub(h.sale.Opens); since > firstMoment {
		return fmt.Sprintf("it came %d ms after the open", since.Milliseconds())
	}
	return ""
}

func notAt(from, to int64) func(*house, time.Time) string {
	return func(h *house, _ time.Time) string {
		if n := h.tally.accepts.load(); n < from || n > to {
			return fmt.Sprintf("it came at accept %d, not within %d to %d", n, from, to)
		}
		return ""
	}
}
