package payment_test

import (
	"context"
	"slices"
	"sync"

	"github.com/doorbuster/doorbuster/engine"
	"github.com/doorbuster/doorbuster/payment"
	"github.com/doorbuster/doorbuster/stock"
)

// shelf stands in for stock: it takes what it is told to.
type shelf struct {
	mu     sync.Mutex
	watch  stock.Watch
	refuse map[engine.OrderID]engine.Outcome

	records map[engine.OrderID]engine.Record
	taken   []engine.Basket
	marked  []int64
	before  func(step string) error
}

func newShelf(epoch int64) *shelf {
	s := &shelf{refuse: map[engine.OrderID]engine.Outcome{}, before: func(string) error { return nil }}
	s.watch.Epoch = epoch
	return s
}

func (s *shelf) Watch(context.Context, engine.SaleID, int64) (stock.Watch, error) {
	if err := s.before("watch"); err != nil {
		return stock.Watch{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.watch, nil
}

func (s *shelf) Retake(_ context.Context, _ engine.SaleID, g stock.Grip, bs []engine.Basket, d *stock.Decision) error {
	if err := s.before("retake"); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	d.Verdicts, d.First = nil, 0
	for _, b := range bs {
		v := stock.Verdict{Outcome: engine.Accepted, Hold: engine.Hold{Epoch: g.Epoch, Seq: 1000 + int64(len(s.taken))}}
		if o, no := s.refuse[b.Order]; no {
			v = stock.Verdict{Outcome: o}
		} else {
			if d.First == 0 {
				d.First = v.Hold.Seq
			}
			s.taken = append(s.taken, b)
		}
		d.Verdicts = append(d.Verdicts, v)
	}
	return nil
}

func (s *shelf) Record(_ context.Context, _ engine.SaleID, id engine.OrderID) (engine.Record, bool, error) {
	if err := s.before("record"); err != nil {
		return engine.Record{}, false, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	r, ok := s.records[id]
	return r, ok, nil
}

func (s *shelf) Mark(_ context.Context, _ engine.SaleID, _ int64, entries []int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.marked = append(s.marked, entries...)
	return nil
}

// pipe stands in for the queue: what was not acknowledged comes again to the next
// consumer.
type pipe struct {
	mu    sync.Mutex
	ready [][]byte
	dead  [][]byte
	more  chan struct{}
	acked int
}

func newPipe() *pipe { return &pipe{more: make(chan struct{}, 1)} }

func (p *pipe) publish(bodies ...[]byte) {
	p.mu.Lock()
	p.ready = append(p.ready, bodies...)
	p.mu.Unlock()
	select {
	case p.more <- struct{}{}:
	default:
	}
}

// source serves everything on queue 0.
func (p *pipe) source(ctx context.Context, queue int, handle func(context.Context, []payment.Message)) error {
	if queue != 0 {
		<-ctx.Done()
		return nil
	}
	unacked := map[int][]byte{}
	defer func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		for _, b := range unacked {
			p.ready = append(p.ready, b)
		}
	}()
	for tag := 0; ; {
		p.mu.Lock()
		n := min(len(p.ready), 8)
		batch := slices.Clone(p.ready[:n])
		p.ready = p.ready[n:]
		var msgs []payment.Message
		for _, b := range batch {
			tag++
			mine := tag
			unacked[mine] = b
			gone := func() error {
				p.mu.Lock()
				defer p.mu.Unlock()
				delete(unacked, mine)
				p.acked++
				return nil
			}
			msgs = append(msgs, payment.Message{Body: b, Ack: gone, Dead: func() error { p.dead = append(p.dead, b); return gone() }})
		}
		p.mu.Unlock()
		if n > 0 {
			handle(ctx, msgs)
			continue
		}
		select {
		case <-ctx.Done():
			return nil
		case <-p.more:
		}
	}
}
