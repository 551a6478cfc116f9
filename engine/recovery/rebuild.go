package recovery

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/doorbuster/doorbuster/engine"
	"github.com/doorbuster/doorbuster/engine/failpoint"
	"github.com/doorbuster/doorbuster/engine/orders"
	"github.com/doorbuster/doorbuster/stock"
)

// leaseWait is how long after the last heartbeat, whoever raised it, no door can
// answer 202 any more: its lease of 2 s, counted from the earlier of the two reads
// between which the number rose, and beatBudget. Our own beats are counted from
// their end (beaten). Another process' last beat was allowed by a round before the
// one in which we took the lead over, and came at most beatBudget after it, so it
// is enough to count from the moment we began to lead.
const leaseWait = 2*time.Second + beatBudget

const (
	surveysAtOnce = 2                      // each is in memory until its cut
	surveyLeast   = 200 * time.Millisecond // of the wait, for one to be begun
	surveyMore    = time.Second            // that one may take longer than the wait
)

var (
	errMoved  = errors.New("another leader moved the epoch")
	errServer = errors.New("the Redis server restarted or failed over meanwhile")
)

// rebuilder makes a sale's keys anew, as the next epoch. Whatever step fails, the
// sale stays frozen and the next call begins again; so may another leader.
type rebuilder struct{ k *keeper }

// loss is what a rebuild is about: the fence of the sale, what was found, and how
// urgent it is.
type loss struct {
	fence   orders.Fence
	why     Trigger
	urgency urgency
	units   int64 // claimed
}

// runOnce takes a sale from the epoch of its fence to the next. It returns the
// server that now has the keys.
func (b *rebuilder) runOnce(ctx context.Context, l loss) (_ stock.Server, err error) {
	k, began, f, why := b.k, b.k.r.now(), l.fence, l.why
	turn := k.r.turns.join(l.urgency, l.units)
	defer turn.leave()
	k.log.Info("rebuild", "why", string(why), "epoch", f.Epoch)
	d := k.open(why, f.Epoch)
	defer func() { d.end(err) }()
	d.enter(Freezing)
	if err := b.freeze(ctx, f); err != nil {
		return stock.Server{}, err
	}
	var survey *orders.Survey
	if f.Epoch > 0 { // else no door ever had a lease, and nobody accepted anything
		failpoint.Hit("recovery/after-freeze")
		d.enter(Waiting)
		var over func()
		survey, over = b.survey(ctx, l)
		defer over()
		if err := b.wait(ctx); err != nil {
			return stock.Server{}, err
		}
		d.enter(Draining)
		b.drain(ctx)
		failpoint.Hit("recovery/after-drain")
	}
	d.enter(Queued)
	if err := k.r.await(ctx, turn); err != nil {
		return stock.Server{}, err
	}
	d.enter(Cutting)
	img, err := b.cut(ctx, f.Epoch, survey)
	if err != nil {
		return stock.Server{}, err
	}
	failpoint.Hit("recovery/after-cut")
	d.enter(Building)
	server, err := b.build(ctx, img, d)
	if err != nil {
		return stock.Server{}, err
	}
	took := k.r.now().Sub(began)
	k.meter.rebuilt(why, took)
	k.log.Info("rebuilt", "why", string(why), "epoch", img.Sale.Epoch, "live", len(img.Live),
		"tombstones", len(img.Tombstones), "covered", img.Covered, "took", took.Round(time.Millisecond))
	return server, nil
}

// freeze stops everyone: PostgreSQL's word ends the heartbeat and marks no more
// rows, Redis' makes every script refuse. Redis may be empty, or frozen before.
func (b *rebuilder) freeze(ctx context.Context, f orders.Fence) error {
	k := b.k
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	frozen, err := k.orders.Freeze(ctx, k.sale, f.Epoch)
	if err != nil {
		return fmt.Errorf("freeze in PostgreSQL: %w", err)
	}
	if !frozen {
		return fmt.Errorf("freeze in PostgreSQL: %w", errMoved)
	}
	if f.Epoch == 0 {
		return nil
	}
	err = k.r.cfg.Stock.Freeze(ctx, k.sale, f.Epoch)
	if err != nil && !errors.Is(err, stock.ErrFenced) && !errors.Is(err, stock.ErrNoSale) {
		return fmt.Errorf("freeze in Redis: %w", err)
	}
	return nil
}

// wait lets every lease run out. hush was called, so beaten is final.
func (b *rebuilder) wait(ctx context.Context) error {
	if !b.k.r.sleep(ctx, b.leasesLeft()) {
		return ctx.Err()
	}
	return nil
}

func (b *rebuilder) leasesLeft() time.Duration {
	return leaseWait - b.k.r.now().Sub(b.k.beaten())
}

// survey reads a large sale's orders while the leases run out, so that the cut need
// read only what changed since. nil if it is not worth it, or could not be done in that
// time. over forgets it.
func (b *rebuilder) survey(ctx context.Context, l loss) (_ *orders.Survey, over func()) {
	k, left := b.k, b.leasesLeft()
	if l.units < largeUnits || left < surveyLeast {
		return nil, func() {}
	}
	over = func() { k.r.surveys.Add(-1) }
	if k.r.surveys.Add(1) > surveysAtOnce {
		return nil, over
	}
	ctx, cancel := context.WithTimeout(ctx, left+surveyMore)
	defer cancel()
	began := k.r.now()
	v, err := k.orders.Survey(ctx, k.sale)
	if err != nil {
		k.log.Info("the cut reads every order", "err", err)
		return nil, over
	}
	k.log.Info("surveyed", "orders", v.Orders(), "took", k.r.now().Sub(began).Round(time.Millisecond))
	return v, over
}

