package audit

import (
	"time"

	"github.com/doorbuster/doorbuster/engine"
)

// Finding is what the audit found about a law.
type Finding byte

// The findings. The zero value is Unchecked.
const (
	Unchecked Finding = iota // could not be looked at
	Holds
	Broken
)

// String names the finding.
func (f Finding) String() string {
	switch f {
	case Holds:
		return "holds"
	case Broken:
		return "broken"
	}
	return "unchecked"
}

// MarshalJSON writes true, false, or null for Unchecked.
func (f Finding) MarshalJSON() ([]byte, error) {
	switch f {
	case Holds:
		return []byte("true"), nil
	case Broken:
		return []byte("false"), nil
	}
	return []byte("null"), nil
}

// UnmarshalJSON reads what MarshalJSON writes.
func (f *Finding) UnmarshalJSON(b []byte) error {
	switch string(b) {
	case "true":
		*f = Holds
	case "false":
		*f = Broken
	default:
		*f = Unchecked
	}
	return nil
}

// Law is one law and what was found.
type Law struct {
	Number int     `json:"law"`
	Name   string  `json:"name"`
	Holds  Finding `json:"holds"`  // true, false, or null: unchecked
	Detail string  `json:"detail"` // what was counted, or the first things wrong
	// Excused says that the law is unchecked because nothing was given to check it
	// with (no client log, no ledger), not because something failed.
	Excused bool             `json:"excused,omitempty"`
	Figures map[string]int64 `json:"figures,omitempty"`
}

// Verdicts of a report.
const (
	Pass = "pass" // no law is broken, and none is unchecked that could have been
	Fail = "fail"
)

// Report is what one audit of one sale found.
type Report struct {
	Sale   engine.SaleID `json:"sale"`
	At     time.Time     `json:"at"` // UTC, by the auditor's clock
	AtRest bool          `json:"at_rest"`
	Figures
	Laws    []Law  `json:"laws"`
	Verdict string `json:"verdict"`
}

// Figures are counted from PostgreSQL, the provider's ledger and the client log.
// Those that need what was not there are nil.
type Figures struct {
	Units          int64   `json:"units"`           // PostgreSQL: for sale in all, over all SKUs
	Requests       *int64  `json:"requests"`        // client log: requests sent
	Accepted       int64   `json:"accepted"`        // client log: orders answered 202 (without a log: PostgreSQL's orders)
	Confirmed      int64   `json:"confirmed"`       // PostgreSQL: orders
	Cancelled      int64   `json:"cancelled"`       // PostgreSQL: orders
	SoldOut        *int64  `json:"sold_out"`        // client log: answers
	Refused        *int64  `json:"refused"`         // client log: other answers that gave no order
	Oversold       int64   `json:"oversold"`        // PostgreSQL: units confirmed and not returned, above units
	Undersold      *int64  `json:"undersold"`       // units unsold that somebody who could pay still wanted
	Lost           *int64  `json:"lost"`            // orders answered 202 of which PostgreSQL knows nothing
	Stuck          int64   `json:"stuck"`           // PostgreSQL: orders not at their end
	DoubleCharged  *int64  `json:"double_charged"`  // ledger: orders that hold money more than once, or above their amount
	Seconds        float64 `json:"seconds"`         // from the first request to the last order at its end
	AcceptedPerS   float64 `json:"accepted_per_s"`  // over the time from the first 202 to the last
	ConfirmedPerS  float64 `json:"confirmed_per_s"` // over the time from the first accept to the last confirmation
	UnitsConfirmed int64   `json:"units_confirmed"` // PostgreSQL: confirmed and not returned
	CancelReasons  Reasons `json:"cancel_reasons"`  // PostgreSQL: cancelled orders by reason
}

// Reasons counts cancelled orders by the name of their reason.
type Reasons map[string]int64

// Broken returns the numbers of the broken laws.
func (r *Report) Broken() []int { return r.with(Broken) }

// Unchecked returns the numbers of the laws that were not checked.
func (r *Report) Unchecked() []int { return r.with(Unchecked) }

func (r *Report) with(f Finding) []int {
	var n []int
	for i := range r.Laws {
		if r.Laws[i].Holds == f {
			n = append(n, r.Laws[i].Number)
		}
	}
	return n
}

// Law finds a law by its number, nil if the report does not have it.
func (r *Report) Law(number int) *Law {
	for i := range r.Laws {
		if r.Laws[i].Number == number {
			return &r.Laws[i]
		}
	}
	return nil
}

func (r *Report) judge() {
	r.Verdict = Pass
	for i := range r.Laws {
		l := &r.Laws[i]
		if l.Holds == Broken || (l.Holds == Unchecked && !l.Excused) {
			r.Verdict = Fail
		}
	}
}
