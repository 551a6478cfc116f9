package status

import (
	"encoding/json"
	"math/rand/v2"
	"strconv"

	"github.com/valyala/fasthttp"

	"github.com/doorbuster/doorbuster/engine"
)

// problem is what a refusal says: RFC 9457, in the shape the door gives it.
type problem struct {
	Type   string         `json:"type"`
	Title  string         `json:"title"`
	Status int            `json:"status"`
	Detail string         `json:"detail"`
	Order  engine.OrderID `json:"order,omitempty"`

	retry int // seconds of Retry-After, up to twice of it at random; 0 is none
}

var (
	notKnown       = problem{Type: "/problems/ticket-invalid", Title: "Who are you?", Status: 401, Detail: "Send your ticket as Authorization: Ticket <token>, or a bearer token that has not expired."}
	noOrder        = problem{Type: "/problems/not-found", Title: "No such order", Status: 404, Detail: "You have no order of this id."}
	noSale         = problem{Type: "/problems/not-found", Title: "No such sale", Status: 404, Detail: "There is no sale of this name, or your ticket is for another."}
	badMethod      = problem{Type: "about:blank", Title: "Method Not Allowed", Status: 405, Detail: "This address does not know the method."}
	orderPending   = problem{Type: "/problems/order-pending", Title: "Order pending", Status: 409, Detail: "The order is accepted and on its way into the books. Cancel it again in a moment.", retry: 1}
	notCancellable = problem{Type: "/problems/not-cancellable", Title: "Not cancellable", Status: 409, Detail: "The order is at its end."}
	overloaded     = problem{Type: "/problems/overloaded", Title: "Overloaded", Status: 503, Detail: "Too many ask at once, or the books do not answer. Nothing was changed; ask again.", retry: 1}
	manyStreams    = problem{Type: "/problems/overloaded", Title: "Too many streams", Status: 503, Detail: "No more live streams can be served. Ask for the order itself now and then.", retry: 5}
	broken         = problem{Type: "about:blank", Title: "Internal Server Error", Status: 500, Detail: "Something broke on our side."}
)

func write(ctx *fasthttp.RequestCtx, p problem) { writeAbout(ctx, p, "") }

// writeAbout writes a problem that names an order.
func writeAbout(ctx *fasthttp.RequestCtx, p problem, order engine.OrderID) {
	p.Order = order
	if p.retry > 0 {
		ctx.Response.Header.Set(fasthttp.HeaderRetryAfter, strconv.Itoa(p.retry+rand.IntN(p.retry+1)))
	}
	writeJSON(ctx, p.Status, "application/problem+json", p)
}

func writeJSON(ctx *fasthttp.RequestCtx, status int, contentType string, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		panic("status: an answer cannot be written as JSON: " + err.Error()) // its types are ours
	}
	ctx.Response.Header.SetContentType(contentType)
	ctx.Response.Header.Set(fasthttp.HeaderCacheControl, "no-store")
	ctx.SetStatusCode(status)
	ctx.SetBody(body)
}
