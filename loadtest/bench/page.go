package bench

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"strings"
	"time"
)

// The notes between these lines are written by hand and kept by every run.
const (
	notesBegin = "<!-- notes: written by hand, kept by make bench -->"
	notesEnd   = "<!-- end of notes -->"
)

// figure describes a series before it is filled.
type figure struct {
	key              string // in bench.values; "" of a ratio
	name, what, unit string
	target, aim      float64
	most             bool
	over, under      string // keys of a ratio
}

// figures are the rows of the page, in order.
func (b *bench) figures() []figure {
	rows := []figure{
		{key: "(a)", name: "(a)", what: "fixed reply of a bare fasthttp server to the same requests", unit: "/s"},
		{key: "(b)", name: "(b)", what: "accepted orders, standard mode, every role at work (door, worker, recovery, relay, status), the worker started with --give-way", unit: "/s"},
		{key: "(b) door alone", name: "(b) door alone", what: "as (b), but the worker is stopped while the storm lasts", unit: "/s"},
		{key: "(b) greedy", name: "(b) greedy", what: "as (b), but the worker does not give way", unit: "/s"},
		{key: "(c)", name: "(c)", what: "as (b), one script call and one message per request", unit: "/s"},
		{key: "(d)", name: "(d)", what: "sold-out replies", unit: "/s"},
	}
	for _, fsync := range []string{"everysec", "always"} {
		for _, size := range b.plan.groups {
			name := fmt.Sprintf("(e) %s %d", fsync, size)
			rows = append(rows, figure{
				key: name, name: name, unit: "/s",
				what: fmt.Sprintf("reservations of `stock` alone, groups of %d, appendfsync %s, %d calls in flight", size, fsync, inFlight(size)),
			})
		}
	}
	rows = append(rows,
		figure{key: "(f)", name: "(f)", what: "orders from the door to CONFIRMED, instant provider, drained", unit: "/s", target: 8000, aim: 15000},
		figure{key: "(f2)", name: "(f2)", what: "as (f), sandbox provider over HTTP", unit: "/s"},
		figure{key: "(g)", name: "(g)", what: "bare pipeline: the same messages and row writes, no logic", unit: "/s"},
	)
	for _, share := range b.plan.shares {
		name := fmt.Sprintf("(h) %d %%", int(share*100))
		rows = append(rows, figure{key: name + " rate", name: name, what: "open loop: requests sent", unit: "/s"})
		for _, q := range []string{"p50", "p99", "p99.9"} {
			f := figure{key: name + " " + q, name: name + " " + q, what: "time to a 202, from when it was due", unit: "ms"}
			if share == 0.5 && q == "p99" {
				f.target, f.most = 15, true
			}
			rows = append(rows, f)
		}
		rows = append(rows, figure{key: name + " lag p99", name: name + " lag", what: "of it: p99 from due to sent", unit: "ms"})
	}
	rows = append(rows, b.memoryFigures()...)
	rows = append(rows,
		figure{key: "(j) standard", name: "(j) standard", what: "as (b), in turn with the three below: appendfsync everysec", unit: "/s"},
		figure{key: "(j) durable", name: "(j) durable", what: "as (b), a sale of durable mode: appendfsync always, no replica", unit: "/s"},
		figure{key: "(j) followed", name: "(j) followed", what: "as (j) standard, while a replica follows for which nobody waits", unit: "/s"},
		figure{key: "(j) replica", name: "(j) replica", what: "as (j) durable, and each call waits until a replica has it (WAIT 1)", unit: "/s"},
	)
	return append(rows, overloadFigures()...)
}

func (b *bench) memoryFigures() []figure {
	n := thousands(float64(b.plan.idle))
	return []figure{
		{key: "(i) bytes", name: "(i)", what: "Redis per accepted order, held, outbox empty", unit: "bytes", target: 400, aim: 300, most: true},
		{key: "(i) tries", name: "(i) tries", what: "tries refused as sold out by the script", unit: "tries"},
		{key: "(i) growth", name: "(i) growth", what: "growth of Redis over all of those tries", unit: "bytes"},
		{key: "(i) door", name: "(i) door", what: "resident memory of a fresh door", unit: "MiB"},
		{key: "(i) connections", name: "(i) connections", what: "with " + n + " idle connections", unit: "MiB"},
		{key: "(i) sales", name: "(i) sales", what: "of another, after " + n + " sales were asked for once", unit: "MiB"},
		{key: "group", name: "orders per message", what: "in (b) and (f)", unit: "orders"},
	}
}

