package bench

import (
	"fmt"
	"math"
	"slices"
	"strings"
)

// Series is one figure or ratio, a value per round.
type Series struct {
	Name   string    `json:"name"` // "(b)", "(b)/(a)"
	What   string    `json:"what"`
	Unit   string    `json:"unit"` // "/s", "ms", "bytes", "" of a ratio
	Values []float64 `json:"values"`
	// Target is what must be reached, Aim what would be better; 0 is none. Most
	// says that they are upper bounds.
	Target float64 `json:"target,omitempty"`
	Aim    float64 `json:"aim,omitempty"`
	Most   bool    `json:"most,omitempty"`
}

// Median returns the middle value, NaN if there is none.
func (s *Series) Median() float64 {
	n := len(s.Values)
	if n == 0 {
		return math.NaN()
	}
	v := slices.Sorted(slices.Values(s.Values))
	if n%2 == 1 {
		return v[n/2]
	}
	return (v[n/2-1] + v[n/2]) / 2
}

// Met says whether the median reaches the target: "met", "met, aim reached",
// "missed", or "–" without one.
func (s *Series) Met() string {
	reaches := func(bound float64) bool {
		if s.Most {
			return s.Median() <= bound
		}
		return s.Median() >= bound
	}
	switch {
	case s.Target == 0:
		return "–"
	case len(s.Values) == 0:
		return "not measured"
	case !reaches(s.Target):
		return "**missed**"
	case s.Aim != 0 && reaches(s.Aim):
		return "met, aim reached"
	}
	return "met"
}

// bound writes the target: "≥ 0.40, aim 0.60".
func (s *Series) bound() string {
	if s.Target == 0 {
		return "–"
	}
	sign := "≥ "
	if s.Most {
		sign = "≤ "
	}
	out := sign + s.number(s.Target)
	if s.Aim != 0 {
		out += ", aim " + s.number(s.Aim)
	}
	return out
}

// number writes a value as its unit wants it.
func (s *Series) number(v float64) string {
	switch {
	case math.IsNaN(v):
		return "–"
	case s.Unit == "":
		return fmt.Sprintf("%.2f", v)
	case s.Unit == "ms":
		return fmt.Sprintf("%.2f ms", v)
	case s.Unit == "MiB":
		return fmt.Sprintf("%.1f MiB", v)
	}
	return thousands(math.Round(v)) + s.space() + s.Unit
}

func (s *Series) space() string {
	if s.Unit == "/s" {
		return ""
	}
	return " "
}

func thousands(v float64) string {
	digits := fmt.Sprintf("%.0f", math.Abs(v))
	var b strings.Builder
	if v < 0 {
		b.WriteByte('-')
	}
	for i, d := range digits {
		if i > 0 && (len(digits)-i)%3 == 0 {
			b.WriteByte(',')
		}
		b.WriteRune(d)
	}
	return b.String()
}

// spread writes the least and the greatest value.
func (s *Series) spread() string {
	if len(s.Values) < 2 {
		return "–"
	}
	return s.number(slices.Min(s.Values)) + " … " + s.number(slices.Max(s.Values))
}

// ratio divides two series round by round; rounds that lack either are left out.
func ratio(over, under *Series) []float64 {
	var out []float64
	for i := range min(len(over.Values), len(under.Values)) {
		if under.Values[i] > 0 {
			out = append(out, over.Values[i]/under.Values[i])
		}
	}
	return out
}
