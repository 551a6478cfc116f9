package control

import (
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// fields reads a mapping whose keys are among known. It returns nil if the node
// is no mapping.
func (p *parser) fields(n *yaml.Node, at string, known ...string) map[string]*yaml.Node {
	if n.Kind != yaml.MappingNode {
		p.fault(n.Line, at, "want fields, as in `%s: …`", known[0])
		return nil
	}
	m := make(map[string]*yaml.Node, len(n.Content)/2)
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		name := key.Value
		field := name
		if at != "" {
			field = at + "." + name
		}
		switch {
		case !slices.Contains(known, name):
			p.fault(key.Line, field, "unknown field; known are %s", strings.Join(known, ", "))
		case m[name] != nil:
			p.fault(key.Line, field, "is on line %d already", m[name].Line)
		default:
			m[name] = value
		}
	}
	return m
}

// need returns the field's node, or reports that it is missing.
func (p *parser) need(root *yaml.Node, m map[string]*yaml.Node, field string) *yaml.Node {
	n := m[field]
	if n == nil {
		p.fault(root.Line, field, "missing")
	}
	return n
}

func (p *parser) text(root *yaml.Node, m map[string]*yaml.Node, field string) string {
	n := p.need(root, m, field)
	if n == nil {
		return ""
	}
	return p.scalar(n, field)
}

// scalar returns the characters of a plain or quoted value. Aliases are refused:
// they would make a file mean something its lines do not show.
func (p *parser) scalar(n *yaml.Node, field string) string {
	if n.Kind != yaml.ScalarNode || n.Tag == "!!null" {
		p.fault(n.Line, field, "want one value")
		return ""
	}
	return n.Value
}

func (p *parser) name(n *yaml.Node, field string) string {
	if n == nil {
		return ""
	}
	s := p.scalar(n, field)
	if len(s) > MaxNameLen {
		p.fault(n.Line, field, "%d bytes, want at most %d", len(s), MaxNameLen)
	}
	if strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		p.fault(n.Line, field, "has control characters")
	}
	return s
}

// oneOf reads a word; the first is the default.
func (p *parser) oneOf(n *yaml.Node, field string, words ...string) string {
	if n == nil {
		return words[0]
	}
	s := p.scalar(n, field)
	if n.Kind == yaml.ScalarNode && !slices.Contains(words, s) {
		p.fault(n.Line, field, "%q: want %s", s, strings.Join(words, " or "))
	}
	return s
}

// count reads a whole decimal number within [least, most]; underscores may group
// its digits.
func (p *parser) count(n *yaml.Node, field string, least, most int64) int64 {
	if n == nil {
		return 0
	}
	s := p.scalar(n, field)
	if n.Kind != yaml.ScalarNode || n.Tag == "!!null" {
		return 0
	}
	v, err := strconv.ParseInt(strings.ReplaceAll(s, "_", ""), 10, 64)
	if err != nil {
		if f, bad := strconv.ParseFloat(s, 64); bad == nil && f != math.Trunc(f) || strings.ContainsRune(s, '.') {
			p.fault(n.Line, field, "%s is a fraction; want a whole number (prices are in minor units: 12.50 USD is 1250)", s)
			return 0
		}
		p.fault(n.Line, field, "%q is not a whole number from %d to %d", s, least, most)
		return 0
	}
	if v < least || v > most {
		p.fault(n.Line, field, "%d: want %d to %d", v, least, most)
		return 0
	}
	return v
}

func (p *parser) duration(n *yaml.Node, field string, otherwise time.Duration, bounds [2]time.Duration) time.Duration {
	if n == nil {
		return otherwise
	}
	s := p.scalar(n, field)
	if n.Kind != yaml.ScalarNode || n.Tag == "!!null" {
		return otherwise
	}
	d, err := time.ParseDuration(s)
	if err != nil {
		p.fault(n.Line, field, "%q is no length of time; write it as in 90s, 10m or 24h", s)
		return otherwise
	}
	if d < bounds[0] || d > bounds[1] || d%time.Millisecond != 0 {
		p.fault(n.Line, field, "%s: want %s to %s, in whole milliseconds", s, bounds[0], bounds[1])
	}
	return d
}

// moment reads an RFC 3339 time with its zone, or +duration after from.
func (p *parser) moment(n *yaml.Node, field string, from time.Time) (time.Time, bool) {
	s := p.scalar(n, field)
	if n.Kind != yaml.ScalarNode || n.Tag == "!!null" {
		return time.Time{}, false
	}
	if after, ok := strings.CutPrefix(s, "+"); ok {
		d, err := time.ParseDuration(after)
		if err != nil || d < 0 {
			p.fault(n.Line, field, "%q: want + and a length of time, as in +5s", s)
			return time.Time{}, false
		}
		return from.Add(d).Truncate(time.Millisecond), true
	}
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		for _, layout := range []string{"2006-01-02T15:04:05", "2006-01-02 15:04:05", "2006-01-02T15:04", "2006-01-02"} {
			if _, bare := time.Parse(layout, s); bare == nil {
				p.fault(n.Line, field, "%q has no zone; write it as in 2026-11-20T10:00:00+09:00 or with Z for UTC", s)
				return time.Time{}, false
			}
		}
		p.fault(n.Line, field, "%q is no time; write it as in 2026-11-20T10:00:00+09:00", s)
		return time.Time{}, false
	}
	if t.Nanosecond()%int(time.Millisecond) != 0 {
		p.fault(n.Line, field, "%q is finer than a millisecond", s)
		return time.Time{}, false
	}
	return t.UTC(), true
}
