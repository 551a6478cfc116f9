package chaos

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/doorbuster/doorbuster/engine"
	"github.com/doorbuster/doorbuster/engine/audit"
	"github.com/doorbuster/doorbuster/loadtest"
	"github.com/doorbuster/doorbuster/loadtest/history"
)

const (
	strange    = 20  // buyers who behave so
	parallel   = 50  // requests of each at once
	storms     = 5   // requests of each buyer in a retry storm
	stormy     = 400 // buyers in it
	broken     = 200 // connections that end in the middle
	clientWait = 10 * time.Second
	tooLarge   = 6 << 10 // bytes; a door takes 4 KiB
	dripEvery  = 200 * time.Millisecond
)

// behaviour is what strange clients do while a sale runs. Its error breaks a promise.
type behaviour func(ctx context.Context, h *house, s *strangers) error

func clientCells() (cells []*Cell) {
	for _, c := range []struct {
		fault string
		do    behaviour
	}{
		{"same-key-50", sameKey},
		{"50-keys", manyKeys},
		{"body-changed", changedBody},
		{"disconnects", disconnects},
		{"retry-storm", retryStorm},
		{"slowloris", slowloris},
		{"oversized", oversized},
		{"smuggling", smuggle},
		{"forged-tickets", forge},
		{"garbage", garbage},
		{"idle-connections", idle},
	} {
		cells = append(cells, &Cell{
			Component: "clients", Fault: c.fault, kind: "clients", hold: quick,
			arm: armStrangers, strike: letIn(c.do), heal: heardStrangers,
		})
	}
	return cells
}

// strangers are the buyers beside the crowd.
type strangers struct {
	tickets []loadtest.Ticket
	rec     *history.Recorder
	web     *http.Client
	made    atomic.Int64 // requests or connections
	done    chan error
}

func armStrangers(_ context.Context, h *house) error {
	h.memory["strangers"] = &strangers{
		rec: history.NewRecorder(), done: make(chan error, 1),
		web: &http.Client{Timeout: clientWait, Transport: &http.Transport{MaxIdleConnsPerHost: strange * parallel}},
	}
	return nil
}

func letIn(do behaviour) deed {
	return func(ctx context.Context, h *house) (string, error) {
		s := h.memory["strangers"].(*strangers)
		var err error
		if s.tickets, err = h.tickets("stranger-", stormy); err != nil {
			return "", err
		}
		own := context.WithoutCancel(ctx)
		go func() { s.done <- do(own, h, s) }()
		return "", until(ctx, func() bool { return s.made.Load() > 0 })
	}
}

func heardStrangers(_ context.Context, h *house) (string, error) {
	s, ok := h.memory["strangers"].(*strangers)
	if !ok || !h.struck.Load() {
		return "", nil
	}
	defer s.web.CloseIdleConnections()
	select {
	case err := <-s.done:
		if err != nil {
			return "", fmt.Errorf("%w: %w", errBroken, err)
		}
	case <-time.After(2 * clientWait):
		return "", fmt.Errorf("%w: strange clients had no end of it within %s", errBroken, 2*clientWait)
	}
	return fmt.Sprintf("%d requests of strange clients", s.made.Load()), nil
}

// errBroken says that a promise to a client was broken.
var errBroken = errors.New("broken promise")

// ask asks for one unit under a key and writes down what was heard.
func (s *strangers) ask(ctx context.Context, h *house, who int, w history.Wish) history.Output {
	t := s.tickets[who]
	lines := []engine.Line{{SKU: saleSKU, Quantity: 1, Price: price}}
	total := engine.Money{Amount: price, Currency: currency}
	b := &history.Buyer{
		Who: history.Who{Sale: h.sale.ID, Buyer: t.Buyer}, Ticket: t.Token, URLs: []string{h.proc[door].url},
		Lines: lines, Total: total, Rec: s.rec, HTTP: s.web,
	}
	s.made.Add(1)
	out := b.Order(ctx, int(s.made.Load()), w)
	if w.Changed {
		lines = []engine.Line{{SKU: saleSKU, Quantity: 2, Price: price}}
		total.Amount *= 2
	}
	_ = h.tally.Log.Write(&audit.Answer{ // not counted: marks are the crowd's
		At: time.Now(), Buyer: t.Buyer, Key: w.Key, Body: engine.BodyHash(lines, total.Amount, total.Currency),
		Lines: lines, Total: total.Amount, Status: out.Status, Type: out.Type, Order: out.Order, Replayed: out.Replayed,
	})
	return out
}

// sameKey: every one of 50 requests at once finds the one order.
func sameKey(ctx context.Context, h *house, s *strangers) error {
	var all sync.WaitGroup
	for who := range strange {
		for range parallel {
			all.Go(func() { s.ask(ctx, h, who, history.Wish{Key: "one", Repeat: true}) })
		}
	}
	all.Wait()
	return nil // the history tells
}

