package failpoint

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Action is what happens at a point.
type Action string

// The actions.
const (
	Kill  Action = "kill"  // SIGKILL to the own process
	Stop  Action = "stop"  // SIGSTOP to the own process
	Delay Action = "delay" // the caller waits
)

// maxDelay is far above what a test waits for.
const maxDelay = 10 * time.Minute

// Setting is what is to happen at one point.
type Setting struct {
	Name  string
	Do    Action
	Hit   int64         // at this hit, 1 is the first; 0: at every hit (Delay alone)
	Delay time.Duration // of Delay
}

// Parse reads settings as DOORBUSTER_FAILPOINTS has them; none if it is empty. The
// error says what is wrong and what there is.
func Parse(text string) ([]Setting, error) {
	var all []Setting
	if text == "" {
		return nil, nil
	}
	for one := range strings.SplitSeq(text, ",") {
		name, what, ok := strings.Cut(strings.TrimSpace(one), "=")
		if !ok {
			return nil, fmt.Errorf("failpoint %q: want POINT=ACTION, as in door/after-reserve=kill@3", one)
		}
		if !slices.ContainsFunc(Points, func(p Point) bool { return p.Name == name }) {
			return nil, fmt.Errorf("failpoint %q: there is no such point; engine/failpoint/points.go lists them", name)
		}
		if slices.ContainsFunc(all, func(s Setting) bool { return s.Name == name }) {
			return nil, fmt.Errorf("failpoint %q is set twice", name)
		}
		s, err := parseAction(what)
		if err != nil {
			return nil, fmt.Errorf("failpoint %s: %w", name, err)
		}
		s.Name = name
		all = append(all, s)
	}
	return all, nil
}

// parseAction reads kill, stop or delay:DURATION, each perhaps with @HIT behind.
func parseAction(text string) (Setting, error) {
	what, at, counted := strings.Cut(text, "@")
	do, wait, waits := strings.Cut(what, ":")
	s := Setting{Do: Action(do)}
	switch {
	case s.Do == Delay && waits:
		d, err := time.ParseDuration(wait)
		if err != nil || d <= 0 || d > maxDelay {
			return s, fmt.Errorf("delay %q: want above 0, at most %s, as in delay:50ms", wait, maxDelay)
		}
		s.Delay = d
	case (s.Do == Kill || s.Do == Stop) && !waits:
		s.Hit = 1
	default:
		return s, fmt.Errorf("action %q: want kill, stop or delay:50ms", what)
	}
	if counted {
		n, err := strconv.ParseInt(at, 10, 64)
		if err != nil || n < 1 {
			return s, fmt.Errorf("hit %q: want a number from 1 on, as in kill@3", at)
		}
		s.Hit = n
	}
	return s, nil
}
