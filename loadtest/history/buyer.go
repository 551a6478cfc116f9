package history

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"

	"github.com/doorbuster/doorbuster/engine"
)

const maxReply = 64 << 10 // bytes

// Buyer is one buyer who asks over several clients at once, under few keys, and
// so comes to see what others never do. Everything he hears is recorded.
type Buyer struct {
	Who    Who
	Ticket string
	URLs   []string // of doors; a client asks at all of them in turn
	Lines  []engine.Line
	Total  engine.Money
	Keys   int // Idempotency-Keys to choose from
	Rec    *Recorder
	HTTP   *http.Client // nil: http.DefaultClient

	mu     sync.Mutex
	orders []engine.OrderID // he has heard of
}

// Crowd sends so many clients of the buyer at once, each of which asks so often,
// and returns when all are done. Seeds choose what they ask.
func (b *Buyer) Crowd(ctx context.Context, clients, steps int, seed uint64) {
	var all sync.WaitGroup
	for client := range clients {
		all.Go(func() {
			dice := rand.New(rand.NewPCG(seed, uint64(client)))
			for range steps {
				b.act(ctx, client, dice)
			}
		})
	}
	all.Wait()
}

// act asks one thing: mostly for an order, sometimes for another basket under a
// key in use, sometimes after an order he has heard of.
func (b *Buyer) act(ctx context.Context, client int, dice *rand.Rand) {
	const of, orders, changes, reads = 100, 60, 8, 20 // the rest cancels
	n := dice.IntN(of)
	if n < orders+changes {
		b.Order(ctx, client, Wish{
			Key: fmt.Sprintf("key-%d", dice.IntN(b.Keys)), Changed: n >= orders, Repeat: dice.IntN(2) == 0, Door: dice.Int(),
		})
		return
	}
	id := b.any(dice)
	switch {
	case id == "":
	case n < orders+changes+reads:
		b.Read(ctx, client, id)
	default:
		b.Cancel(ctx, client, id)
	}
}

func (b *Buyer) any(dice *rand.Rand) engine.OrderID {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.orders) == 0 {
		return ""
	}
	return b.orders[dice.IntN(len(b.orders))]
}

// Wish is one request for an order.
type Wish struct {
	Key     string
	Changed bool // asks for one unit more than the buyer wants
	Repeat  bool // says that it is a repeat
	Door    int  // which of the URLs, counted round
}

// Order asks for an order once.
func (b *Buyer) Order(ctx context.Context, client int, w Wish) Output {
	lines, total := b.Lines, b.Total
	if w.Changed {
		lines = append([]engine.Line(nil), lines...)
		lines[0].Quantity++
		total.Amount += lines[0].Price
	}
	return b.ask(ctx, client, w.Door, call{
		in: Input{
			Ask: Order, Key: w.Key, Body: engine.BodyHash(lines, total.Amount, total.Currency), Units: engine.Units(lines), Repeat: w.Repeat,
		},
		method: http.MethodPost, path: "/v1/sales/" + string(b.Who.Sale) + "/orders", body: bodyOf(lines, total),
	})
}

// Read looks an order up.
func (b *Buyer) Read(ctx context.Context, client int, id engine.OrderID) Output {
	return b.ask(ctx, client, client, call{in: Input{Ask: Read, Order: id}, method: http.MethodGet, path: "/v1/orders/" + string(id)})
}

// Cancel wishes an order ended.
func (b *Buyer) Cancel(ctx context.Context, client int, id engine.OrderID) Output {
	return b.ask(ctx, client, client, call{in: Input{Ask: Cancel, Order: id}, method: http.MethodPost, path: "/v1/orders/" + string(id) + "/cancel"})
}

// call is one request.
type call struct {
	in           Input
	method, path string
	body         []byte
}

func bodyOf(lines []engine.Line, total engine.Money) []byte {
	type line struct {
		SKU      engine.SKU `json:"sku"`
		Quantity int64      `json:"quantity"`
	}
	b := struct {
		Lines []line       `json:"lines"`
		Total engine.Money `json:"total"`
	}{Total: total}
	for _, l := range lines {
		b.Lines = append(b.Lines, line{l.SKU, l.Quantity})
	}
	out, err := json.Marshal(b)
	if err != nil {
		panic(err) // strings and numbers can be written
	}
	return out
}

func (b *Buyer) ask(ctx context.Context, client, door int, c call) Output {
	req, err := http.NewRequestWithContext(ctx, c.method, b.URLs[door%len(b.URLs)]+c.path, bytes.NewReader(c.body))
	if err != nil {
		panic(err) // the URLs are the test's own
	}
	req.GetBody = nil // net/http would repeat it by itself, and we would not know
	req.Header.Set("Authorization", "Ticket "+b.Ticket)
	if c.in.Ask == Order {
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set("Idempotency-Key", c.in.Key)
	}
	if c.in.Repeat {
		req.Header.Set("Idempotency-Replay", "1")
	}
	end := b.Rec.Begin(b.Who, client, c.in)
	out := b.send(req)
	end(out)
	if out.Order != "" {
		b.mu.Lock()
		b.orders = append(b.orders, out.Order)
		b.mu.Unlock()
	}
	return out
}

// send hears the answer; whatever keeps it from coming is none.
func (b *Buyer) send(req *http.Request) Output {
	client := b.HTTP
	if client == nil {
		client = http.DefaultClient
	}
	resp, err := client.Do(req)
	if err != nil {
		return Output{}
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxReply))
	if err != nil {
		return Output{}
	}
	var r struct {
		Type     string         `json:"type"`
		Order    engine.OrderID `json:"order"`
		Status   any            `json:"status"` // a word in an order, a number in a problem
		Hold     string         `json:"hold"`
		Replayed bool           `json:"replayed"`
	}
	_ = json.Unmarshal(body, &r) // whatever stands between may have answered: then the status must do
	out := Output{
		Status: resp.StatusCode, Type: r.Type[strings.LastIndexByte(r.Type, '/')+1:], Order: r.Order, Hold: r.Hold, Replayed: r.Replayed,
	}
	if word, ok := r.Status.(string); ok {
		out.Type = word
	}
	return out
}