// ratios are the rows that compare.
func ratios() []figure {
	return []figure{
		{name: "(b)/(a)", what: "accepted against a fixed reply", over: "(b)", under: "(a)", target: 0.40, aim: 0.60},
		{name: "(b) door alone/(a)", what: "the same without the worker", over: "(b) door alone", under: "(a)"},
		{name: "(b) greedy/(a)", what: "the same with a worker that does not give way", over: "(b) greedy", under: "(a)"},
		{name: "(b)/(c)", what: "groups against single calls", over: "(b)", under: "(c)", target: 2},
		{name: "(d)/(a)", what: "refused against a fixed reply", over: "(d)", under: "(a)", target: 0.85, aim: 0.95},
		{name: "grouped/single in (e)", what: "groups of 256 against 1, everysec", over: "(e) everysec 256", under: "(e) everysec 1", target: 5},
		{name: "grouped/single in (e), always", what: "groups of 256 against 1, always", over: "(e) always 256", under: "(e) always 1"},
		{name: "(j) durable/standard", what: "accepted in durable mode against standard", over: "(j) durable", under: "(j) standard", target: 0.70},
		{name: "(j) replica/followed", what: "the same where a replica follows: durable mode waits for it", over: "(j) replica", under: "(j) followed", target: 0.70},
		{name: "(j) replica/standard", what: "the same against standard mode without a replica, which takes a processor too", over: "(j) replica", under: "(j) standard", target: 0.70},
		{name: "(k) goodput 10×/peak", what: "accepted at ten times the capacity against the most of 1, 2, 5, 10 times", over: "(k) 10× goodput", under: "(k) peak", target: 0.90},
		{name: "(k) p99 10×/1×", what: "p99 of a 202 at ten times the capacity against once", over: "(k) 10× p99", under: "(k) 1× p99", target: 2, most: true},
		{name: "(k) memory 10×/before", what: "memory of the door at ten times the capacity against half of it before", over: "(k) memory 10×", under: "(k) memory before", target: 1.25, most: true},
		{name: "(f)/(g)", what: "confirmed against the bare pipeline", over: "(f)", under: "(g)", target: 0.60},
	}
}

// series turns what was measured into rows: figures, then ratios.
func (b *bench) series() []Series {
	var out []Series
	for _, f := range b.figures() {
		out = append(out, Series{Name: f.name, What: f.what, Unit: f.unit, Values: b.values[f.key], Target: f.target, Aim: f.aim, Most: f.most})
	}
	for _, f := range ratios() {
		over, under := Series{Values: b.values[f.over]}, Series{Values: b.values[f.under]}
		out = append(out, Series{Name: f.name, What: f.what, Values: ratio(&over, &under), Target: f.target, Aim: f.aim, Most: f.most})
	}
	return out
}

// writePage writes the page and keeps the notes of the one that is there.
func writePage(path string, r *Result) error {
	old, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	const readable = 0o644
	return os.WriteFile(path, []byte(Page(r, Notes(string(old)))), readable)
}

// Notes returns what stands between the markers of a page, "" if they are not
// there.
func Notes(page string) string {
	_, rest, begun := strings.Cut(page, notesBegin)
	notes, _, ended := strings.Cut(rest, notesEnd)
	if !begun || !ended {
		return ""
	}
	return strings.Trim(notes, "\n")
}

// Page writes the result as docs/BENCHMARKS.md.
func Page(r *Result, notes string) string {
	var b strings.Builder
	b.WriteString("# Benchmarks\n\n")
	fmt.Fprintf(&b, "Measured in one run, %s, by `%s`, in %s, on %s. %s.\n", r.Began.Format("2006-01-02 15:04 MST"), r.Command,
		r.Took.Round(time.Second), r.Machine, r.Servers)
	b.WriteString("Generator, servers and Redis, RabbitMQ and PostgreSQL share the machine; everything goes over the loopback, between processes.\n")
	fmt.Fprintf(&b, "Figures that are compared are measured in turn, %d rounds of them; a ratio is taken within a round. "+
		"The table gives median and spread (least … greatest).\n", r.Pairs)
	if r.Short {
		b.WriteString("\n**A short run, for development: these figures mean little.**\n")
	}
	b.WriteString("\n## Ratios\n\n")
	rows(&b, r, func(s *Series) bool { return s.Unit == "" })
	b.WriteString("\n## Figures\n\n")
	rows(&b, r, func(s *Series) bool { return s.Unit != "" })
	b.WriteString("\n## Notes\n\n" + notesBegin + "\n")
	if notes != "" {
		b.WriteString("\n" + notes + "\n\n")
	}
	b.WriteString(notesEnd + "\n")
	return b.String()
}

func rows(b *strings.Builder, r *Result, want func(*Series) bool) {
	b.WriteString("| | what | median | spread | rounds | target | |\n|---|---|---:|---:|---:|---:|---|\n")
	for i := range r.Series {
		s := &r.Series[i]
		if !want(s) {
			continue
		}
		median := "not measured"
		if m := s.Median(); !math.IsNaN(m) {
			median = s.number(m)
		}
		fmt.Fprintf(b, "| %s | %s | %s | %s | %d | %s | %s |\n", s.Name, s.What, median, s.spread(), len(s.Values), s.bound(), s.Met())
	}
}
