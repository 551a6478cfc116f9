package queue

import (
	"sync/atomic"
	"time"
)

// Stuck tells whether a session of messages that have waited for so long for
// their confirms is given up, while the broker blocks or not.
func Stuck(blocked bool, waited ...time.Duration) bool {
	now := time.Now()
	s := &session{waits: make([]atomic.Int64, len(waited)+1)}
	s.valve.open()
	if blocked {
		s.valve.close()
	}
	for i, d := range waited {
		s.waits[i].Store(now.Add(-d).UnixMilli())
	}
	return s.stuck(now)
}
