package control

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/doorbuster/doorbuster/engine"
)

// Bounds of a sale file.
const (
	MaxFileBytes = 64 << 10
	MaxNameLen   = 200 // bytes of a sale's or an item's name
	MinHold      = time.Second
	MaxHold      = 24 * time.Hour
	MaxReplay    = 90 * 24 * time.Hour
	maxFaults    = 50 // told at once
)

// Fault is one thing wrong with a sale file.
type Fault struct {
	Line  int    // 1 is the first; 0 is the file as a whole
	Field string // "items[2].price"; empty for YAML itself
	What  string
}

// FileError carries every fault of a sale file, in the order of its lines.
type FileError struct {
	File   string
	Faults []Fault
}

// Error writes a line per fault, "file:line: field: what".
func (e *FileError) Error() string {
	var b strings.Builder
	for i, f := range e.Faults {
		if i > 0 {
			b.WriteByte('\n')
		}
		b.WriteString(e.File)
		if f.Line > 0 {
			fmt.Fprintf(&b, ":%d", f.Line)
		}
		if f.Field != "" {
			b.WriteString(": " + f.Field)
		}
		b.WriteString(": " + f.What)
	}
	return b.String()
}

// ParseSale reads a sale file (YAML). file is its name in errors; the error is a
// *FileError with every fault, by line and field.
//
//	id: mug-drop                       # a-z, 0-9, -
//	name: The mug                      # optional
//	mode: standard                     # or durable; optional
//	payment: at-order                  # or checkout; optional
//	provider: sandbox
//	currency: KRW                      # ISO 4217
//	opens: 2026-11-20T10:00:00+09:00   # RFC 3339 with its zone, or +5s from now
//	closes: 2026-11-20T12:00:00+09:00  # the same, or +2h from opens
//	limit_per_buyer: 2                 # units; optional, 0 is none
//	limit_per_identity: 2              # the same
//	hold: 10m                          # optional
//	replay_window: 24h                 # after closes; optional
//	items:
//	  - {sku: MUG, name: Mug, price: 15000, units: 5000}   # price in minor units
func ParseSale(file string, content []byte) (engine.Sale, error) {
	return ParseSaleAt(file, content, time.Now())
}

// ParseSaleAt is ParseSale with the time that relative times count from.
func ParseSaleAt(file string, content []byte, now time.Time) (engine.Sale, error) {
	p := parser{now: now.UTC().Truncate(time.Millisecond)}
	sale := p.parse(content)
	if len(p.faults) == 0 {
		return sale, nil
	}
	slices.SortStableFunc(p.faults, func(a, b Fault) int { return a.Line - b.Line })
	return engine.Sale{}, &FileError{File: file, Faults: p.faults}
}

type parser struct {
	now    time.Time
	faults []Fault
}

func (p *parser) fault(line int, field, format string, args ...any) {
	if len(p.faults) < maxFaults {
		p.faults = append(p.faults, Fault{Line: line, Field: field, What: fmt.Sprintf(format, args...)})
	}
}

func (p *parser) parse(content []byte) engine.Sale {
	if len(content) > MaxFileBytes {
		p.fault(0, "", "%d bytes, want at most %d", len(content), MaxFileBytes)
		return engine.Sale{}
	}
	var doc yaml.Node
	dec := yaml.NewDecoder(strings.NewReader(string(content)))
	if err := dec.Decode(&doc); err != nil {
		p.syntax(err)
		return engine.Sale{}
	}
	var more yaml.Node
	if err := dec.Decode(&more); err == nil {
		p.fault(more.Line, "", "a second document: one file is one sale")
	}
	root := doc.Content[0]
	m := p.fields(root, "", "id", "name", "mode", "payment", "provider", "currency", "opens", "closes",
		"limit_per_buyer", "limit_per_identity", "hold", "replay_window", "items")
	if m == nil {
		return engine.Sale{}
	}
	return p.sale(root, m)
}

// syntax turns "yaml: line 3: what" into a fault at line 3.
func (p *parser) syntax(err error) {
	what, line := strings.TrimPrefix(err.Error(), "yaml: "), 0
	if rest, ok := strings.CutPrefix(what, "line "); ok {
		if n, text, ok := strings.Cut(rest, ": "); ok {
			if l, bad := strconv.Atoi(n); bad == nil {
				line, what = l, text
			}
		}
	}
	if what == "EOF" {
		what = "the file is empty"
	}
	p.fault(line, "", "%s", what)
}

