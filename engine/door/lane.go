package door

import (
	"sync"

	"github.com/doorbuster/doorbuster/engine"
)

// lane gathers the requests of a sale into groups. While as many script calls are
// in flight as may be, requests gather; the next call takes them all. There is no
// timer, and no goroutine while nothing waits.
type lane struct {
	runner func() // sale.run, made once

	mu      sync.Mutex
	waiting []*request
	head    int // of waiting: those before it were taken
	calls   int // groups whose script call has not returned
	groups  int // groups whose confirm has not come, those in a call included
}

// quiet tells whether nothing waits and nothing is in flight.
func (l *lane) quiet() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.groups == 0 && l.head == len(l.waiting)
}

// inFlight counts the groups between script and confirm.
func (l *lane) inFlight() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.groups
}

// ready tells whether another group may begin. The caller holds mu.
func (l *lane) ready(cfg *Config) bool {
	return l.head < len(l.waiting) && l.calls < cfg.Calls && l.groups < cfg.InFlight
}

// submit hands the request to the group that is gathering.
func (s *sale) submit(r *request) {
	l := &s.lane
	if s.door.cfg.GroupOfOne {
		s.alone(r)
		return
	}
	l.mu.Lock()
	l.waiting = append(l.waiting, r)
	begin := l.ready(&s.door.cfg)
	if begin {
		l.calls++
		l.groups++
	}
	l.mu.Unlock()
	if begin {
		s.begin()
	}
}

// alone runs a group of one in the handler's goroutine.
func (s *sale) alone(r *request) {
	l := &s.lane
	l.mu.Lock()
	l.calls++
	l.groups++
	l.mu.Unlock()
	g := s.door.groups.Get().(*group)
	g.members = append(g.members[:0], r)
	g.do(s)
	s.door.groups.Put(g)
	l.mu.Lock()
	l.groups--
	l.mu.Unlock()
}

// begin runs a lane whose call and group are counted already.
func (s *sale) begin() {
	if !s.door.life.start(s.lane.runner) {
		s.run() // the door has stopped: the caller finishes what there is
	}
}

// run takes group after group while any waits and no other lane has it.
func (s *sale) run() {
	g := s.door.groups.Get().(*group)
	l := &s.lane
	for {
		l.mu.Lock()
		g.members = l.take(g.members[:0], s.door.cfg.GroupMax)
		if len(g.members) == 0 { // with several calls at once, another lane took what this one was begun for
			l.calls--
			l.groups--
			l.mu.Unlock()
			break
		}
		l.mu.Unlock()

		g.do(s)

		l.mu.Lock()
		l.groups--
		more := l.ready(&s.door.cfg)
		if more {
			l.calls++
			l.groups++
		}
		l.mu.Unlock()
		if !more {
			break
		}
	}
	s.door.groups.Put(g)
}

// called notes that the script call of a group has returned, and lets the next
// group begin while this one is published.
func (s *sale) called() {
	l := &s.lane
	l.mu.Lock()
	l.calls--
	begin := l.ready(&s.door.cfg)
	if begin {
		l.calls++
		l.groups++
	}
	l.mu.Unlock()
	if begin {
		s.begin()
	}
}

// take moves the oldest of those that wait to dst, at most n. The caller holds mu.
func (l *lane) take(dst []*request, n int) []*request {
	n = min(n, len(l.waiting)-l.head)
	next := l.waiting[l.head : l.head+n]
	dst = append(dst, next...)
	clear(next)
	l.head += n
	if l.head == len(l.waiting) {
		l.waiting, l.head = l.waiting[:0], 0
	} else if l.head >= 2*engine.MaxGroup {
		l.waiting = l.waiting[:copy(l.waiting, l.waiting[l.head:])]
		l.head = 0
	}
	return dst
}
