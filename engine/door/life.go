package door

import "sync"

// life owns the goroutines of a door.
type life struct {
	mu      sync.Mutex
	running int
	stopped bool
	idle    chan struct{} // closed when stopped and nothing runs
}

func newLife() *life { return &life{idle: make(chan struct{})} }

// start runs f in a goroutine of its own, or tells that the door has stopped.
func (l *life) start(f func()) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.stopped {
		return false
	}
	l.running++
	go func() {
		defer l.end()
		f()
	}()
	return true
}

func (l *life) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.running--
	if l.stopped && l.running == 0 {
		close(l.idle)
	}
}

// stop lets nothing start any more and waits until everything has ended.
func (l *life) stop() {
	l.mu.Lock()
	if !l.stopped {
		l.stopped = true
		if l.running == 0 {
			close(l.idle)
		}
	}
	l.mu.Unlock()
	<-l.idle
}