func (p *parser) sale(root *yaml.Node, m map[string]*yaml.Node) engine.Sale {
	s := engine.Sale{State: engine.SaleScheduled, Version: 1}
	s.ID = engine.SaleID(p.text(root, m, "id"))
	if m["id"] != nil {
		p.check(m["id"], "id", s.ID.Validate())
	}
	s.Name = p.name(m["name"], "name")
	s.Mode = engine.Mode(p.oneOf(m["mode"], "mode", string(engine.ModeStandard), string(engine.ModeDurable)))
	s.Payment = engine.PaymentKind(p.oneOf(m["payment"], "payment", string(engine.PayAtOrder), string(engine.PayCheckout)))
	if s.Provider = p.text(root, m, "provider"); m["provider"] != nil && engine.SKU(s.Provider).Validate() != nil {
		p.fault(m["provider"].Line, "provider", "%q does not name a payment provider", s.Provider)
	}
	p.currency(&s, m)
	p.window(&s, root, m)
	s.LimitPerBuyer = p.count(m["limit_per_buyer"], "limit_per_buyer", 0, engine.MaxUnits)
	s.LimitPerIdentity = p.count(m["limit_per_identity"], "limit_per_identity", 0, engine.MaxUnits)
	s.HoldFor = p.duration(m["hold"], "hold", engine.DefaultHoldFor, [2]time.Duration{MinHold, MaxHold})
	s.ReplayWindow = p.duration(m["replay_window"], "replay_window", engine.DefaultReplay, [2]time.Duration{0, MaxReplay})
	s.Items = p.items(root, m["items"])
	return s
}

func (p *parser) currency(s *engine.Sale, m map[string]*yaml.Node) {
	n := m["currency"]
	if n == nil {
		line := 1
		if price := firstPrice(m["items"]); price != nil {
			line = price.Line
		}
		p.fault(line, "currency", "missing: a price needs its currency, as in `currency: KRW`")
		return
	}
	s.Currency = p.scalar(n, "currency")
	p.check(n, "currency", engine.ValidateCurrency(s.Currency))
}

func firstPrice(items *yaml.Node) *yaml.Node {
	if items == nil {
		return nil
	}
	for _, item := range items.Content {
		for i := 0; i+1 < len(item.Content); i += 2 {
			if item.Content[i].Value == "price" {
				return item.Content[i]
			}
		}
	}
	return nil
}

func (p *parser) window(s *engine.Sale, root *yaml.Node, m map[string]*yaml.Node) {
	opens, closes := p.need(root, m, "opens"), p.need(root, m, "closes")
	okOpens, okCloses := false, false
	if opens != nil {
		s.Opens, okOpens = p.moment(opens, "opens", p.now)
	}
	if closes != nil {
		from := s.Opens
		if !okOpens {
			from = p.now
		}
		s.Closes, okCloses = p.moment(closes, "closes", from)
	}
	if okOpens && okCloses && !s.Closes.After(s.Opens) {
		p.fault(closes.Line, "closes", "%s is not after opens, %s", s.Closes.Format(time.RFC3339), s.Opens.Format(time.RFC3339))
	} else if okCloses && !s.Closes.After(p.now) {
		p.fault(closes.Line, "closes", "%s is over; it is now %s", s.Closes.Format(time.RFC3339), p.now.Format(time.RFC3339))
	}
}

func (p *parser) items(root, n *yaml.Node) []engine.Item {
	switch {
	case n == nil:
		p.fault(root.Line, "items", "missing: a sale needs at least one item")
		return nil
	case n.Kind != yaml.SequenceNode:
		p.fault(n.Line, "items", "want a list of items, each beginning with `- sku:`")
		return nil
	case len(n.Content) == 0 || len(n.Content) > engine.MaxItems:
		p.fault(n.Line, "items", "%d items, want 1 to %d", len(n.Content), engine.MaxItems)
		return nil
	}
	items := make([]engine.Item, 0, len(n.Content))
	lines := map[engine.SKU]int{}
	for i, node := range n.Content {
		at := fmt.Sprintf("items[%d]", i)
		m := p.fields(node, at, "sku", "name", "price", "units")
		if m == nil {
			continue
		}
		item := p.item(node, m, at)
		if first, twice := lines[item.SKU]; twice {
			p.fault(m["sku"].Line, at+".sku", "%s is on line %d already", item.SKU, first)
		} else if item.SKU != "" {
			lines[item.SKU] = m["sku"].Line
		}
		items = append(items, item)
	}
	return items
}

func (p *parser) item(node *yaml.Node, m map[string]*yaml.Node, at string) engine.Item {
	var item engine.Item
	if n := m["sku"]; n == nil {
		p.fault(node.Line, at+".sku", "missing")
	} else {
		item.SKU = engine.SKU(p.scalar(n, at+".sku"))
		p.check(n, at+".sku", item.SKU.Validate())
	}
	item.Name = p.name(m["name"], at+".name")
	if n := m["price"]; n == nil {
		p.fault(node.Line, at+".price", "missing")
	} else {
		item.Price = p.count(n, at+".price", 1, engine.MaxAmount)
	}
	if n := m["units"]; n == nil {
		p.fault(node.Line, at+".units", "missing: how many are for sale?")
	} else {
		item.Units = p.count(n, at+".units", 1, engine.MaxUnits)
	}
	return item
}

func (p *parser) check(n *yaml.Node, field string, err error) {
	if err != nil && n.Kind == yaml.ScalarNode {
		p.fault(n.Line, field, "%s", err)
	}
}
