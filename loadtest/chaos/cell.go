package chaos

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Cell is one thing that can break, and how.
type Cell struct {
	Component string // what breaks: a role, a server, a link, the clients
	Fault     string
	kind      string // what it is one of, for pairing: the component, or "link"
	link      link   // where the proxy stands
	lossy     bool   // Redis may lose data
	drops     store  // whose copy of accepted orders is gone afterwards
	hold      span   // between strike and heal
	flows     bool   // only where buyers still come and are served afterwards: it needs their orders

	// excuses is a law that the fault itself breaks, for as long as the engine needs to
	// see it: heal then checks that it was seen in time. 0: none.
	excuses int
	// own brings servers of the cell's own before anything else, and says so in
	// h.admin; nil: it breaks those of all runs.
	own func(ctx context.Context, h *house) error
	// arm makes ready what takes too long at the moment itself; nil: nothing.
	arm func(ctx context.Context, h *house) error
	// strike harms; heal ends the harm, and is called even if strike failed or never
	// came. What each returns is proof, or "" if it has none of its own.
	strike, heal func(ctx context.Context, h *house) (proof string, err error)
}

// store is one of the two that have an accepted order before PostgreSQL has it.
type store byte

const (
	none store = iota
	inRedis
	inQueue
)

// Name is component/fault.
func (c *Cell) Name() string { return c.Component + "/" + c.Fault }

// span is how long something lasts: a seed chooses within.
type span struct{ least, most time.Duration }

func (h *house) within(s span) time.Duration {
	if s.most <= s.least {
		return s.least
	}
	return s.least + time.Duration(h.dice.Int64N(int64(s.most-s.least)))
}

// errUnproven says that a fault was meant to happen and left no trace.
var errUnproven = errors.New("not proven")

// errBench says that a server did not come back: the engine cannot be judged.
var errBench = errors.New("the bench broke")

func unproven(format string, args ...any) error {
	return fmt.Errorf("%w: %s", errUnproven, fmt.Sprintf(format, args...))
}

// Cells are all cells, in an order of their own.
func Cells() []*Cell {
	var all []*Cell
	all = append(all, processCells()...)
	all = append(all, roleClockCells()...)
	all = append(all, linkCells()...)
	all = append(all, redisCells()...)
	all = append(all, redisOwnCells()...)
	all = append(all, rabbitCells()...)
	all = append(all, clusterCells()...)
	all = append(all, postgresCells()...)
	all = append(all, postgresOwnCells()...)
	all = append(all, providerCells()...)
	return append(all, clientCells()...)
}
