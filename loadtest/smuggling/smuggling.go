// Package smuggling holds requests that two servers can read in two ways, so that an
// order hides in what one of them takes for something else. The tests of the door
// send each of them to a door of their own, chaos sends them into a storm.
//
// It owns nothing and imports the standard library only.
package smuggling

import (
	_ "embed"
	"fmt"
	"strconv"
	"strings"
)

//go:embed corpus.txt
var text string

// Line is one of them.
type Line struct {
	Name   string // no other has it
	Passes bool   // bare fasthttp hands something of it to its handler
	Raw    string // bytes with placeholders, for Fill
}

// Corpus returns all of them. The error names a line that cannot be read.
func Corpus() ([]Line, error) {
	var all []Line
	names := map[string]bool{}
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		f := strings.SplitN(strings.TrimSuffix(line, "\n"), " | ", 3)
		if len(f) != 3 || names[f[1]] || (f[0] != "passes" && f[0] != "stops") {
			return nil, fmt.Errorf("corpus: %q", line)
		}
		raw, err := strconv.Unquote(`"` + f[2] + `"`)
		if err != nil {
			return nil, fmt.Errorf("corpus: %q: %w", line, err)
		}
		names[f[1]] = true
		all = append(all, Line{Name: f[1], Passes: f[0] == "passes", Raw: raw})
	}
	return all, nil
}

const large = 5 << 10 // bytes of {5k}

// Fill puts into the placeholders a whole order that a door would take, and another
// of which all from its Content-Length on is left out.
func Fill(raw, order, post string) string {
	post, _, _ = strings.Cut(post, "Content-Length")
	return strings.NewReplacer("{order}", order, "{len}", strconv.Itoa(len(order)), "{post}", post, "{5k}", strings.Repeat("x", large)).Replace(raw)
}
