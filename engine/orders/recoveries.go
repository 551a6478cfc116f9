package orders

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/doorbuster/doorbuster/engine"
)

// RecoveryNote is what a leader writes down about a sale for those who look on.
// Ages are of the moment of writing. A Steps or Sweep that is nil leaves what was
// written before.
type RecoveryNote struct {
	Lead     Lead
	Phase    string // of the rebuild under way; "" is none
	Why      string // the rebuild began
	Trouble  string // why its last try failed
	Finished bool
	PhaseAge time.Duration
	Age      time.Duration   // since it began
	Steps    json.RawMessage // a list
	SweptAge time.Duration
	Sweep    json.RawMessage // an object
}

// TakenOver is the Why of a rebuild that goes on with one that stopped half-way: the
// cause and the beginning of that one stay.
const TakenOver = "frozen"

// NoteRecoveries writes notes, all in one round trip. Those of leads that stand no
// more are left out.
func (s *Store) NoteRecoveries(ctx context.Context, notes []RecoveryNote) error {
	var b pgx.Batch
	for i := range notes {
		n := &notes[i]
		b.Queue(noteRecovery, n.Lead.Sale, n.Lead.Number, n.Phase, n.PhaseAge, n.Age, n.Finished, n.Why, n.Trouble,
			[]byte(n.Steps), n.SweptAge, []byte(n.Sweep))
	}
	if err := s.pool.SendBatch(ctx, &b).Close(); err != nil {
		return fmt.Errorf("note %d recoveries: %w", len(notes), err)
	}
	return nil
}

const noteRecovery = `INSERT INTO recoveries AS r (sale_no, phase, phase_at, began_at, finished, why, trouble, steps, swept_at, sweep)
	SELECT s.no, $3::text, clock_timestamp() - $4::interval,
		CASE WHEN $9::jsonb IS NOT NULL THEN clock_timestamp() - $5::interval END, $6::boolean, $7::text, $8::text, coalesce($9::jsonb, '[]'),
		CASE WHEN $11::jsonb IS NOT NULL THEN clock_timestamp() - $10::interval END, coalesce($11::jsonb, '{}')
	FROM sales s JOIN leads l ON l.sale_no = s.no AND l.number = $2 WHERE s.id = $1
	ON CONFLICT (sale_no) DO UPDATE SET
		phase = CASE WHEN $9::jsonb IS NULL THEN r.phase ELSE excluded.phase END,
		phase_at = CASE WHEN $9::jsonb IS NULL THEN r.phase_at ELSE excluded.phase_at END,
		began_at = CASE WHEN $9::jsonb IS NULL OR $7 = '` + TakenOver + `' AND NOT r.finished AND r.began_at IS NOT NULL THEN r.began_at ELSE excluded.began_at END,
		why = CASE WHEN $9::jsonb IS NULL OR $7 = '` + TakenOver + `' AND NOT r.finished AND r.why <> '' THEN r.why ELSE excluded.why END,
		finished = CASE WHEN $9::jsonb IS NULL THEN r.finished ELSE excluded.finished END,
		trouble = CASE WHEN $9::jsonb IS NULL THEN r.trouble ELSE excluded.trouble END,
		steps = CASE WHEN $9::jsonb IS NULL THEN r.steps ELSE excluded.steps END,
		swept_at = coalesce(excluded.swept_at, r.swept_at),
		sweep = CASE WHEN $11::jsonb IS NULL THEN r.sweep ELSE excluded.sweep END`

// Recovery is what PostgreSQL knows of a sale's recovery. Times are UTC, zero if
// there was nothing.
type Recovery struct {
	Sale     engine.SaleID
	State    engine.SaleState
	Epoch    int64
	Frozen   bool
	Number   int64         // of the lead; 0 if nobody need lead the sale
	Leader   string        // process: host:pid and something of its own; "" is nobody
	LeadLeft time.Duration // of the lease; negative if it has run out

	Phase, Why, Trouble string
	PhaseAt, Began      time.Time
	Finished            bool
	Steps, Sweep        json.RawMessage
	Swept               time.Time

	Pending int64 // release rows that Redis has not followed
	Parked  int64 // orders set aside

	Now time.Time // PostgreSQL's clock
}

// Recoveries reads the recovery of one sale, or, with "", of every sale in use, by
// id. ErrNoSale.
func (s *Store) Recoveries(ctx context.Context, sale engine.SaleID) ([]Recovery, error) {
	rows, err := s.pool.Query(ctx, `SELECT s.id, s.state, s.epoch, s.frozen, coalesce(l.number, 0), coalesce(l.leader, ''),
			coalesce(x.until - clock_timestamp(), '0'), coalesce(r.phase, ''), coalesce(r.why, ''), coalesce(r.trouble, ''), r.phase_at, r.began_at,
			coalesce(r.finished, false), coalesce(r.steps, '[]'), coalesce(r.sweep, '{}'), r.swept_at,
			(SELECT count(*) FROM moves m WHERE m.sale_no = s.no AND NOT m.done),
			(SELECT coalesce(sum(p.n), 0)::bigint FROM parked p WHERE p.sale_no = s.no), clock_timestamp()
		FROM sales s LEFT JOIN leads l ON l.sale_no = s.no LEFT JOIN leaders x ON x.name = l.leader
			LEFT JOIN recoveries r ON r.sale_no = s.no
		WHERE s.id = $1 OR ($1 = '' AND s.state <> $2) ORDER BY s.id`, sale, engine.SaleSettled)
	if err != nil {
		return nil, fmt.Errorf("recoveries: %w", err)
	}
	all, err := pgx.CollectRows(rows, scanRecovery)
	if err == nil && sale != "" && len(all) == 0 {
		err = fmt.Errorf("sale %s: %w", sale, ErrNoSale)
	}
	if err != nil {
		return nil, fmt.Errorf("recoveries: %w", err)
	}
	return all, nil
}

func scanRecovery(row pgx.CollectableRow) (r Recovery, err error) {
	var phaseAt, began, swept *time.Time
	var steps, sweep []byte
	err = row.Scan(&r.Sale, &r.State, &r.Epoch, &r.Frozen, &r.Number, &r.Leader, &r.LeadLeft, &r.Phase, &r.Why, &r.Trouble,
		&phaseAt, &began, &r.Finished, &steps, &sweep, &swept, &r.Pending, &r.Parked, &r.Now)
	r.Steps, r.Sweep = steps, sweep
	for _, t := range []struct {
		to   *time.Time
		from *time.Time
	}{{&r.PhaseAt, phaseAt}, {&r.Began, began}, {&r.Swept, swept}} {
		if t.from != nil {
			*t.to = t.from.UTC()
		}
	}
	return r, err
}
