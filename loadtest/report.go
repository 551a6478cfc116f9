package loadtest

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/doorbuster/doorbuster/engine"
	"github.com/doorbuster/doorbuster/engine/audit"
)

// Report is what a scenario heard and, once the audit has spoken, what became of
// the stock. It is written as JSON and as text.
type Report struct {
	Sale      engine.SaleID `json:"sale"`
	Began     time.Time     `json:"began"` // UTC
	Seconds   float64       `json:"seconds"`
	Requests  int64         `json:"requests"`
	PerSecond float64       `json:"per_s"`
	Outcomes  Outcomes      `json:"outcomes"` // from when a request was due
	Lag       Quantiles     `json:"lag"`      // from when a request was due to when it was sent
	Phases    []PhaseReport `json:"phases,omitempty"`
	Errors    int64         `json:"errors"` // requests without an answer
	Error     string        `json:"error,omitempty"`
	Oversold  *int64        `json:"oversold"`  // units; null before the audit
	Undersold *int64        `json:"undersold"` // units; null before the audit, or if it could not tell
	Verdict   string        `json:"verdict,omitempty"`
}

func (s *scenario) report(began time.Time, took time.Duration) Report {
	r := Report{
		Sale: s.cfg.Sale, Began: began.UTC(), Seconds: took.Seconds(),
		Outcomes: s.all.outcomes(), Lag: s.lag.quantiles(), Errors: s.errors, Error: s.first,
	}
	r.Requests = r.Lag.Count
	r.PerSecond = float64(r.Requests) / max(r.Seconds, time.Microsecond.Seconds())
	for i := range s.phases {
		p := PhaseReport{Phase: s.cfg.Phases[i], Outcomes: s.phases[i].seen.outcomes(), Lag: s.phases[i].lag.quantiles()}
		p.Requests = p.Lag.Count
		r.Phases = append(r.Phases, p)
	}
	return r
}

// Judged adds what the audit found.
func (r *Report) Judged(a *audit.Report) {
	oversold := a.Oversold
	r.Oversold, r.Undersold, r.Verdict = &oversold, a.Undersold, a.Verdict
}

// WriteText writes the report for a reader: a line per phase and outcome, then
// the whole.
func (r *Report) WriteText(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "phase\toutcome\tcount\tper s\tp50\tp99\tp99.9\tmax\tlag p99\toversold\tundersold\t")
	for i := range r.Phases {
		p := &r.Phases[i]
		r.rows(t, p.Name, p.Outcomes, rowContext{seconds: p.For.Seconds(), lag: p.Lag.P99, stock: "\t\t"})
	}
	stock := units(r.Oversold) + "\t" + units(r.Undersold) + "\t"
	r.rows(t, "all", r.Outcomes, rowContext{seconds: r.Seconds, lag: r.Lag.P99, stock: stock})
	if err := t.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w, "\nsale %s: %d requests in %.1f s (%.0f/s), schedule lag p50 %s p99 %s max %s, %d without an answer%s\n",
		r.Sale, r.Requests, r.Seconds, r.PerSecond, short(r.Lag.P50), short(r.Lag.P99), short(r.Lag.Max), r.Errors, r.tail())
	return err
}

func (r *Report) tail() string {
	var s string
	if r.Error != "" {
		s = " (" + r.Error + ")"
	}
	if r.Verdict != "" {
		s += ", laws: " + r.Verdict
	}
	return s
}

type rowContext struct {
	seconds float64
	lag     time.Duration
	stock   string
}

func (r *Report) rows(w io.Writer, name string, o Outcomes, c rowContext) {
	for class := range Classes {
		q, ok := o[class.String()]
		if !ok {
			continue
		}
		fmt.Fprintf(w, "%s\t%s\t%d\t%.0f\t%s\t%s\t%s\t%s\t%s\t%s\n", name, class, q.Count, float64(q.Count)/c.seconds,
			short(q.P50), short(q.P99), short(q.P999), short(q.Max), short(c.lag), c.stock)
	}
}

func units(n *int64) string {
	if n == nil {
		return "?"
	}
	return strconv.FormatInt(*n, 10)
}

// short writes a duration with three digits or so, "1.23ms".
func short(d time.Duration) string {
	switch {
	case d >= time.Second:
		d = d.Round(10 * time.Millisecond)
	case d >= time.Millisecond:
		d = d.Round(10 * time.Microsecond)
	default:
		d = d.Round(time.Microsecond)
	}
	return strings.Replace(d.String(), "µ", "u", 1)
}
