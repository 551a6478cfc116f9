package bench

import (
	"context"
	"errors"
	"fmt"

	"github.com/doorbuster/doorbuster/engine"
	"github.com/doorbuster/doorbuster/loadtest"
)

// durableMode is one of the ways that (j) compares.
type durableMode struct {
	name, fsync string
	mode        engine.Mode
	replica     bool
}

var durableModes = []durableMode{
	{"(j) standard", "everysec", engine.ModeStandard, false},
	{"(j) durable", "always", engine.ModeDurable, false},
	{"(j) followed", "everysec", engine.ModeStandard, true},
	{"(j) replica", "always", engine.ModeDurable, true},
}

// durableRounds is (j): (b) with a sale of standard mode, Redis writing to disk each
// second; in turn with one of durable mode, Redis writing before each answer; with one
// of standard mode while a replica follows, for which nobody waits; and with one of
// durable mode of which the replica must have everything too. Each round begins with
// another.
func (b *bench) durableRounds(ctx context.Context) (err error) {
	was, err := b.rdb.ConfigGet(ctx, "appendfsync").Result()
	if err != nil {
		return err
	}
	defer func() {
		b.mode = engine.ModeStandard
		err = errors.Join(err, b.rdb.ConfigSet(context.WithoutCancel(ctx), "appendfsync", was["appendfsync"]).Err())
	}()
	r, err := b.openReplica(ctx)
	if err != nil {
		return fmt.Errorf("replica: %w", err)
	}
	defer func() { err = errors.Join(err, r.close(ctx)) }()
	var d doors
	if d.back, err = b.serve(ctx, "back-durable", "recovery,relay,status"); err != nil {
		return err
	}
	if d.door, err = b.serve(ctx, "door-durable", "door"); err != nil {
		return err
	}
	if err = b.startWorker(ctx, &d); err != nil {
		return err
	}
	for i := range b.cfg.Pairs {
		for at := range durableModes {
			if err := b.durableRound(ctx, &d, r, durableModes[(i+at)%len(durableModes)]); err != nil {
				return err
			}
		}
	}
	return errors.Join(b.stopWorker(&d), d.door.stop(), d.back.stop())
}

func (b *bench) durableRound(ctx context.Context, d *doors, r *replica, m durableMode) (err error) {
	b.mode = m.mode
	if err := b.rdb.ConfigSet(ctx, "appendfsync", m.fsync).Err(); err != nil {
		return err
	}
	if m.replica {
		if err := b.follow(ctx, r, true); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, b.follow(context.WithoutCancel(ctx), r, false)) }()
	}
	sale, tickets, err := b.freshSale(ctx, d.door.urls[0], "instant")
	if err != nil {
		return err
	}
	w, err := b.stock.Watch(ctx, sale, 1)
	if err != nil {
		return err
	}
	durable := m.mode == engine.ModeDurable
	if s := w.Safety; s.Durable != durable || s.Replica != (durable && m.replica) {
		return fmt.Errorf("%s: sale %s waits for %+v", m.name, sale, s)
	}
	res, err := b.press(ctx, d.door.urls[0], sale, tickets)
	if err != nil {
		return err
	}
	if err := b.note(m.name, res.Rate(loadtest.Accepted), &res); err != nil {
		return err
	}
	_, err = b.waitRest(ctx, sale, res.Outcomes.Count(loadtest.Accepted))
	return err
}