// cut is the one transaction that ends the old epoch.
func (b *rebuilder) cut(ctx context.Context, epoch int64, after *orders.Survey) (orders.Image, error) {
	ctx, cancel := context.WithTimeout(ctx, longCallTime)
	defer cancel()
	img, err := b.k.orders.CutAfter(ctx, b.k.sale, epoch, after)
	if errors.Is(err, orders.ErrEpochMoved) {
		return img, fmt.Errorf("cut: %w", errMoved)
	}
	if err != nil {
		return img, fmt.Errorf("cut: %w", err)
	}
	return img, nil
}

// build writes the keys of the image's epoch on the server that is there, lets
// PostgreSQL go on, and loads the scripts last: before that every call meets
// NOSCRIPT, or, if another sale loaded them, doors without a lease.
func (b *rebuilder) build(ctx context.Context, cut orders.Image, d *diary) (stock.Server, error) {
	ctx, cancel := context.WithTimeout(ctx, longCallTime)
	defer cancel()
	k := b.k
	server, err := k.r.cfg.Stock.Server(ctx, k.sale)
	if err != nil {
		return server, fmt.Errorf("name the server: %w", err)
	}
	inc, err := b.incarnation(ctx, server)
	if err != nil {
		return server, err
	}
	img := imageOf(cut, inc)
	if err := k.r.cfg.Stock.Build(ctx, img); err != nil {
		return server, fmt.Errorf("build epoch %d: %w", img.Epoch, err)
	}
	if err := b.same(ctx, server); err != nil {
		return server, fmt.Errorf("build epoch %d: %w", img.Epoch, err)
	}
	failpoint.Hit("recovery/before-unfreeze")
	d.enter(Loading)
	on, err := k.orders.Unfreeze(ctx, k.sale, img.Epoch)
	if err != nil {
		return server, fmt.Errorf("unfreeze epoch %d: %w", img.Epoch, err)
	}
	if !on {
		return server, fmt.Errorf("unfreeze epoch %d: %w", img.Epoch, errMoved)
	}
	failpoint.Hit("recovery/after-unfreeze")
	if err := k.r.cfg.Stock.Load(ctx, k.sale, inc); err != nil {
		return server, fmt.Errorf("load scripts: %w", err)
	}
	// If it restarted since the last look, the scripts are on a server whose keys
	// may lack a suffix, and NOSCRIPT says nothing any more: begin again.
	if err := b.same(ctx, server); err != nil {
		return server, fmt.Errorf("load scripts: %w", err)
	}
	return server, nil
}

func (b *rebuilder) same(ctx context.Context, server stock.Server) error {
	now, err := b.k.r.cfg.Stock.Server(ctx, b.k.sale)
	if err != nil {
		return fmt.Errorf("name the server: %w", err)
	}
	if now != server {
		return errServer
	}
	return nil
}

// incarnation is the number that the scripts on this server carry. Servers are
// told apart by run id and by the history of their data, so a restart or a failover has
// a new number anyway; it is raised too
// when its scripts are gone from a server that still runs (SCRIPT FLUSH), because
// then their absence no longer tells anybody anything.
func (b *rebuilder) incarnation(ctx context.Context, server stock.Server) (int64, error) {
	k := b.k
	inc, err := k.orders.Incarnation(ctx, server.Name())
	if err != nil {
		return 0, fmt.Errorf("incarnation of %s: %w", server.Name(), err)
	}
	loaded, err := k.r.cfg.Stock.Loaded(ctx, k.sale, inc)
	if err != nil {
		return 0, fmt.Errorf("look for scripts: %w", err)
	}
	if loaded {
		return inc, nil
	}
	if inc, err = k.orders.RaiseIncarnation(ctx, server.Name(), inc); err != nil {
		return 0, fmt.Errorf("raise the incarnation of %s: %w", server.Name(), err)
	}
	return inc, nil
}

// imageOf translates PostgreSQL's picture into the stock's.
func imageOf(cut orders.Image, inc int64) stock.Image {
	img := stock.Image{
		Sale: cut.Sale, Epoch: cut.Sale.Epoch, Incarnation: inc,
		Live:       make([]stock.LiveOrder, len(cut.Live)),
		Tombstones: make([]stock.Tombstone, len(cut.Tombstones)),
	}
	for i, l := range cut.Live {
		img.Live[i] = stock.LiveOrder{Order: l.Order, Settled: l.Settled, Finished: l.Finished}
	}
	for i, t := range cut.Tombstones {
		state := engine.RecordReleased
		if t.Settled {
			state = engine.RecordSettled
		}
		img.Tombstones[i] = stock.Tombstone{Order: t.Order, Hold: t.Hold, Body: t.Body, State: state, Finished: t.Finished}
	}
	return img
}
