package audit

import (
	"context"
	"fmt"
	"time"

	"github.com/doorbuster/doorbuster/engine"
)

// Tally is how far PostgreSQL is with a sale.
type Tally struct {
	Orders    int64     // written, whatever became of them
	Confirmed int64     // of them
	Last      time.Time // when the last one ended, UTC by PostgreSQL's clock; zero if none did
}

// Tally counts the orders of a sale, in one statement. A sale that does not exist
// has none.
func (a *Auditor) Tally(ctx context.Context, sale engine.SaleID) (t Tally, err error) {
	var last *time.Time
	err = a.pool.QueryRow(ctx, `SELECT count(*), count(*) FILTER (WHERE state = $2), max(finished_at)
		FROM orders WHERE sale_no = (SELECT no FROM sales WHERE id = $1)`, sale, engine.Confirmed).Scan(&t.Orders, &t.Confirmed, &last)
	if err != nil {
		return Tally{}, fmt.Errorf("tally of sale %s: %w", sale, err)
	}
	if last != nil {
		t.Last = last.UTC()
	}
	return t, nil
}
