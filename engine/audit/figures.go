package audit

import (
	"slices"

	"github.com/doorbuster/doorbuster/engine"
)

func (r *Report) add(laws ...Law) {
	r.Laws = append(r.Laws, laws...)
	slices.SortStableFunc(r.Laws, func(a, b Law) int { return a.Number - b.Number })
}

// figures counts what PostgreSQL knows.
func (r *Report) figures(b *books, s sums) {
	r.Units, r.UnitsConfirmed = units(&b.sale), total(s.confirmed)
	for i := range b.rows {
		r.count(b.rows[i].state, b.rows[i].reason, 1)
	}
	r.Oversold = oversold(&b.sale, s)
	var lastAccept int64
	for i := range b.rows {
		lastAccept = max(lastAccept, b.rows[i].accepted)
	}
	r.Seconds = seconds(b.first, max(b.lastEnd, lastAccept))
	r.AcceptedPerS = rate(r.Accepted, seconds(b.first, lastAccept))
	r.ConfirmedPerS = rate(r.Confirmed, seconds(b.first, b.lastConfirm))
}

// count adds n orders of a state.
func (r *Report) count(state engine.OrderState, reason engine.Reason, n int64) {
	r.Accepted += n
	switch state {
	case engine.Confirmed:
		r.Confirmed += n
	case engine.Cancelled:
		r.Cancelled += n
		r.CancelReasons[reason.String()] += n
	default:
		r.Stuck += n
	}
}

func oversold(sale *engine.Sale, s sums) (n int64) {
	for _, it := range sale.Items {
		n += max(0, s.confirmed[it.SKU]-it.Units)
	}
	return n
}

// crowdFigures counts what the client log knows better.
func (r *Report) crowdFigures(b *books, c *crowd) {
	r.Requests, r.SoldOut, r.Refused = &c.requests, &c.soldOut, &c.refused
	r.Accepted = c.accepted
	r.AcceptedPerS = rate(c.accepted, seconds(c.firstAccept, c.lastAccept))
	if c.firstAt != 0 {
		r.Seconds = seconds(c.firstAt, max(c.lastAt, b.lastEnd))
	}
}

func seconds(from, to int64) float64 {
	if from == 0 || to <= from {
		return 0
	}
	return float64(to-from) / 1000
}

// rate is n per second; 0 where there was no time to speak of.
func rate(n int64, seconds float64) float64 {
	if seconds <= 0 {
		return 0
	}
	return float64(n) / seconds
}
