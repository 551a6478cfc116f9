package relay_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/doorbuster/doorbuster/engine"
	"github.com/doorbuster/doorbuster/engine/relay"
	"github.com/doorbuster/doorbuster/stock"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// slot is a stock of outboxes, a list of sales and a broker in memory.
type slot struct {
	mu        sync.Mutex
	now       int64 // ms
	boxes     map[int64][]stock.Entry
	published []string
	fail      map[string]bool // bodies that are not confirmed
	frozen    bool
}

func (s *slot) Watch(context.Context, engine.SaleID, int64) (stock.Watch, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.frozen {
		return stock.Watch{}, stock.ErrFenced
	}
	return stock.Watch{Now: s.now}, nil
}

func (s *slot) Epochs(context.Context, engine.SaleID) (epochs []int64, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for e := int64(0); e < 10; e++ {
		if _, ok := s.boxes[e]; ok {
			epochs = append(epochs, e)
		}
	}
	return epochs, nil
}

func (s *slot) Outbox(_ context.Context, _ engine.SaleID, epoch int64, limit int) ([]stock.Entry, int64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	box := s.boxes[epoch]
	return append([]stock.Entry(nil), box[:min(limit, len(box))]...), int64(len(box)), nil
}

func (s *slot) Mark(_ context.Context, _ engine.SaleID, epoch int64, ids []int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	gone := map[int64]bool{}
	for _, id := range ids {
		gone[id] = true
	}
	var left []stock.Entry
	for _, e := range s.boxes[epoch] {
		if !gone[e.ID] {
			left = append(left, e)
		}
	}
	s.boxes[epoch] = left
	return nil
}

var errBroker = errors.New("no confirm")

func (s *slot) Publish(_ context.Context, _ engine.SaleID, body []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fail[string(body)] {
		return errBroker
	}
	s.published = append(s.published, string(body))
	return nil
}

func (s *slot) Sales(context.Context) ([]engine.SaleID, error) { return []engine.SaleID{"drop"}, nil }

func (s *slot) later(ms int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.now += ms
}

func (s *slot) put(epoch int64, e stock.Entry) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.boxes[epoch] = append(s.boxes[epoch], e)
}

func (s *slot) left(epoch int64) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.boxes[epoch])
}

func setup() (*slot, *relay.Relay) {
	s := &slot{now: 100_000, fail: map[string]bool{}, boxes: map[int64][]stock.Entry{
		1: {{ID: 7, At: 1000, Body: []byte("old epoch")}},
		2: {
			{ID: 1, At: 96_000, Body: []byte("due")},
			{ID: 5, At: 97_000, Body: []byte("just due")},
			{ID: 9, At: 97_001, Body: []byte("young")},
		},
	}}
	return s, relay.New(relay.Config{Stock: s, Sales: s, Publisher: s})
}

func TestRelaysWhatIsOldEnough(t *testing.T) {
	t.Parallel()
	s, r := setup()
	c, err := relay.RelayOnce(t.Context(), r, "drop")
	if err != nil || c.Published != 3 || c.Waiting != 1 {
		t.Errorf("%+v, %v; want 3 published, 1 waiting", c, err)
	}
	if s.left(1) != 0 || s.left(2) != 1 {
		t.Errorf("left: %d and %d, want 0 and 1", s.left(1), s.left(2))
	}
	s.now += 1
	if c, err = relay.RelayOnce(t.Context(), r, "drop"); err != nil || c.Published != 1 || s.left(2) != 0 {
		t.Errorf("a millisecond later: %+v, %v", c, err)
	}
}

func TestUnconfirmedStays(t *testing.T) {
	t.Parallel()
	s, r := setup()
	s.fail["just due"] = true
	c, err := relay.RelayOnce(t.Context(), r, "drop")
	if !errors.Is(err, errBroker) || c.Published != 2 {
		t.Errorf("%+v, %v", c, err)
	}
	if s.left(2) != 2 {
		t.Errorf("%d left, want the unconfirmed one and the young one", s.left(2))
	}
	s.fail = nil
	if c, err = relay.RelayOnce(t.Context(), r, "drop"); err != nil || c.Published != 1 {
		t.Errorf("the broker is back: %+v, %v", c, err)
	}
}

// A rebuild drains a frozen sale, young entries too.
func TestDrain(t *testing.T) {
	t.Parallel()
	s, r := setup()
	s.frozen = true
	for i := range int64(1000) {
		s.boxes[2] = append(s.boxes[2], stock.Entry{ID: 100 + i, At: time.Now().UnixMilli(), Body: []byte("more")})
	}
	if err := r.Drain(t.Context(), "drop"); err != nil || s.left(1) != 0 || s.left(2) != 0 {
		t.Errorf("%v; left %d and %d", err, s.left(1), s.left(2))
	}
	if len(s.published) != 1004 {
		t.Errorf("%d published, want 1004", len(s.published))
	}
}

// many is a slot for several sales, of which those in silent never answer.
type many struct {
	*slot
	mu     sync.Mutex
	sales  []engine.SaleID
	silent map[engine.SaleID]bool
	err    error
	asked  chan struct{} // the list was read
}

func (m *many) Sales(context.Context) ([]engine.SaleID, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	select {
	case m.asked <- struct{}{}:
	default:
	}
	return m.sales, m.err
}

func (m *many) Epochs(ctx context.Context, sale engine.SaleID) ([]int64, error) {
	if m.silent[sale] {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return m.slot.Epochs(ctx, sale)
}

// Of a hundred sales whose Redis is silent none delays the one that answers.
// While PostgreSQL is down the last list stands; a sale that is no longer in it is
// left alone. When ctx ends, everything does.
func TestRunTendsEachSaleByItself(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, _ := setup()
		m := &many{slot: s, silent: map[engine.SaleID]bool{}, asked: make(chan struct{}, 1)}
		for n := range 100 {
			sale := engine.SaleID(fmt.Sprint("silent-", n))
			m.sales, m.silent[sale] = append(m.sales, sale), true
		}
		m.sales = append(m.sales, "drop")
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		r := relay.New(relay.Config{Stock: m, Sales: m, Publisher: m})
		go func() { ended <- r.Run(ctx) }()
		time.Sleep(time.Second) // of the bubble: at least one pass
		synctest.Wait()
		if s.left(2) != 1 {
			t.Errorf("%d left beside silent sales, want the young one", s.left(2))
		}
		m.mu.Lock()
		m.err = errors.New("no PostgreSQL")
		m.mu.Unlock()
		time.Sleep(10 * time.Second)
		s.later(1)
		time.Sleep(time.Second)
		synctest.Wait()
		if s.left(2) != 0 {
			t.Errorf("%d left without PostgreSQL", s.left(2))
		}
		m.mu.Lock()
		m.err, m.sales = nil, m.sales[:1]
		m.mu.Unlock()
		time.Sleep(10 * time.Second)
		s.put(2, stock.Entry{ID: 50, At: 1, Body: []byte("late")})
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if s.left(2) != 1 {
			t.Errorf("%d left of a sale that is not in use, want what was put there", s.left(2))
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}