// manyKeys: 50 keys of one buyer at once, whose limit is one.
func manyKeys(ctx context.Context, h *house, s *strangers) error {
	var all sync.WaitGroup
	var taken [strange]atomic.Int64
	for who := range strange {
		for k := range parallel {
			all.Go(func() {
				if out := s.ask(ctx, h, who, history.Wish{Key: fmt.Sprintf("key-%d", k)}); out.Status == http.StatusAccepted {
					taken[who].Add(1)
				}
			})
		}
	}
	all.Wait()
	for who := range taken {
		if n := taken[who].Load(); n > 1 {
			return fmt.Errorf("buyer %s has %d orders, his limit is 1", s.tickets[who].Buyer, n)
		}
	}
	return nil
}

// changedBody: a key that gave an order gives no other body anything.
func changedBody(ctx context.Context, h *house, s *strangers) error {
	var all sync.WaitGroup
	errs := make([]error, strange)
	for who := range strange {
		all.Go(func() {
			if s.ask(ctx, h, who, history.Wish{Key: "one"}).Status != http.StatusAccepted {
				return
			}
			for range parallel / storms {
				out := s.ask(ctx, h, who, history.Wish{Key: "one", Changed: true, Repeat: true})
				if out.Status < 300 {
					errs[who] = fmt.Errorf("another body under a used key was answered %d", out.Status)
				}
			}
		})
	}
	all.Wait()
	return errors.Join(errs...)
}

// retryStorm: each of many buyers asks five times at once under his key.
func retryStorm(ctx context.Context, h *house, s *strangers) error {
	var all sync.WaitGroup
	for who := range stormy {
		for range storms {
			all.Go(func() { s.ask(ctx, h, who, history.Wish{Key: "storm", Repeat: true}) })
		}
	}
	all.Wait()
	return nil
}

// dial opens a bare connection to the door.
func (s *strangers) dial(h *house) (net.Conn, error) {
	conn, err := net.Dial("tcp", hostOf(h.proc[door].url)) //nolint:noctx // on the loopback
	if err == nil {
		s.made.Add(1)
		err = conn.SetDeadline(time.Now().Add(clientWait))
	}
	return conn, err
}

// request is an order on the wire.
func (s *strangers) request(h *house, who int, key string, pad int) []byte {
	body := fmt.Sprintf(`{"lines":[{"sku":%q,"quantity":1}],"total":{"amount":%d,"currency":%q}%*s}`, saleSKU, price, currency, pad, "")
	return fmt.Appendf(nil, "POST /v1/sales/%s/orders HTTP/1.1\r\nHost: chaos\r\nContent-Type: application/json\r\n"+
		"Authorization: Ticket %s\r\nIdempotency-Key: %s\r\nContent-Length: %d\r\n\r\n%s", h.sale.ID, s.tickets[who].Token, key, len(body), body)
}

// disconnects: half of them go in the middle of a request, half without waiting for
// the answer. Whoever went without it finds his order under his key.
func disconnects(ctx context.Context, h *house, s *strangers) error {
	for who := range broken {
		conn, err := s.dial(h)
		if err != nil {
			return err
		}
		req := s.request(h, who, "gone", 0)
		if who%2 == 0 {
			req = req[:len(req)/2]
		} else {
			lines := []engine.Line{{SKU: saleSKU, Quantity: 1, Price: price}}
			s.rec.Begin(history.Who{Sale: h.sale.ID, Buyer: s.tickets[who].Buyer}, -who, history.Input{ // and never hears
				Ask: history.Order, Key: "gone", Body: engine.BodyHash(lines, price, currency), Units: 1,
			})
		}
		_, err = conn.Write(req)
		if tcp, ok := conn.(*net.TCPConn); ok && who%4 < 2 {
			_ = tcp.SetLinger(0)
		}
		if err := errors.Join(err, conn.Close()); err != nil {
			return err
		}
	}
	for who := 1; who < strange; who += 2 {
		s.ask(ctx, h, who, history.Wish{Key: "gone", Repeat: true})
	}
	return nil
}

// slowloris: connections that send a byte now and then must not keep others out.
// The door closes them; that the crowd went on is told by the rest of the run.
func slowloris(_ context.Context, h *house, s *strangers) error {
	var all sync.WaitGroup
	var kept atomic.Int64
	for who := range broken {
		all.Go(func() {
			conn, err := s.dial(h)
			if err != nil {
				return
			}
			defer func() { _ = conn.Close() }()
			req := s.request(h, who, "slow", 0)
			for i := range req {
				if _, err := conn.Write(req[i : i+1]); err != nil {
					return // closed, as it must be
				}
				time.Sleep(dripEvery)
			}
			kept.Add(1)
		})
	}
	all.Wait()
	if n := kept.Load(); n > 0 {
		return fmt.Errorf("the door heard %d requests to their end that took longer than %s", n, clientWait)
	}
	return nil
}

// oversized: a body above the limit is refused, and takes no unit.
func oversized(_ context.Context, h *house, s *strangers) error {
	for who := range strange {
		conn, err := s.dial(h)
		if err != nil {
			return err
		}
		_, _ = conn.Write(s.request(h, who, "large", tooLarge))
		var head [len("HTTP/1.1 202")]byte
		_, err = conn.Read(head[:])
		_ = conn.Close()
		if err == nil && string(head[:]) == "HTTP/1.1 202" {
			return fmt.Errorf("a body of more than %d bytes was accepted", tooLarge)
		}
	}
	return nil
}
