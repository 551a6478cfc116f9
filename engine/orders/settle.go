package orders

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/doorbuster/doorbuster/engine"
	"github.com/doorbuster/doorbuster/engine/postgres"
)

// SettleSale makes a closed sale settled, if PostgreSQL finds it at rest in that
// epoch: not frozen, no order open or parked, no release row pending. It has the sale to
// itself while it looks. False if it is not at rest. also, if not nil, runs before
// the commit (more than once if the transaction is tried again): with its error
// nothing is changed. From then on nobody leads the sale, until something is
// written for it that Redis must follow: see wake.
func (s *Store) SettleSale(ctx context.Context, sale engine.SaleID, epoch int64, note Note, also func(context.Context) error) (settled bool, err error) {
	in, err := s.info(ctx, sale)
	if err != nil {
		return false, fmt.Errorf("settle: %w", err)
	}
	err = postgres.InTx(ctx, s.pool, func(tx pgx.Tx) error {
		if err := postgres.LockSaleExclusive(ctx, tx, sale); err != nil {
			return err
		}
		if err := s.mayLead(ctx, tx, in.no); err != nil {
			return err
		}
		tag, err := tx.Exec(ctx, `UPDATE sales SET state = $3, state_at = now()
			WHERE no = $1 AND epoch = $2 AND NOT frozen AND state = $4
			AND NOT EXISTS (SELECT FROM moves WHERE sale_no = $1 AND NOT done)
			AND NOT EXISTS (SELECT FROM parked WHERE sale_no = $1)
			AND NOT EXISTS (SELECT FROM orders WHERE sale_no = $1 AND state IN ($5, $6))`,
			in.no, epoch, engine.SaleSettled, engine.SaleClosed, engine.Reserved, engine.Paying)
		if settled = tag.RowsAffected() == 1; err != nil || !settled {
			return err
		}
		if err := endLead(ctx, tx, in.no); err != nil {
			return err
		}
		if err := writeTrail(ctx, tx, in.no, trailLine{what: "state " + string(engine.SaleSettled)}, note); err != nil || also == nil {
			return err
		}
		return also(ctx)
	})
	if err != nil {
		return false, fmt.Errorf("settle sale %s: %w", sale, err)
	}
	return settled, nil
}

// endLead takes the sale off the list of those that somebody must look after. Its number
// is kept: a leader who slept meanwhile must not find it given to another again.
func endLead(ctx context.Context, tx pgx.Tx, no int32) error {
	_, err := tx.Exec(ctx, `WITH l AS (DELETE FROM leads WHERE sale_no = $1 RETURNING number)
		UPDATE sales SET led = l.number FROM l WHERE no = $1`, no)
	return err
}

// wakeSQL makes a settled sale closed again. Whoever writes a release row or an open
// order runs it in the same transaction: settled says that Redis has nothing to follow, and a
// unit that comes back weeks later, or a message that slept, makes that untrue.
// Its lead begins at a number that nobody had. Of other sales it changes nothing.
const wakeSQL = `WITH woken AS (UPDATE sales SET state = 'closed', state_at = now()
		WHERE no = $1 AND state = 'settled' RETURNING no, led)
	INSERT INTO leads (sale_no, number) SELECT no, led + 1 FROM woken ON CONFLICT DO NOTHING`

func wake(ctx context.Context, tx pgx.Tx, no int32) error {
	_, err := tx.Exec(ctx, wakeSQL, no)
	return err
}

// PruneSettled deletes up to limit release rows that told the ends of a sale's
// orders, of one sale that has been settled for at least age, and returns how
// many they were: 0 when there is nothing left to prune. Rows that give holds
// back and those of supplies stay: they are few, and laws are read from them.
// Before the first row goes the sale is marked as pruned. Rows of work need no
// pruning, for whoever takes them when they are due deletes them.
func (s *Store) PruneSettled(ctx context.Context, age time.Duration, limit int) (pruned int, err error) {
	err = postgres.InTx(ctx, s.pool, func(tx pgx.Tx) error {
		tag, err := tx.Exec(ctx, `WITH old AS (UPDATE sales SET pruned = true WHERE no = (
				SELECT s.no FROM sales s WHERE s.state = $1 AND s.state_at < now() - $2::interval
				AND EXISTS (SELECT FROM moves m WHERE m.sale_no = s.no AND m.done AND m.op = 0)
				ORDER BY s.no LIMIT 1 FOR UPDATE SKIP LOCKED) RETURNING no)
			DELETE FROM moves WHERE id = ANY (ARRAY(SELECT m.id FROM old JOIN moves m ON m.sale_no = old.no
				WHERE m.done AND m.op = 0 LIMIT $3))`, engine.SaleSettled, age, limit)
		pruned = int(tag.RowsAffected())
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("prune settled sales: %w", err)
	}
	return pruned, nil
}
