package history

import (
	"fmt"
	"math"
	"sync"
	"time"

	"github.com/doorbuster/doorbuster/engine"
)

// Ask is what a request is for.
type Ask byte

// The requests.
const (
	Order   Ask = iota // POST /v1/sales/{id}/orders
	Read               // GET /v1/orders/{id}
	Cancel             // POST /v1/orders/{id}/cancel
	Restock            // units added to the buyer's own item, by an operator: see Rules.Stock
)

// String names the request.
func (a Ask) String() string {
	names := [...]string{"order", "read", "cancel", "restock"}
	if int(a) < len(names) {
		return names[a]
	}
	return "unknown"
}

// Who is the buyer of a sale whose history it is.
type Who struct {
	Sale  engine.SaleID
	Buyer engine.BuyerID
}

// Input is what was asked.
type Input struct {
	Ask    Ask
	Key    string         // Order: the Idempotency-Key
	Body   uint64         // Order: engine.BodyHash
	Units  int64          // Order, Restock
	Repeat bool           // Order: sent with Idempotency-Replay
	Order  engine.OrderID // Read, Cancel
}

// Output is what was heard.
type Output struct {
	Status   int            // HTTP; 0: no answer
	Type     string         // of an order its status ("accepted", "reserved", "paying", "confirmed", "cancelled"), else the problem's type ("sold-out")
	Order    engine.OrderID // "" if none was named
	Hold     string         // epoch.seq; "" if not known
	Replayed bool
}

// open tells whether the answer leaves open what became of the request.
func (o *Output) open() bool {
	switch o.Type {
	case "overloaded", "paused":
		return false // said before anything is taken
	}
	return o.Status == 0 || o.Status >= 500
}

// never is the end of a request that may still take effect.
const never = math.MaxInt64

// Op is one request and its answer. Call and Return are on one clock, in
// nanoseconds or as mere numbers.
type Op struct {
	Who    Who
	Client int // of the buyer: 0, 1, …
	Input  Input
	Output Output
	Call   int64
	Return int64
}

// String is one line for people.
func (o *Op) String() string {
	in := fmt.Sprintf("order %.26s", o.Input.Order)
	switch o.Input.Ask {
	case Order:
		in = fmt.Sprintf("key %s body %x units %d repeat %t", o.Input.Key, o.Input.Body, o.Input.Units, o.Input.Repeat)
	case Restock:
		in = fmt.Sprintf("units %d", o.Input.Units)
	}
	return fmt.Sprintf("[%d, %d] client %d %s %s: %d %s order %s hold %s replayed %t",
		o.Call, o.Return, o.Client, o.Input.Ask, in, o.Output.Status, o.Output.Type, o.Output.Order, o.Output.Hold, o.Output.Replayed)
}

// Recorder notes requests as they are sent and answered. Safe for use by many
// goroutines.
type Recorder struct {
	began time.Time
	mu    sync.Mutex
	ops   []Op
}

// NewRecorder returns a recorder whose clock begins now.
func NewRecorder() *Recorder { return &Recorder{began: time.Now()} }

// Begin notes that a request is about to be sent; call the function it returns,
// once, when the answer came or was given up. A request that is never ended is
// one without an answer.
func (r *Recorder) Begin(who Who, client int, in Input) (end func(Output)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	i := len(r.ops)
	// The clock is read under the lock, so that calls stand in their order.
	r.ops = append(r.ops, Op{Who: who, Client: client, Input: in, Call: int64(time.Since(r.began)), Return: never})
	return func(out Output) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.ops[i].Output, r.ops[i].Return = out, int64(time.Since(r.began))
	}
}

// Ops returns what was noted so far.
func (r *Recorder) Ops() []Op {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]Op(nil), r.ops...)
}
