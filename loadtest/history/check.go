package history

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/doorbuster/doorbuster/engine"
)

const (
	perBuyer    = 10 * time.Second // to decide one buyer's history; most take microseconds
	maxRefused  = 3                // buyers whose histories are shown
	maxShownOps = 60               // of each
)

// ErrRefused says that what buyers heard could not have come from an engine that
// keeps its word.
var ErrRefused = errors.New("history refused")

// Checked is what a check looked at.
type Checked struct{ Buyers, Ops, Orders int }

// Check checks every buyer's history. The error wraps ErrRefused and shows the
// histories; it is another one if a history could not be decided in time.
func Check(rules Rules, ops []Op) (Checked, error) {
	byBuyer := make(map[Who][]Op)
	for i := range ops {
		byBuyer[ops[i].Who] = append(byBuyer[ops[i].Who], ops[i])
	}
	found := Checked{Buyers: len(byBuyer), Ops: len(ops)}
	orders, problems := distinct(ops)
	found.Orders = orders
	model := rules.model()
	for who, own := range byBuyer {
		if len(problems) >= maxRefused {
			break
		}
		switch porcupine.CheckOperationsTimeout(model, operations(own), perBuyer) {
		case porcupine.Ok:
		case porcupine.Unknown:
			return found, fmt.Errorf("buyer %s of sale %s: not decided within %s: %s", who.Buyer, who.Sale, perBuyer, show(own))
		default:
			problems = append(problems, fmt.Errorf("buyer %s of sale %s: %w:%s", who.Buyer, who.Sale, ErrRefused, show(own)))
		}
	}
	return found, errors.Join(problems...)
}

// distinct tells whether every order is one buyer's, and how many there are.
func distinct(ops []Op) (int, []error) {
	of := make(map[engine.OrderID]Who)
	var problems []error
	for i := range ops {
		id := ops[i].Output.Order
		if id == "" || ops[i].Input.Ask != Order {
			continue
		}
		if who, ok := of[id]; ok && who != ops[i].Who && len(problems) < maxRefused {
			problems = append(problems, fmt.Errorf("order %s was told to %v and to %v: %w", id, who, ops[i].Who, ErrRefused))
		}
		of[id] = ops[i].Who
	}
	return len(of), problems
}

// show writes a history, one request a line.
func show(ops []Op) string {
	var b strings.Builder
	for i := range ops {
		if i == maxShownOps {
			fmt.Fprintf(&b, "\n  … and %d more", len(ops)-i)
			break
		}
		b.WriteString("\n  " + ops[i].String())
	}
	return b.String()
}

// operations makes what the library reads. Of the requests under one key and body
// that left everything open only the first is kept: it may take effect at any time
// after it was sent, and so at every time when a later one may.
func operations(ops []Op) []porcupine.Operation {
	type wish struct {
		key  string
		body uint64
	}
	left := make(map[wish]bool)
	ops = slices.Clone(ops)
	slices.SortStableFunc(ops, func(a, b Op) int { return int(min(max(a.Call-b.Call, -1), 1)) })
	out := make([]porcupine.Operation, 0, len(ops))
	for i := range ops {
		o := &ops[i]
		until := o.Return
		if o.Output.open() {
			w := wish{o.Input.Key, o.Input.Body}
			if o.Input.Ask == Read || (o.Input.Ask == Order && left[w]) {
				continue
			}
			left[w] = left[w] || o.Input.Ask == Order
			until = never
		}
		out = append(out, porcupine.Operation{ClientId: o.Client, Input: &o.Input, Output: &o.Output, Call: o.Call, Return: until})
	}
	return out
}

// model is the rules as the library wants them.
func (r Rules) model() porcupine.Model {
	nondeterministic := porcupine.NondeterministicModel{
		Init: func() []any { return []any{&state{}} },
		Step: func(s, in, out any) []any {
			next := r.step(s.(*state), in.(*Input), out.(*Output))
			states := make([]any, len(next))
			for i := range next {
				states[i] = next[i]
			}
			return states
		},
		Equal: func(a, b any) bool { return a.(*state).equal(b.(*state)) },
	}
	return nondeterministic.ToModel()
}
