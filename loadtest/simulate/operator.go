package simulate

import (
	"context"
	"errors"
	"time"

	"github.com/doorbuster/doorbuster/engine"
	"github.com/doorbuster/doorbuster/engine/control"
)

// operator changes sales while they run, as the console does.
type operator struct {
	w *world
	a *actor
	c *control.Control
}

var note = control.Note{Who: "operator", Why: "simulated"}

func newOperator(w *world, a *actor) *operator {
	clock := control.Clock{Now: w.time, Sleep: w.sleep}
	return &operator{w, a, control.New(control.Config{Orders: conn{database: w.db}, Stock: w.redis, Clock: &clock})}
}

func (o *operator) operate() {
	w := o.w
	for range 1 + w.rng.IntN(5) {
		s := w.shops[w.rng.IntN(len(w.shops))]
		i, n := w.rng.IntN(3)/2, 1+w.rng.Int64N(3)
		switch w.rng.IntN(12) {
		case 0, 1, 2:
			o.did("restock", o.c.Restock(w.ctx, s.id, s.skus[i], n, note))
		case 3, 4, 5:
			o.did("withdraw", o.c.Withdraw(w.ctx, s.id, s.skus[i], n, note))
		case 6, 7, 8:
			for id := range oneOf(w, w.crowd.acked) {
				if done, err := (conn{database: w.db}).giveBack(w.ctx, id); done {
					o.did("return", err)
				}
			}
		case 9:
			o.redefine(s)
		case 10:
			o.pause(s)
		default:
			if w.rng.IntN(3) == 0 {
				o.end(s)
			}
		}
		o.a.wait(w.between(300*time.Millisecond, 4*time.Second))
	}
	o.a.wait(max(0, troubleFor-time.Duration(w.now)) + w.between(0, 2*time.Second))
	for _, s := range w.shops {
		o.open(s)
	}
}

func (o *operator) did(what string, err error) {
	if err == nil {
		o.w.count(what)
	} else {
		o.w.tell("%s: %v", what, err)
	}
}

// redefine changes a price, a limit or the window.
func (o *operator) redefine(s *shop) {
	var change control.Change
	switch o.w.rng.IntN(3) {
	case 0:
		change.Prices = map[engine.SKU]int64{s.skus[0]: s.prices[0] + 10}
		s.priced = true
	case 1:
		one := int64(1)
		change.LimitPerBuyer = &one
	default:
		o.lengthen(s)
		return
	}
	o.change(s, change)
}

// lengthen moves the end of the window far away. What was built after the replay window
// that was had no tombstones.
func (o *operator) lengthen(s *shop) {
	s.pruned = true
	later := dawn.Add(farAway + time.Hour)
	o.change(s, control.Change{Closes: &later})
}

func (o *operator) change(s *shop, change control.Change) {
	err := o.c.Redefine(o.w.ctx, s.id, change, note)
	if def, _, ok := o.w.db.m.Sale(o.w.ctx, s.id); err == nil && ok == nil {
		s.settled(&def)
	}
	o.did("redefine", err)
}

// pause pauses a sale for a while.
func (o *operator) pause(s *shop) {
	s.mayPause = true
	err := o.c.Pause(o.w.ctx, s.id, note)
	s.shut = err == nil
	o.did("pause", err)
	o.a.wait(o.w.between(time.Second, 6*time.Second))
	if o.w.rng.IntN(4) > 0 {
		s.shut = false
		o.did("resume", o.c.Resume(o.w.ctx, s.id, note))
	}
}

func (o *operator) end(s *shop) {
	s.mayClose, s.ended = true, true
	err := o.c.Close(o.w.ctx, s.id, note)
	s.shut = s.shut || err == nil
	o.did("close", err)
}

// open lets a sale sell again that was paused, by hand or by its clocks, in most stories.
func (o *operator) open(s *shop) {
	w := o.w
	if w.rng.IntN(4) == 0 || (w.db.skew-w.redis.skew).Abs() > maxApart {
		return
	}
	for range tries {
		def, _, err := w.db.m.Sale(context.Background(), s.id)
		if err != nil || def.State != engine.SalePaused {
			return
		}
		s.shut = false
		if err = o.c.Resume(w.ctx, s.id, note); err == nil {
			w.count("resume")
			return
		}
		if errors.Is(err, control.ErrIllegal) { // its window is over
			o.lengthen(s)
		}
	}
}
