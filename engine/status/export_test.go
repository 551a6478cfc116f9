package status

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Bounds that tests hold the package to.
const (
	AnswerIn    = answerIn
	QueryWait   = queryWait
	MaxWaiting  = maxWaiting
	BeatEvery   = heartbeatEvery
	StreamWrite = streamWrite
)

// Beat changes how often streams show that they live, before there is any.
func (s *Status) Beat(every time.Duration) { s.beat = every }

// Streams counts the live streams.
func (s *Status) Streams() int {
	s.hub.mu.Lock()
	defer s.hub.mu.Unlock()
	return s.hub.streams
}

// Searching counts who waits for a search of records, passes and their rests
// included.
func (s *Status) Searching() (n int) {
	s.searches.mu.Lock()
	defer s.searches.mu.Unlock()
	for _, p := range s.searches.places {
		n += p.users
	}
	return n
}

// NewTurns returns the turn function of n turns.
func NewTurns(n int) func() (func(), bool) {
	return newTurns(n, prometheus.NewCounter(prometheus.CounterOpts{Name: "refused_total", Help: "Refused turns."})).turn
}
