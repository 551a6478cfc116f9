package loadtest

import (
	"container/heap"
	"sync"
	"time"
)

// lobby is where the crowd's buyers are between two requests: ready to ask, told
// to come back later, or refused and waiting for units to return. Workers take
// from it, the crowd's clock moves buyers between the three.
type lobby struct {
	mu      sync.Mutex
	more    sync.Cond
	ready   fifo
	later   laterHeap
	waiting fifo // told sold-out
	out     int  // with workers
	gone    int  // heard a final answer
	closed  bool
}

func newLobby() *lobby {
	l := new(lobby)
	l.more.L = &l.mu
	return l
}

// take waits for a ready buyer; false when the crowd is over.
func (l *lobby) take() (buyer int32, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for l.ready.len() == 0 && !l.closed {
		l.more.Wait()
	}
	if l.closed {
		return 0, false
	}
	l.out++
	return l.ready.pop(), true
}

// again sends a taken buyer back until at.
func (l *lobby) again(buyer int32, at time.Time) {
	l.mu.Lock()
	l.out--
	heap.Push(&l.later, comeback{at, buyer})
	l.mu.Unlock()
}

// wait puts a taken buyer among those who wait for units.
func (l *lobby) wait(buyer int32) {
	l.mu.Lock()
	l.out--
	l.waiting.push(buyer)
	l.mu.Unlock()
}

// leave lets a taken buyer go.
func (l *lobby) leave() {
	l.mu.Lock()
	l.out--
	l.gone++
	l.mu.Unlock()
}

// enter lets buyers [from, to) in.
func (l *lobby) enter(from, to int) {
	l.mu.Lock()
	for b := from; b < to; b++ {
		l.ready.push(int32(b))
	}
	l.more.Broadcast()
	l.mu.Unlock()
}

// tick makes ready whose time has come, and up to n of those who wait for units,
// the longest waiting first.
func (l *lobby) tick(now time.Time, n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	before := l.ready.len()
	for len(l.later) > 0 && !l.later[0].at.After(now) {
		l.ready.push(heap.Pop(&l.later).(comeback).buyer)
	}
	for ; n > 0 && l.waiting.len() > 0; n-- {
		l.ready.push(l.waiting.pop())
	}
	if l.ready.len() > before {
		l.more.Broadcast()
	}
}

// census is how many buyers are where.
type census struct{ active, waiting, gone int }

func (l *lobby) census() census {
	l.mu.Lock()
	defer l.mu.Unlock()
	return census{active: l.out + l.ready.len() + len(l.later), waiting: l.waiting.len(), gone: l.gone}
}

// close ends every take.
func (l *lobby) close() {
	l.mu.Lock()
	l.closed = true
	l.more.Broadcast()
	l.mu.Unlock()
}

// fifo is a queue of buyers.
type fifo struct {
	buyers []int32
	first  int
}

func (f *fifo) len() int     { return len(f.buyers) - f.first }
func (f *fifo) push(b int32) { f.buyers = append(f.buyers, b) }

func (f *fifo) pop() int32 {
	b := f.buyers[f.first]
	if f.first++; f.first*2 > len(f.buyers) { // at least half is spent: move up, at a cost of O(1) per pop
		f.buyers = f.buyers[:copy(f.buyers, f.buyers[f.first:])]
		f.first = 0
	}
	return b
}

type comeback struct {
	at    time.Time
	buyer int32
}

type laterHeap []comeback

func (h laterHeap) Len() int           { return len(h) }
func (h laterHeap) Less(i, j int) bool { return h[i].at.Before(h[j].at) }
func (h laterHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *laterHeap) Push(x any)        { *h = append(*h, x.(comeback)) }

func (h *laterHeap) Pop() any {
	last := len(*h) - 1
	x := (*h)[last]
	*h = (*h)[:last]
	return x
}
