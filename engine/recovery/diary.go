package recovery

import (
	"context"
	"encoding/json"
	"sync"
	"time"

	"github.com/doorbuster/doorbuster/engine"
	"github.com/doorbuster/doorbuster/engine/orders"
)

// Phase is a step of a rebuild.
type Phase string

// The phases, in their order. Freezing to Draining are skipped by the load of a new
// sale, but for the freeze.
const (
	NoPhase  Phase = ""
	Freezing Phase = "freezing" // PostgreSQL and Redis are told
	Waiting  Phase = "waiting"  // for the doors' leases to run out after the last heartbeat
	Draining Phase = "draining" // outbox and queue
	Queued   Phase = "queued"   // more urgent sales go first
	Cutting  Phase = "cutting"  // the one transaction
	Building Phase = "building" // the keys of the new epoch
	Loading  Phase = "loading"  // unfrozen; the scripts come last
)

// phases are all of them; the metric tells one by its place.
var phases = []Phase{NoPhase, Freezing, Waiting, Draining, Queued, Cutting, Building, Loading}

const (
	notesEvery  = 250 * time.Millisecond // between writings of what has changed
	sweepsNoted = time.Minute            // between notes of sweeps that did nothing
)

// Step is how long a rebuild was in a phase.
type Step struct {
	Phase  Phase `json:"phase"`
	TookMS int64 `json:"took_ms"`
}

// diary is what one rebuild did so far. It has one writer.
type diary struct {
	k     *keeper
	why   Trigger
	epoch int64
	began time.Time
	phase Phase
	since time.Time
	steps []Step
}

// open begins the diary of a rebuild.
func (k *keeper) open(why Trigger, epoch int64) *diary {
	now := k.r.now()
	return &diary{k: k, why: why, epoch: epoch, began: now, since: now}
}

// enter ends the phase that was, says so, and begins the next.
func (d *diary) enter(p Phase) {
	d.close()
	d.phase, d.since = p, d.k.r.now()
	d.k.meter.phase(p)
	d.note("", false)
}

func (d *diary) close() {
	if d.phase == NoPhase {
		return
	}
	took := d.k.r.now().Sub(d.since)
	d.steps = append(d.steps, Step{d.phase, took.Milliseconds()})
	d.k.meter.step(d.phase, took)
	d.k.log.Info("rebuild step", "why", string(d.why), "epoch", d.epoch, "step", string(d.phase), "took", took.Round(time.Millisecond))
	d.phase = NoPhase
}

// end says how the rebuild ended; err is nil if it is complete.
func (d *diary) end(err error) {
	d.close()
	d.k.meter.phase(NoPhase)
	trouble := ""
	if err != nil {
		trouble = err.Error()
	}
	d.note(trouble, err == nil)
}

func (d *diary) note(trouble string, finished bool) {
	steps, err := json.Marshal(append([]Step{}, d.steps...))
	if err != nil {
		panic("recovery: steps are strings and numbers: " + err.Error())
	}
	since, began := d.since, d.began
	d.k.r.notes.add(d.k.sale, func(n *entry) {
		n.Lead, n.Phase, n.Why, n.Trouble, n.Finished, n.Steps = d.k.lead, string(d.phase), string(d.why), trouble, finished, steps
		n.since, n.began = since, began
	})
}

// noteSweep notes a sweep, if it did something or the last note is old.
func (k *keeper) noteSweep(c SweepCounts) {
	now := k.r.now()
	if c.Published == 0 && c.Dropped == 0 && !k.sweepNoted.IsZero() && now.Sub(k.sweepNoted) < sweepsNoted {
		return
	}
	k.sweepNoted = now
	text, err := json.Marshal(c)
	if err != nil {
		panic("recovery: counts are numbers: " + err.Error())
	}
	k.r.notes.add(k.sale, func(n *entry) { n.Lead, n.Sweep, n.swept = k.lead, text, now })
}

// entry is a note on its way to PostgreSQL.
type entry struct {
	orders.RecoveryNote
	since, began, swept time.Time
}

// notebook gathers what has changed, so that a thousand rebuilds at once cost a
// writing each notesEvery, and no rebuild waits for one.
type notebook struct {
	mu  sync.Mutex
	all map[engine.SaleID]*entry
}

func (n *notebook) add(sale engine.SaleID, change func(*entry)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.all == nil {
		n.all = map[engine.SaleID]*entry{}
	}
	if n.all[sale] == nil {
		n.all[sale] = &entry{}
	}
	change(n.all[sale])
}

// take empties it.
func (n *notebook) take(now time.Time) []orders.RecoveryNote {
	n.mu.Lock()
	defer n.mu.Unlock()
	out := make([]orders.RecoveryNote, 0, len(n.all))
	for _, e := range n.all {
		e.PhaseAge, e.Age, e.SweptAge = now.Sub(e.since), now.Sub(e.began), now.Sub(e.swept)
		out = append(out, e.RecoveryNote)
	}
	clear(n.all)
	return out
}

// writeNotes writes what was noted until ctx ends. What cannot be written is lost:
// it is for those who look on.
func (r *Recovery) writeNotes(ctx context.Context) {
	say := outage{log: r.log, what: "notes for `doorbuster recovery status` cannot be written"}
	for sleep(ctx, notesEvery, nil) {
		say.tell(ctx, r.writeOnce(ctx))
	}
}

func (r *Recovery) writeOnce(ctx context.Context) error {
	all := r.notes.take(r.now())
	if len(all) == 0 || r.cfg.Notes == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	return r.cfg.Notes(ctx, all)
}
