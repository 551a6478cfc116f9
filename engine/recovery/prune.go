package recovery

import (
	"context"
	"fmt"
	"time"

	"github.com/doorbuster/doorbuster/engine"
)

const (
	pruneEvery     = time.Minute
	standingReplay = 7 * 24 * time.Hour // of a sale that never closes, from the end of the order
	pruneAtOnce    = 1000               // tombstones in one call
)

// pruner deletes tombstones after the replay window. From then on PostgreSQL
// answers a repeat. Scripts act on a record only under its hold, so a record may
// go at any time without harm to the stock.
type pruner struct {
	k    *keeper
	last time.Time
}

// PruneCounts is what one run of the pruner did.
type PruneCounts struct {
	Read   int // records
	Pruned int // of them
}

// runOnce prunes, once a minute and only when the window of some order is over.
func (p *pruner) runOnce(ctx context.Context) (PruneCounts, error) {
	v, now := p.k.view(), p.k.r.now()
	if !v.sound() || now.Sub(p.last) < pruneEvery {
		return PruneCounts{}, nil
	}
	p.last = now
	before, some := pruneBefore(&v.def, v.watch.Now)
	if !some {
		return PruneCounts{}, nil
	}
	var sum PruneCounts
	var dead []engine.OrderID
	for cursor, first := uint64(0), true; first || cursor != 0; first = false {
		began := p.k.r.now()
		recs, next, err := p.k.r.cfg.Stock.Records(ctx, p.k.sale, v.fence.Epoch, cursor)
		if err != nil {
			return sum, fmt.Errorf("prune: %w", err)
		}
		cursor = next
		sum.Read += len(recs)
		for i := range recs {
			if recs[i].State != engine.RecordHeld && recs[i].Finished < before {
				dead = append(dead, recs[i].Order.Order)
			}
		}
		for len(dead) >= pruneAtOnce || (cursor == 0 && len(dead) > 0) {
			n := min(len(dead), pruneAtOnce)
			done, err := p.k.r.cfg.Stock.Prune(ctx, p.k.sale, v.watch.Grip, dead[:n])
			if err != nil {
				return sum, fmt.Errorf("prune %d tombstones: %w", n, err)
			}
			dead, sum.Pruned = dead[n:], sum.Pruned+int(done)
		}
		if cursor != 0 && !p.k.r.sleep(ctx, p.k.r.now().Sub(began)) {
			return sum, ctx.Err()
		}
	}
	p.k.meter.pruned.Add(float64(sum.Pruned))
	return sum, nil
}

// pruneBefore returns the finishing time (Unix seconds) before which a tombstone
// may go at nowMS (Unix milliseconds by Redis' clock), and whether any may: all
// of them once close + replay window has passed; of a sale that never closes,
// those older than standingReplay.
func pruneBefore(def *engine.Sale, nowMS int64) (int64, bool) {
	if def.Closes.IsZero() {
		return nowMS/1000 - int64(standingReplay/time.Second), true
	}
	window := def.ReplayWindow
	if window == 0 {
		window = engine.DefaultReplay
	}
	if nowMS <= def.Closes.Add(window).UnixMilli() {
		return 0, false
	}
	return nowMS/1000 + 1, true
}
