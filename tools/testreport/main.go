// Command testreport reads what `go test -json` writes, prints it as `go test`
// would have, and ends with a summary. Its exit status is 1 if a test failed, did
// not build, or was skipped: on a machine with servers there is no reason to
// skip. It owns nothing, starts nothing and imports the standard library only.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"sort"
	"strings"
)

// maxLine bounds one event: a test's output comes in lines, but a line may hold
// a whole dump.
const maxLine = 16 << 20

// event is one line of `go test -json` (go doc test2json).
type event struct {
	Action, Package, Test, Output, ImportPath string
	Elapsed                                   float64
}

// report is what has been read so far.
type report struct {
	out              io.Writer
	held             map[string][]string // output by package/test, shown if it fails
	running          map[string]bool     // begun and not ended: a process that died leaves some
	passed, packages int
	failed, skipped  []string
	slow             []timing
}

type timing struct {
	name    string
	seconds float64
}

const slowest = 10

func main() {
	r := newReport(os.Stdout)
	if err := r.read(os.Stdin); err != nil {
		fmt.Fprintln(os.Stderr, "testreport:", err)
		os.Exit(1)
	}
	if !r.close() {
		os.Exit(1)
	}
}

func newReport(out io.Writer) *report {
	return &report{out: out, held: map[string][]string{}, running: map[string]bool{}}
}

// read takes in all events. A line that is none is passed on: `go test` prints
// some before it has started.
func (r *report) read(in io.Reader) error {
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, maxLine)
	for lines.Scan() {
		var e event
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			fmt.Fprintln(r.out, lines.Text())
			continue
		}
		r.take(e)
	}
	return lines.Err()
}

func (r *report) take(e event) {
	key := e.Package + "/" + e.Test
	switch e.Action {
	case "run":
		r.running[key] = true
	case "build-output":
		fmt.Fprint(r.out, e.Output)
	case "build-fail":
		r.failed = append(r.failed, "build of "+e.ImportPath)
	case "output":
		if e.Test == "" && (strings.HasPrefix(e.Output, "ok  \t") || strings.HasPrefix(e.Output, "FAIL\t") || strings.HasPrefix(e.Output, "?   \t")) {
			fmt.Fprint(r.out, e.Output)
			return
		}
		r.held[key] = append(r.held[key], e.Output)
	case "pass", "fail", "skip":
		r.end(e, key)
	}
}

// end takes in the end of a test or, without a test's name, of a package.
func (r *report) end(e event, key string) {
	switch {
	case e.Action == "fail":
		r.failed = append(r.failed, strings.TrimSuffix(key, "/"))
		fmt.Fprint(r.out, strings.Join(r.held[key], ""))
	case e.Action == "skip" && e.Test != "":
		r.skipped = append(r.skipped, key)
		fmt.Fprint(r.out, strings.Join(r.held[key], ""))
	case e.Action == "pass" && e.Test != "":
		r.passed++
		r.slow = append(r.slow, timing{key, e.Elapsed})
	case e.Action == "pass":
		r.packages++
	}
	delete(r.held, key)
	delete(r.running, key)
}

// close prints the summary and says whether all is well.
func (r *report) close() bool {
	sort.Slice(r.slow, func(i, j int) bool { return r.slow[i].seconds > r.slow[j].seconds })
	fmt.Fprintln(r.out, "\nSlowest tests:")
	for _, t := range r.slow[:min(slowest, len(r.slow))] {
		fmt.Fprintf(r.out, "  %6.1f s  %s\n", t.seconds, t.name)
	}
	for key := range r.running {
		r.failed = append(r.failed, key+", which did not end")
		fmt.Fprint(r.out, strings.Join(r.held[key], ""))
	}
	for _, name := range r.skipped {
		fmt.Fprintln(r.out, "SKIPPED, which is not allowed here:", name)
	}
	for _, name := range r.failed {
		fmt.Fprintln(r.out, "FAILED:", name)
	}
	fmt.Fprintf(r.out, "\n%d tests passed in %d packages, %d failed, %d skipped\n", r.passed, r.packages, len(r.failed), len(r.skipped))
	return len(r.failed) == 0 && len(r.skipped) == 0 && r.packages > 0
}
