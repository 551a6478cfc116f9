package audit

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/doorbuster/doorbuster/engine"
)

// restPause is how often WaitForRest looks, at most; a look that takes long
// makes it look less often.
const restPause = 200 * time.Millisecond

// restLooks is how many looks in a row must find nothing: a message that a worker
// holds is in no queue and not yet in PostgreSQL.
const restLooks = 2

// WaitForRest polls until the sale is at rest: outbox and queues empty, every
// number that Redis gave out in PostgreSQL, every order at its end, every release
// row applied. It returns "" then. When ctx ends first it returns what is still
// under way, and ctx's error. A server that does not answer is waited for.
func (a *Auditor) WaitForRest(ctx context.Context, sale engine.SaleID) (waiting string, err error) {
	for quiet := 0; ; {
		began := time.Now()
		now := a.underWay(ctx, sale)
		if ctx.Err() != nil {
			if waiting == "" {
				waiting = now
			}
			return waiting, ctx.Err()
		}
		if waiting = now; waiting == "" {
			quiet++
		} else {
			quiet = 0
		}
		if quiet == restLooks {
			return "", nil
		}
		select {
		case <-ctx.Done():
			return waiting, ctx.Err()
		case <-time.After(max(restPause, time.Since(began))):
		}
	}
}

// underWay says what is not at rest, "" if nothing is.
func (a *Auditor) underWay(ctx context.Context, sale engine.SaleID) string {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	var what []string
	say := func(n int64, thing string) {
		if n != 0 {
			what = append(what, fmt.Sprintf("%d %s", n, thing))
		}
	}
	p, err := a.progress(ctx, sale)
	if err != nil {
		return err.Error()
	}
	say(p.reserved, "orders reserved")
	say(p.paying, "orders paying")
	say(p.pending, "release rows pending")
	say(p.tasks, "tasks owed to the provider")
	say(p.parked, "orders parked")
	if p.frozen {
		what = append(what, "the sale is frozen")
	}
	s, err := a.readSlot(ctx, sale)
	if err == nil {
		err = a.readOutboxes(ctx, sale, s)
	}
	if err != nil {
		return strings.Join(append(what, err.Error()), ", ")
	}
	say(s.outbox, "envelopes in the outbox")
	if s.watch.Epoch != p.epoch {
		what = append(what, fmt.Sprintf("Redis is in epoch %d, PostgreSQL in %d", s.watch.Epoch, p.epoch))
	} else {
		say(max(0, s.watch.Seq-p.numbers-p.nameless), "accepted orders not ingested")
	}
	if a.cfg.Queue.URL != "" {
		queued, _, err := a.depths(ctx)
		if err != nil {
			return strings.Join(append(what, err.Error()), ", ")
		}
		say(int64(queued), "messages queued")
	}
	return strings.Join(what, ", ")
}

type progress struct {
	epoch, reserved, paying, pending, numbers, tasks int64

	parked   int64 // of an older epoch, to be taken again
	nameless int64 // rejected, and nothing of them could be read: their numbers are spent, nobody knows which
	frozen   bool
}

func (a *Auditor) progress(ctx context.Context, sale engine.SaleID) (p progress, err error) {
	err = snapshot(ctx, a.pool, func(tx pgx.Tx) error {
		var no int32
		err := tx.QueryRow(ctx, `SELECT no, epoch, frozen FROM sales WHERE id = $1`, sale).Scan(&no, &p.epoch, &p.frozen)
		if errors.Is(err, pgx.ErrNoRows) {
			return errNoSale
		}
		if err != nil {
			return err
		}
		return tx.QueryRow(ctx, `SELECT count(*) FILTER (WHERE state = 1), count(*) FILTER (WHERE state = 2),
			(SELECT count(*) FROM moves WHERE sale_no = $1 AND NOT done),
			(SELECT count(DISTINCT seq) FROM (
				SELECT hold_seq FROM orders WHERE sale_no = $1 AND hold_epoch = $2 AND (NOT stray OR reason = $4)
				UNION ALL SELECT hold_seq FROM moves WHERE sale_no = $1 AND hold_epoch = $2 AND op IN (2, 3)) AS n (seq)),
			(SELECT count(*) FROM tasks t JOIN books k ON k.no = t.book WHERE k.sale = $3),
			(SELECT count(*) FROM rejected r WHERE r.sale = $3 AND NOT EXISTS (SELECT FROM orders o WHERE o.id = r.order_id)
				AND NOT EXISTS (SELECT FROM moves m WHERE m.orders[1] = r.order_id AND m.op IN (2, 3))),
			(SELECT coalesce(sum(n), 0)::bigint FROM parked WHERE sale_no = $1)
			FROM orders WHERE sale_no = $1`, no, p.epoch, sale, engine.ReasonRejected).
			Scan(&p.reserved, &p.paying, &p.pending, &p.numbers, &p.tasks, &p.nameless, &p.parked)
	})
	if err != nil {
		return p, fmt.Errorf("read sale %s from PostgreSQL: %w", sale, err)
	}
	return p, nil
}
