package payment

import (
	"context"
	"time"
)

// Clock is what Steps goes by in place of the real clock.
type Clock struct {
	// Now is the time.
	Now func() time.Time
	// Sleep waits for d, or returns false if ctx has ended.
	Sleep func(ctx context.Context, d time.Duration) bool
	// Jitter makes d up to a half shorter.
	Jitter func(d time.Duration) time.Duration
	// Within ends by that time, as context.WithTimeout does by the real one.
	Within func(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc)
}

// Steps is the worker without its goroutines and without the real clock: whoever
// steps it (a simulator) calls each stage when he likes, in the order he likes,
// also one while another waits inside of a service. The stages are the very ones
// that Run's loops call. What is handed from one stage to the next in memory waits
// there until the next is called; what nobody calls for comes due by its row.
type Steps struct{ w *Worker }

// NewSteps returns the worker, for stepping. like, if not nil, is another whose metrics
// it shares. Not safe for use by two goroutines at once.
func NewSteps(cfg Config, clock Clock, like *Steps) (*Steps, error) {
	cfg.Now = clock.Now
	if cfg.Source == nil {
		cfg.Source = func(context.Context, int, func(context.Context, []Message)) error { return nil }
	}
	var m *metrics
	if like != nil {
		m = like.w.m
	}
	w, err := newWorker(cfg, m)
	if err != nil {
		return nil, err
	}
	w.steps = &clock
	for _, g := range w.gateways {
		g.serial = true
	}
	return &Steps{w}, nil
}

// Lane is one of the lanes of an ingest queue, or who takes again what is parked.
type Lane struct{ in *ingester }

// Lane returns a new lane, which works until ctx ends.
func (s *Steps) Lane(ctx context.Context) *Lane { return &Lane{s.w.newIngester(ctx, ctx)} }

// Ingest writes the orders of messages and acknowledges those that are written.
func (l *Lane) Ingest(msgs []Message) {
	parcels, markers := l.in.open(msgs)
	l.in.parcels(parcels)
	l.in.markers(markers)
}

// Unpark takes one parked envelope again, and tells whether there was one.
func (l *Lane) Unpark() (bool, error) { return l.in.unparkOnce() }

// Pay pays a batch that ingest has handed over, or else one that came due. It
// returns how many orders were in it.
func (s *Steps) Pay(ctx context.Context) (int, error) {
	select {
	case batch := <-s.w.toPay:
		defer func() { <-s.w.slots }()
		s.w.payInHand(ctx, batch)
		return len(batch.batch), nil
	default:
		return s.w.payOnce(ctx, firstLimit)
	}
}

// Capture works on tasks that the payers have handed over, or else on those that
// came due. It returns how many there were.
func (s *Steps) Capture(ctx context.Context) (int, error) {
	if tasks := s.w.more(nil); len(tasks) > 0 {
		return len(tasks), s.w.work(ctx, tasks)
	}
	return s.w.captureOnce(ctx, firstLimit)
}

// Expire ends reserved orders whose deadline has passed, and returns how many.
func (s *Steps) Expire(ctx context.Context) (int, error) { return s.w.expireOnce(ctx, firstLimit) }

// jitter is jitter, or what the steps say in its place.
func (w *Worker) jitter(d time.Duration) time.Duration {
	if w.steps != nil {
		return w.steps.Jitter(d)
	}
	return jitter(d)
}

func (w *Worker) within(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	if w.steps != nil {
		return w.steps.Within(ctx, d)
	}
	return context.WithTimeout(ctx, d)
}
