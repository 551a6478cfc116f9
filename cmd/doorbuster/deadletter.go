package main

import (
	"context"
	"fmt"

	"github.com/doorbuster/doorbuster/engine"
	"github.com/doorbuster/doorbuster/engine/queue"
)

// DeadLettersCmd shows the messages that were put aside, or sends them back.
type DeadLettersCmd struct {
	JSON    JSONFlag `help:"Print JSON." name:"json"`
	Redrive bool     `help:"Send them back to their queues. Orders that are known already do not change."`
	Limit   int      `help:"Messages at most." default:"1000"`
}

// deadLetter is one line of the list.
type deadLetter struct {
	Sale   engine.SaleID `json:"sale,omitempty"`
	Orders int           `json:"orders"`
	Bytes  int           `json:"bytes"`
	Cause  string        `json:"cause,omitempty"`
	Moved  bool          `json:"moved"`
	Head   string        `json:"head"` // the first bytes
}

// headShown is how much of a message is shown.
const headShown = 80

// Run lists, and moves if asked.
func (c *DeadLettersCmd) Run(ctx context.Context, g *Globals) error {
	b, err := g.backends()
	if err != nil {
		return err
	}
	letters, err := queue.DeadLetters(ctx, b.queue(nil), c.Limit, c.Redrive)
	out, text, moved := make([]deadLetter, len(letters)), "", 0
	for i, l := range letters {
		out[i] = deadLetter{Sale: l.Sale, Orders: l.Orders, Bytes: len(l.Body), Cause: l.Cause, Moved: l.Moved, Head: string(l.Body[:min(len(l.Body), headShown)])}
		if l.Moved {
			moved++
		}
		text += fmt.Sprintf("sale %q: %d orders, %d bytes, %s: %q\n", l.Sale, l.Orders, len(l.Body), l.Cause, out[i].Head)
	}
	if said := g.say(out, "%s%d dead letters, %d of them sent back\n", text, len(letters), moved); err == nil {
		err = said
	}
	return err
}
