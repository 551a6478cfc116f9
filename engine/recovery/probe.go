package recovery

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/doorbuster/doorbuster/engine"
	"github.com/doorbuster/doorbuster/engine/orders"
	"github.com/doorbuster/doorbuster/stock"
)

// Trigger says why a sale's keys must be made again.
type Trigger string

// The triggers.
const (
	Sound           Trigger = ""         // they need not
	TriggerNew      Trigger = "new"      // there were none yet
	TriggerFrozen   Trigger = "frozen"   // a rebuild stopped half-way
	TriggerMissing  Trigger = "missing"  // the state hash is gone, or of another epoch
	TriggerNoScript Trigger = "noscript" // the scripts are gone: Redis restarted or failed over
	TriggerRunID    Trigger = "run-id"   // another Redis process
	TriggerReplID   Trigger = "repl-id"  // another history of the data
	TriggerBehind   Trigger = "behind"   // PostgreSQL knows a hold that Redis has not given out
	TriggerOther    Trigger = "other"    // the scripts refuse the state: it is of another incarnation
	TriggerWoken    Trigger = "woken"    // settled in Redis, where keys may have gone since, and not in PostgreSQL
)

var triggers = []Trigger{
	TriggerNew, TriggerFrozen, TriggerMissing, TriggerNoScript, TriggerRunID, TriggerReplID, TriggerBehind, TriggerOther, TriggerWoken,
}

// notes are what a probe learned, in the order of asking: PostgreSQL first, so
// that a hold it knows must be in what Redis says after.
type notes struct {
	fence    orders.Fence
	watch    stock.Watch
	missing  bool // there is no watch to be had, though Redis answered
	loaded   bool
	refused  bool // the scripts are there and refuse the state
	server   stock.Server
	formerly stock.Server // when the sale was last sound; zero if not known
	stranger bool         // then: the state was not built for this server and history
}

// diagnose decides, from what was seen alone, whether to rebuild.
func diagnose(n *notes) Trigger {
	switch {
	case n.fence.Epoch == 0:
		return TriggerNew
	case n.fence.Frozen:
		return TriggerFrozen
	case n.missing, n.watch.Epoch != n.fence.Epoch:
		return TriggerMissing
	case n.watch.Frozen:
		return TriggerFrozen
	case !n.loaded:
		return TriggerNoScript
	case n.formerly.RunID != "" && n.formerly.RunID != n.server.RunID:
		return TriggerRunID
	case n.formerly.ReplID != "" && n.formerly.ReplID != n.server.ReplID:
		return TriggerReplID
	case n.stranger:
		return TriggerReplID
	case n.fence.Seq > n.watch.Seq:
		return TriggerBehind
	case n.refused:
		return TriggerOther
	case n.watch.Retired:
		return TriggerWoken
	}
	return Sound
}

// prober looks after a sale's health, once a second.
type prober struct {
	k        *keeper
	formerly stock.Server
	proved   proof     // that the scripts take this state
	askAt    time.Time // when PostgreSQL is asked again at the latest: see glance
	sold     int64     // when the last order was accepted, in any epoch, Unix ms

	rebuilder rebuilder
	lagger    lagger
	clock     clock
	follower  follower
	calendar  calendar
	settler   settler
}

// proof names what was tried: scripts and the state they were tried on.
type proof struct {
	epoch, incarnation int64
	sha                string
}

func proofOf(w *stock.Watch) proof { return proof{w.Epoch, w.Incarnation, w.SHA[stock.OpLag]} }

func newProber(k *keeper) *prober {
	return &prober{
		k: k, rebuilder: rebuilder{k}, lagger: lagger{k: k}, clock: clock{k: k}, follower: follower{k: k},
		calendar: calendar{k}, settler: settler{k: k},
	}
}

// runOnce probes the sale, rebuilds it if it must, and else does the small jobs.
// It returns what it found.
func (p *prober) runOnce(ctx context.Context) (Trigger, error) {
	v, sound, err := p.glance(ctx)
	if err != nil {
		return Sound, err
	}
	if sound {
		return Sound, p.found(ctx, &v)
	}
	n, v, err := p.probe(ctx)
	if err != nil {
		return Sound, err
	}
	n.formerly, p.sold = p.formerly, max(p.sold, n.fence.AcceptedAt)
	found := diagnose(&n)
	if found == Sound {
		if n.stranger, err = p.strange(ctx, &n); err != nil {
			return Sound, err
		}
		if n.refused, err = p.prove(ctx, &v); err != nil {
			return Sound, err
		}
		found = diagnose(&n)
	}
	if found == Sound {
		p.formerly = n.server
		p.k.meter.sound(n.fence.Epoch)
		p.askAt = p.k.r.now().Add(askEvery)
		return Sound, p.found(ctx, &v)
	}
	p.k.hush()
	server, err := p.rebuilder.runOnce(ctx, loss{n.fence, found, urgencyOf(&v.def, v.asOf, p.sold), v.claimed})
	if err != nil {
		return found, fmt.Errorf("rebuild sale %s after %q: %w", p.k.sale, found, err)
	}
	p.formerly = server
	nudge(p.k.doubt) // probe at once: it is the probe that lets the heartbeat begin
	return found, nil
}

