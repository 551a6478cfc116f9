package sandbox

import (
	"bufio"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/doorbuster/doorbuster/engine"
	"github.com/doorbuster/doorbuster/payment/provider"
)

type server struct {
	script  Script
	book    *book
	closing chan struct{}

	mu  sync.Mutex
	met map[string]struct{} // operation and key whose fault has happened; faulty ones only
}

func (s *server) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/charges", s.authorise)
	mux.HandleFunc("GET /v1/charges/{key}", s.lookup)
	mux.HandleFunc("POST /v1/charges/{key}/capture", s.capture)
	mux.HandleFunc("POST /v1/charges/{key}/void", s.void)
	mux.HandleFunc("POST /v1/charges/{key}/refunds", s.refund)
	mux.HandleFunc("GET /ledger", s.ledger)
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
	return mux
}

func (s *server) authorise(w http.ResponseWriter, r *http.Request) {
	in, ok := read(w, r)
	if !ok {
		return
	}
	req := provider.Request{
		Key: in.Key, Order: engine.OrderID(in.Order), Buyer: engine.BuyerID(in.Buyer),
		Amount: engine.Money{Amount: in.Amount, Currency: in.Currency},
	}
	if !clean(in.Key) || !clean(in.Order) || in.Amount < 0 || in.Amount > engine.MaxAmount || engine.ValidateCurrency(in.Currency) != nil {
		http.Error(w, "key, order, amount or currency", http.StatusBadRequest)
		return
	}
	s.scripted(w, r, "authorise "+in.Key, func() (provider.Charge, error) {
		return s.book.authorise(req, s.script.Declines(in.Key))
	})
}

func (s *server) lookup(w http.ResponseWriter, r *http.Request) {
	s.wait(r, s.script.Latency)
	c, known := s.book.lookup(r.PathValue("key"))
	if !known {
		reply(w, c, provider.ErrNotFound)
		return
	}
	reply(w, c, nil)
}

func (s *server) capture(w http.ResponseWriter, r *http.Request) {
	in, ok := read(w, r)
	if !ok {
		return
	}
	key := r.PathValue("key")
	s.scripted(w, r, "capture "+key, func() (provider.Charge, error) {
		if s.script.RefusesCapture(key) {
			return provider.Charge{}, provider.ErrRefused
		}
		return s.book.capture(key, engine.Money{Amount: in.Amount, Currency: in.Currency})
	})
}

func (s *server) void(w http.ResponseWriter, r *http.Request) {
	if _, ok := read(w, r); !ok {
		return
	}
	key := r.PathValue("key")
	if !clean(key) {
		http.Error(w, "key", http.StatusBadRequest)
		return
	}
	s.scripted(w, r, "void "+key, func() (provider.Charge, error) { return s.book.void(key) })
}

func (s *server) refund(w http.ResponseWriter, r *http.Request) {
	in, ok := read(w, r)
	if !ok {
		return
	}
	if !clean(in.RefundKey) {
		http.Error(w, "refund_key", http.StatusBadRequest)
		return
	}
	s.wait(r, s.script.Latency)
	c, err := s.book.refund(r.PathValue("key"), in.RefundKey, engine.Money{Amount: in.Amount, Currency: in.Currency})
	reply(w, c, err)
}

// scripted does what the script says to this call. The name is operation and key.
func (s *server) scripted(w http.ResponseWriter, r *http.Request, name string, do func() (provider.Charge, error)) {
	s.wait(r, s.script.Latency)
	switch s.next(name) {
	case throttled:
		w.Header().Set("Retry-After", "1")
		w.WriteHeader(http.StatusTooManyRequests)
	case errorLost:
		w.WriteHeader(http.StatusServiceUnavailable)
	case errorStored:
		_, _ = do()
		w.WriteHeader(http.StatusInternalServerError)
	case timeoutLost:
		s.drop(r)
	case timeoutStored:
		_, _ = do()
		s.drop(r)
	default:
		c, err := do()
		reply(w, c, err)
	}
}

// next returns the fault of the first call, and none at a repeat.
func (s *server) next(name string) fate {
	f := s.script.fateOf(name)
	if f == fine {
		return fine
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, again := s.met[name]; again {
		return fine
	}
	s.met[name] = struct{}{}
	return f
}

// drop holds the call and then closes its connection without an answer.
func (s *server) drop(r *http.Request) {
	s.wait(r, s.script.Hang)
	panic(http.ErrAbortHandler)
}

func (s *server) wait(r *http.Request, d time.Duration) {
	if d <= 0 {
		return
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-r.Context().Done():
	case <-s.closing:
	}
}

// ledger streams the book. The count in the trailer tells the reader that he has
// all of it.
func (s *server) ledger(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/x-ndjson")
	w.Header().Set("Trailer", provider.LedgerCount)
	buf := bufio.NewWriter(w)
	cs := s.book.all()
	for i := range cs {
		line, err := json.Marshal(provider.ToWire(&cs[i]))
		if err != nil {
			return // no trailer: the reader knows that it is not whole
		}
		if _, err := buf.Write(append(line, '\n')); err != nil {
			return
		}
	}
	if buf.Flush() == nil {
		w.Header().Set(provider.LedgerCount, strconv.Itoa(len(cs)))
	}
}

func read(w http.ResponseWriter, r *http.Request) (in provider.Wire, ok bool) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBodyBytes))
	if err == nil {
		err = json.Unmarshal(body, &in)
	}
	if err != nil {
		http.Error(w, "body: "+err.Error(), http.StatusBadRequest)
		return in, false
	}
	return in, true
}

func reply(w http.ResponseWriter, c provider.Charge, err error) {
	switch {
	case err == nil:
		body, err := json.Marshal(provider.ToWire(&c))
		if err != nil {
			http.Error(w, "the charge cannot be written", http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(body) // a caller that has gone looks up
	case errors.Is(err, provider.ErrNotFound):
		http.Error(w, "no such charge", http.StatusNotFound)
	case errors.Is(err, provider.ErrRefused):
		http.Error(w, err.Error(), http.StatusConflict)
	case errors.Is(err, provider.ErrMismatch):
		http.Error(w, err.Error(), http.StatusUnprocessableEntity)
	case errors.Is(err, errEvent):
		http.Error(w, err.Error(), http.StatusBadRequest)
	default:
		http.Error(w, "the ledger cannot be written", http.StatusInternalServerError)
	}
}
