package door

import (
	"context"
	"sync"
	"time"

	"github.com/doorbuster/doorbuster/engine/failpoint"
)

const (
	markTimeout = time.Second
	markBatch   = 256  // confirmed entries that start a batch at once; the next read of the watch starts any
	maxMarks    = 4096 // beyond them marks are dropped: the relay publishes again, which is harmless
)

// marks are the outbox entries of a sale that are confirmed and not yet deleted.
type marks struct {
	mu      sync.Mutex
	epoch   int64 // of entries
	entries []int64
	spare   []int64
	running bool
}

// add notes a confirmed entry and tells whether a batch is due. Entries of an
// older epoch are let go: the relay empties its outbox.
func (m *marks) add(epoch, entry int64) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if epoch != m.epoch {
		m.epoch, m.entries = epoch, m.entries[:0]
	}
	if len(m.entries) < maxMarks {
		m.entries = append(m.entries, entry)
	}
	return len(m.entries) >= markBatch && !m.running
}

// begin claims the marking for the caller, who must then call runMarks.
func (m *marks) begin() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.running || len(m.entries) == 0 {
		return false
	}
	m.running = true
	return true
}

// take hands out what is to be deleted, in the last batch of this run.
func (m *marks) take() (epoch int64, entries []int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	entries = m.entries
	m.entries, m.spare = m.spare[:0], entries
	return m.epoch, entries
}

// end ends the run, unless as much has come in meanwhile as starts one.
func (m *marks) end() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.running = len(m.entries) >= markBatch
	return !m.running
}

// startMarks deletes what is confirmed from the outbox, off the path of any
// request. A batch per group would cost Redis and the door a call for each: the
// watch starts one with each of its reads.
func (s *sale) startMarks() {
	if !s.marks.begin() {
		return
	}
	if !s.door.life.start(s.runMarks) {
		s.runMarks()
	}
}

func (s *sale) runMarks() {
	for ended := false; !ended; ended = s.marks.end() {
		epoch, entries := s.marks.take()
		ctx, cancel := s.door.within(context.Background(), markTimeout)
		failpoint.Hit("door/before-mark")
		err := s.door.cfg.Stock.Mark(ctx, s.id, epoch, entries)
		cancel()
		if err != nil {
			s.door.metrics.markFailures.Inc() // the relay will publish them again
		}
	}
}