// found takes a sound sale as it was seen, and does the small jobs.
func (p *prober) found(ctx context.Context, v *view) error {
	v.lag = p.lagger.measure(ctx, v)
	p.k.setView(*v)
	return p.errands(ctx, v)
}

// strange asks, once in each lead, whether the state was built for the server that has
// it: a server that was replaced and is back has its scripts, and perhaps other data,
// and who led before may not have lived to see it.
func (p *prober) strange(ctx context.Context, n *notes) (bool, error) {
	if p.formerly != (stock.Server{}) {
		return false, nil
	}
	ctx, cancel := p.k.r.within(ctx, callTime)
	defer cancel()
	ours, err := p.k.orders.HadIncarnation(ctx, n.server.Name(), n.watch.Incarnation)
	if err != nil {
		return false, fmt.Errorf("probe: %w", err)
	}
	return !ours, nil
}

// prove calls a script, one that changes nothing, once for each state: that it is
// loaded does not say that it was made for the incarnation the state was built under.
func (p *prober) prove(ctx context.Context, v *view) (refused bool, err error) {
	this := proofOf(&v.watch)
	if this == p.proved {
		return false, nil
	}
	ctx, cancel := p.k.r.within(ctx, callTime)
	defer cancel()
	err = p.k.r.cfg.Stock.SetLag(ctx, p.k.sale, v.watch.Grip, v.watch.Lag)
	if errors.Is(err, stock.ErrFenced) {
		return true, nil
	}
	if err != nil {
		return false, fmt.Errorf("probe: %w", err)
	}
	p.proved = this
	return false, nil
}

// probe asks PostgreSQL, then Redis.
func (p *prober) probe(ctx context.Context) (notes, view, error) {
	ctx, cancel := p.k.r.within(ctx, callTime)
	defer cancel()
	k := p.k
	var v view
	var n notes
	var err error
	var status orders.Status
	if n.fence, err = k.orders.Fence(ctx, k.sale); err != nil {
		return n, v, fmt.Errorf("probe: %w", err)
	}
	asked := k.r.now()
	if v.def, status, err = k.orders.Sale(ctx, k.sale); err != nil {
		return n, v, fmt.Errorf("probe: %w", err)
	}
	answered := k.r.now()
	v.since, v.asOf = status.Since, status.Now
	for _, c := range status.Claimed {
		v.claimed += c.Units
	}
	if n.fence.Epoch == 0 || n.fence.Frozen {
		return n, v, nil // decided already
	}
	watched, err := p.look(ctx, &n)
	if err != nil || n.missing {
		return n, v, err
	}
	v.fence, v.watch, v.server = n.fence, n.watch, n.server
	v.skew = measureSkew(interval{asked, answered}, status.Now, watched, n.watch.Now)
	return n, v, nil
}

// look asks Redis. It returns when the watch was read.
func (p *prober) look(ctx context.Context, n *notes) (interval, error) {
	k, at := p.k, interval{asked: p.k.r.now()}
	var err error
	n.watch, err = k.r.cfg.Stock.Watch(ctx, k.sale, k.view().watch.Epoch)
	at.answered = k.r.now()
	if errors.Is(err, stock.ErrFenced) || errors.Is(err, stock.ErrNoSale) {
		n.missing = true
		return at, nil
	}
	if err != nil {
		return at, fmt.Errorf("probe: %w", err)
	}
	if n.server, err = k.r.cfg.Stock.Server(ctx, k.sale); err != nil {
		return at, fmt.Errorf("probe: %w", err)
	}
	if n.loaded, err = k.r.cfg.Stock.Loaded(ctx, k.sale, n.watch.Incarnation); err != nil {
		return at, fmt.Errorf("probe: %w", err)
	}
	return at, nil
}

// errands are the jobs that need a fresh probe of a sound sale. One that fails
// does not keep the others from their turn.
func (p *prober) errands(ctx context.Context, v *view) error {
	ctx, cancel := p.k.r.within(ctx, callTime)
	defer cancel()
	_, err1 := p.clock.runOnce(ctx, v)
	var err2 error
	if !p.clock.tooFar() || v.def.State == engine.SaleClosed { // else the two would undo each other's work: see clock
		_, err2 = p.follower.runOnce(ctx, v)
	}
	_, err3 := p.lagger.runOnce(ctx, v)
	_, err4 := p.calendar.runOnce(ctx, v)
	_, err5 := p.settler.runOnce(ctx, v)
	return errors.Join(err1, err2, err3, err4, err5, p.secure(ctx, v))
}

// secure lets a durable sale wait for a replica, from when there is one.
func (p *prober) secure(ctx context.Context, v *view) error {
	k, was := p.k, v.watch.Safety
	if !was.Durable || was.Replica || k.r.cfg.Secure == nil {
		return nil
	}
	is, err := k.r.cfg.Secure(ctx, k.sale, v.watch.Grip)
	if err == nil && is.Replica {
		k.log.Info("the durable sale waits for a replica from now on")
	}
	return err
}
