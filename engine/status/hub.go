package status

import (
	"context"
	"sync"
	"time"

	"github.com/doorbuster/doorbuster/engine"
	"github.com/doorbuster/doorbuster/engine/orders"
)

// DefaultPollEvery is how often watched orders are looked at.
const DefaultPollEvery = 250 * time.Millisecond

// pollShare bounds the poller's share of time: after a round it rests at least
// this many times as long as the round took.
const pollShare = 3

// hub knows which orders are watched, and by which streams. One poller asks for
// all of them together, so PostgreSQL sees a few batched questions per second
// however many streams there are.
type hub struct {
	most    int
	metrics *metrics

	mu      sync.Mutex
	watched map[engine.OrderID]*watched
	streams int
	perMan  map[engine.BuyerID]int
	closed  bool
	closing chan struct{}  // closed when every stream must end
	woken   chan struct{}  // has one when there is something to watch
	open    sync.WaitGroup // streams
}

// watched is one order and the streams that wait for its changes.
type watched struct {
	last    *Order // as last seen in PostgreSQL; nil: not yet
	streams map[*stream]struct{}
}

// stream is one open connection. updates holds the newest state not yet sent:
// a slow reader skips states, never the last one.
type stream struct {
	order   engine.OrderID
	who     asker
	updates chan Order
}

func newHub(most int, m *metrics) *hub {
	return &hub{
		most: most, metrics: m, watched: map[engine.OrderID]*watched{}, perMan: map[engine.BuyerID]int{},
		closing: make(chan struct{}), woken: make(chan struct{}, 1),
	}
}

// join adds a stream; false if there are too many, or the hub is closed. The
// caller leaves, always.
func (h *hub) join(who asker, id engine.OrderID) (*stream, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed || h.streams >= h.most || h.perMan[who.buyer] >= MaxStreamsPerBuyer {
		h.metrics.streamsRefused.Inc()
		return nil, false
	}
	st := &stream{order: id, who: who, updates: make(chan Order, 1)}
	w := h.watched[id]
	if w == nil {
		w = &watched{streams: map[*stream]struct{}{}}
		h.watched[id] = w
	}
	w.streams[st] = struct{}{}
	if w.last != nil {
		st.updates <- *w.last
	}
	h.streams++
	h.perMan[who.buyer]++
	h.open.Add(1)
	h.metrics.streams.Set(float64(h.streams))
	select {
	case h.woken <- struct{}{}:
	default:
	}
	return st, true
}

func (h *hub) leave(st *stream) {
	h.mu.Lock()
	defer h.mu.Unlock()
	w := h.watched[st.order]
	delete(w.streams, st)
	if len(w.streams) == 0 {
		delete(h.watched, st.order)
	}
	h.streams--
	if h.perMan[st.who.buyer]--; h.perMan[st.who.buyer] == 0 {
		delete(h.perMan, st.who.buyer)
	}
	h.metrics.streams.Set(float64(h.streams))
	h.open.Done()
}

// batches lists the watched orders in slices of one question each.
func (h *hub) batches() [][]engine.OrderID {
	h.mu.Lock()
	defer h.mu.Unlock()
	var out [][]engine.OrderID
	for id := range h.watched {
		if n := len(out); n == 0 || len(out[n-1]) == orders.MaxViews {
			out = append(out, make([]engine.OrderID, 0, min(len(h.watched), orders.MaxViews)))
		}
		out[len(out)-1] = append(out[len(out)-1], id)
	}
	return out
}

// tell gives what PostgreSQL says to the streams that have not heard it.
func (h *hub) tell(views []orders.View) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for i := range views {
		w := h.watched[views[i].Order.Order]
		if w == nil {
			continue
		}
		o := fromView(&views[i])
		if w.last != nil && same(w.last, &o) {
			continue
		}
		w.last = &o
		for st := range w.streams {
			if !st.who.may(views[i].Buyer, views[i].Sale) {
				continue
			}
			select {
			case <-st.updates: // an older state that was not sent yet
			default:
			}
			st.updates <- o
		}
	}
}

// same tells whether a buyer sees no difference.
func same(a, b *Order) bool {
	return a.Status == b.Status && a.Reason == b.Reason && a.Hold == b.Hold && a.PayBefore == b.PayBefore &&
		a.CancelRequested == b.CancelRequested && a.Returned == b.Returned
}

// close ends every stream and lets none in any more.
func (h *hub) close() {
	h.mu.Lock()
	if !h.closed {
		h.closed = true
		close(h.closing)
	}
	h.mu.Unlock()
	h.open.Wait()
}

// Run polls for watched orders until ctx ends, and then ends all streams. A
// PostgreSQL that is down is waited for: the streams stay.
func (s *Status) Run(ctx context.Context) error {
	defer s.hub.close()
	down := false
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-s.hub.woken:
		}
		for began := time.Now(); ; began = time.Now() {
			seen, err := s.runOnce(ctx)
			if ctx.Err() != nil {
				return nil
			}
			if (err != nil) != down {
				down = err != nil
				s.cfg.Logger.Warn("polling for watched orders", "works", !down, "error", err)
			}
			if seen == 0 && err == nil {
				break // nobody watches: sleep until somebody does
			}
			took := time.Since(began)
			s.metrics.poll.Observe(took.Seconds())
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(max(s.cfg.PollEvery, pollShare*took)):
			}
		}
	}
}

// runOnce asks for all watched orders once and returns how many there were.
func (s *Status) runOnce(ctx context.Context) (seen int, err error) {
	for _, ids := range s.hub.batches() {
		seen += len(ids)
		done, ok := s.books.turn()
		if !ok {
			return seen, errBusy
		}
		ask, end := context.WithTimeout(ctx, queryTimeout)
		views, err := s.cfg.Orders.Orders(ask, ids)
		end()
		done()
		if err != nil {
			return seen, err
		}
		s.hub.tell(views)
	}
	return seen, nil
}
