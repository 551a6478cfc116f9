package simulate

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"
)

// service is what is common to all that the house talks to over a network.
type service struct {
	w    *world
	name string
	down int64 // away until then
	life int   // rises when everything on its way is lost

	odds odds
}

// odds are what may happen to a call that changes something. Reads fail a fifth as
// often.
type odds struct{ lost, unheard, late, dies float64 }

const readShare = 5

var errTimeout = fmt.Errorf("simulated: %w", context.DeadlineExceeded)

// The kinds of calls.
const (
	reads  = false
	writes = true
)

// call makes one call to a service: effect is what it does there.
func (s *service) call(ctx context.Context, op string, write bool, effect func() error) error {
	w, a := s.w, s.w.cur
	a.wait(w.between(100*time.Microsecond, 3*time.Millisecond))
	if err := gone(ctx); err != nil {
		return err
	}
	if w.now < s.down {
		w.tell("%s.%s: away", s.name, op)
		if w.rng.IntN(2) == 0 {
			return &net.OpError{Op: "dial", Net: "tcp", Err: errors.New("refused")}
		}
		a.wait(w.between(100*time.Millisecond, time.Second))
		return errTimeout
	}
	switch fate := s.fate(write); fate {
	case fateLost:
		w.tell("%s.%s: the request is lost", s.name, op)
		a.wait(w.between(50*time.Millisecond, time.Second))
		return errTimeout
	case fateLate:
		w.tell("%s.%s: comes late", s.name, op)
		life := s.life
		w.after(w.between(10*time.Millisecond, 3*time.Second), func() {
			if s.life == life {
				err := effect()
				w.tell("%s.%s: late, %v", s.name, op, err)
			}
		})
		a.wait(w.between(10*time.Millisecond, time.Second))
		return errTimeout
	case fateDies, fateDiesAfter:
		if fate == fateDiesAfter {
			err := effect()
			w.tell("%s.%s: %v, and nobody hears it", s.name, op, err)
		}
		w.die()
	case fateUnheard:
		err := effect()
		w.tell("%s.%s: %v, but the answer is lost", s.name, op, err)
		a.wait(w.between(50*time.Millisecond, time.Second))
		return errTimeout
	}
	err := effect()
	if w.story != nil && (write || err != nil) {
		w.tell("%s.%s: %v", s.name, op, err)
	}
	a.wait(w.between(100*time.Microsecond, 3*time.Millisecond))
	return err
}

// fate is what happens to a call.
type fate int

const (
	fateNone fate = iota
	fateLost
	fateUnheard
	fateLate
	fateDies
	fateDiesAfter
)

var fateNames = [...]string{"", "request lost", "answer lost", "effect late", "", ""}

func (s *service) fate(write bool) fate {
	w := s.w
	if w.healed {
		return fateNone
	}
	x := w.rng.Float64()
	if !write {
		x *= readShare
	}
	o, f := s.odds, fateNone
	switch {
	case x < o.lost:
		f = fateLost
	case x < o.lost+o.unheard:
		f = fateUnheard
	case x < o.lost+o.unheard+o.late:
		f = fateLate
	case x < o.lost+o.unheard+o.late+o.dies && w.cur.p != nil:
		f = fateDies + fate(w.rng.IntN(2))
	}
	if fateNames[f] != "" {
		w.count(fateNames[f])
	}
	return f
}

// outage takes the service away.
func (s *service) outage(d time.Duration) {
	s.down = s.w.now + int64(d)
	s.w.count(s.name + " away")
	s.w.tell("%s is away for %s", s.name, d.Round(time.Millisecond))
}
