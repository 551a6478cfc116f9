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

const (
	movesAtOnce = 2048                  // of PendingMoves; Apply cuts them into calls of 256
	applyGather = 10 * time.Millisecond // after a small batch: the next shall be larger, a commit costs the same
	applyPoll   = 15 * time.Second      // if nobody says that there are moves: see scout
	badRowRetry = 30 * time.Second      // a row that the stock cannot follow, unless the definition changes
	badRowsMost = 1000                  // remembered
)

// applier carries what PostgreSQL decided to Redis, row by row id. It may run
// twice, anywhere, and stop between any two of its steps: scripts end the same
// however often and in whatever order rows are applied, and rows are marked only
// in the epoch they were applied to.
type applier struct {
	k       *keeper
	bad     map[int64]time.Time // rows not to be tried before
	version int64               // of the definition in Redis that they failed under
}

// ApplyCounts is what one step of the applier did.
type ApplyCounts struct {
	Moves  int // applied
	Marked int // rows done
	Bad    int // rows that the stock cannot follow
}

// runOnce applies some of the pending moves of a sound sale and marks their rows.
func (a *applier) runOnce(ctx context.Context) (ApplyCounts, error) {
	v := a.k.view()
	if !v.sound() {
		return ApplyCounts{}, nil
	}
	ctx, cancel := a.k.r.within(ctx, callTime)
	defer cancel()
	moves, err := a.k.orders.PendingMoves(ctx, a.k.sale, movesAtOnce)
	if err != nil {
		return ApplyCounts{}, fmt.Errorf("read moves: %w", err)
	}
	a.k.meter.pending(len(moves))
	grip := v.watch.Grip
	if a.version != grip.Version { // perhaps it has the item now
		a.bad, a.version = nil, grip.Version
	}
	if moves = a.good(moves); len(moves) == 0 {
		return ApplyCounts{}, nil
	}
	done, err := a.applyAll(ctx, grip, moves)
	if errors.Is(err, stock.ErrStale) { // the definition changed; only the version of the grip is old
		w, err2 := a.k.r.cfg.Stock.Watch(ctx, a.k.sale, grip.Epoch)
		if err2 == nil && w.Epoch == grip.Epoch {
			grip = w.Grip
			done, err = a.applyAll(ctx, grip, moves)
		}
	}
	counts := ApplyCounts{Moves: len(moves), Bad: len(a.bad)}
	if errors.Is(err, stock.ErrFenced) {
		nudge(a.k.doubt)
	}
	if err != nil {
		return counts, fmt.Errorf("apply %d moves in epoch %d: %w", len(moves), grip.Epoch, err)
	}
	failpoint.Hit("applier/after-apply")
	marked, moved, err := a.k.orders.MarkMoved(ctx, a.k.sale, grip.Epoch, done)
	if err != nil {
		return counts, fmt.Errorf("mark %d rows: %w", len(done), err)
	}
	failpoint.Hit("applier/after-mark")
	if moved {
		nudge(a.k.doubt) // a rebuild has begun, and its image or its successor has these rows
	}
	counts.Marked = marked
	a.k.meter.applied(moves, marked)
	return counts, nil
}

// good leaves out rows that failed lately.
func (a *applier) good(moves []engine.Move) []engine.Move {
	if len(a.bad) == 0 {
		return moves
	}
	now, kept := a.k.r.now(), moves[:0]
	for _, m := range moves {
		if until, bad := a.bad[m.ID]; bad && now.Before(until) {
			continue
		}
		delete(a.bad, m.ID)
		kept = append(kept, m)
	}
	return kept
}

// applyAll applies moves together, and if one of them is at fault row by row, so
// that it stops no other. It returns the rows that were applied.
func (a *applier) applyAll(ctx context.Context, g stock.Grip, moves []engine.Move) ([]orders.Moved, error) {
	taken, err := a.k.r.cfg.Stock.Apply(ctx, a.k.sale, g, moves)
	if err == nil {
		return rowsOf(moves, taken), nil
	}
	if !isBadRow(err) {
		return nil, err
	}
	var done []orders.Moved
	for len(moves) > 0 {
		n := 1
		for n < len(moves) && moves[n].ID == moves[0].ID {
			n++
		}
		taken, err := a.k.r.cfg.Stock.Apply(ctx, a.k.sale, g, moves[:n])
		switch {
		case err == nil:
			done = append(done, rowsOf(moves[:n], taken)...)
		case isBadRow(err):
			a.setAside(moves[0], err)
		default:
			return done, err
		}
		moves = moves[n:]
	}
	return done, nil
}

// isBadRow tells whether the row itself is at fault, not the state of Redis.
func isBadRow(err error) bool { return errors.Is(err, stock.ErrNoItem) }

func (a *applier) setAside(m engine.Move, err error) {
	if a.bad == nil || len(a.bad) >= badRowsMost {
		a.bad = map[int64]time.Time{}
	}
	a.bad[m.ID] = a.k.r.now().Add(badRowRetry)
	a.k.meter.badRows.Inc()
	a.k.log.Error("the stock cannot follow this row", "row", m.ID, "op", m.Op.String(), "order", string(m.Order), "err", err)
}

// rowsOf lists the rows of moves, once each. Only a withdraw takes units, and it
// is one move.
func rowsOf(moves []engine.Move, taken []int64) []orders.Moved {
	rows := make([]orders.Moved, 0, len(moves))
	for i := range moves {
		if n := len(rows); n > 0 && rows[n-1].ID == moves[i].ID {
			rows[n-1].Taken += taken[i]
			continue
		}
		rows = append(rows, orders.Moved{ID: moves[i].ID, Taken: taken[i]})
	}
	return rows
}
