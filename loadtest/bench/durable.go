package bench

import (
	"context"
	"errors"
	"slices"

	"github.com/doorbuster/doorbuster/engine"
	"github.com/doorbuster/doorbuster/loadtest"
)

// durableRounds is (j): (b) with a sale of standard mode, Redis writing to disk each
// second, and in turn with one of durable mode, Redis writing before each answer.
func (b *bench) durableRounds(ctx context.Context) (err error) {
	was, err := b.rdb.ConfigGet(ctx, "appendfsync").Result()
	if err != nil {
		return err
	}
	defer func() {
		b.mode = engine.ModeStandard
		err = errors.Join(err, b.rdb.ConfigSet(context.WithoutCancel(ctx), "appendfsync", was["appendfsync"]).Err())
	}()
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
	modes := []struct {
		name, fsync string
		mode        engine.Mode
	}{{"(j) standard", "everysec", engine.ModeStandard}, {"(j) durable", "always", engine.ModeDurable}}
	for range b.cfg.Pairs {
		slices.Reverse(modes) // who comes second finds everything warm
		for _, one := range modes {
			b.mode = one.mode
			if err := b.rdb.ConfigSet(ctx, "appendfsync", one.fsync).Err(); err != nil {
				return err
			}
			if err := b.acceptedIn(ctx, one.name, &d); err != nil {
				return err
			}
		}
	}
	return errors.Join(b.stopWorker(&d), d.door.stop(), d.back.stop())
}

func (b *bench) acceptedIn(ctx context.Context, name string, d *doors) error {
	sale, tickets, err := b.freshSale(ctx, d.door.urls[0], "instant")
	if err != nil {
		return err
	}
	res, err := b.press(ctx, d.door.urls[0], sale, tickets)
	if err != nil {
		return err
	}
	if err := b.note(name, res.Rate(loadtest.Accepted), &res); err != nil {
		return err
	}
	_, err = b.waitRest(ctx, sale, res.Outcomes.Count(loadtest.Accepted))
	return err
}
