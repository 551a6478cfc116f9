package chaos

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"time"
)

// Session is what one call of Run is written down as.
type Session struct {
	Began   time.Time
	Command string // that does it again
	Commit  string
	Summary *Summary
}

// String tells of the summary in a line.
func (s *Summary) String() string {
	verdict := "pass"
	if !s.Pass() {
		verdict = "FAIL"
	}
	return fmt.Sprintf("%s: %d faults, %d runs that count, %d that do not, %d pairs without one, %d left for want of time; %d acknowledged, %d confirmed, %d answers unknown; "+
		"%d runs with violations; convergence p50 %d ms, p99 %d ms; %.0f s",
		verdict, s.Faults, s.Runs, s.Invalid, s.Missing, s.Left, s.Acked, s.Confirmed, s.Unknown, s.Violations, s.P50, s.P99, s.Seconds)
}

// Record appends a session to the page. Nothing that stands there is changed.
func Record(page string, s Session) (err error) {
	f, err := os.OpenFile(page, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	_, err = f.WriteString(s.text())
	return err
}

func (s *Session) text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "\n## %s · commit %s\n\n`%s`\n\n%s\n\n", s.Began.Format("2006-01-02 15:04:05 MST"), s.Commit, s.Command, s.Summary)
	b.WriteString("| cell | moment | counts | accepted | confirmed | cancelled | unknown | struck at accept | held ms | convergence ms | violations |\n")
	b.WriteString("|---|---|---|---|---|---|---|---|---|---|---|\n")
	for i := range s.Summary.Results {
		r := &s.Summary.Results[i]
		counts := "yes"
		if r.Faults > 1 {
			counts = fmt.Sprintf("%d faults", r.Faults)
		}
		if !r.Valid {
			counts = "no: " + cell(r.Why)
		}
		broken := "none"
		if len(r.Violations) > 0 {
			broken = "**" + cell(strings.Join(r.Violations, "; ")) + "**"
		}
		if len(r.Excused) > 0 {
			broken += "; the fault itself: " + cell(strings.Join(r.Excused, "; "))
		}
		ended := int64(0)
		for _, n := range r.Cancelled {
			ended += n
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %d | %d | %d | %d | %d | %d | %d | %s |\n",
			r.Cell, r.Moment, counts, r.Acked, r.Confirmed, ended, r.Unknown, r.At, r.HeldMS, r.Convergence, broken)
	}
	return b.String()
}

const cellMost = 300 // bytes of text in a cell

// cell is text that may stand in a table.
func cell(text string) string {
	text = strings.NewReplacer("\n", " ", "|", "\\|").Replace(text)
	if len(text) > cellMost {
		text = text[:cellMost] + "…"
	}
	return text
}
