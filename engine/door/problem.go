package door

import (
	"math/rand/v2"
	"strconv"

	"github.com/valyala/fasthttp"
)

// answer is what a request hears. The zero value is no answer yet.
type answer uint8

const (
	unanswered answer = iota

	// An order.
	accepted
	replayHeld
	replaySettled
	replayReleased

	// Refusals.
	notOpen
	saleClosed
	soldOut
	soldOutMayReturn
	overLimit
	overIdentity
	priceChanged
	mismatch
	badKey
	badBody
	badDuplicate
	badField
	badLines
	badSKU
	badQuantity
	badTotal
	badCurrency
	noTicket
	badTicket
	otherSale
	ticketExpired
	ticketEarly
	noSale
	noItem
	throttled

	// Try again.
	salePaused
	overloaded
	frozen
	outcomeUnknown

	// Of HTTP itself.
	badRequest
	tooLarge
	headTooLarge
	tooSlow
	badMethod
	broken

	numAnswers
)

// problem is a row of the table from answers to what HTTP says.
type problem struct {
	slug   string // of the type; "" is about:blank (RFC 9457 section 4.2.1)
	status int
	title  string
	detail string
	retry  int // seconds of Retry-After, up to twice of it at random; 0 is none
	extra  string

	body []byte // the whole, without the brace that ends it
	full []byte // the whole
}

// problems is by answer: one table from what is decided to what HTTP says.
var problems = [numAnswers]problem{
	accepted:       {slug: "accepted", status: 202},
	replayHeld:     {slug: "replayed", status: 202},
	replaySettled:  {slug: "replayed", status: 200},
	replayReleased: {slug: "replayed", status: 200},

	notOpen:          {slug: "not-open", status: 409, title: "Not open", detail: "The sale has not opened yet: ask again when it opens."},
	saleClosed:       {slug: "closed", status: 409, title: "Closed", detail: "The sale is over."},
	soldOut:          {slug: "sold-out", status: 409, title: "Sold out", detail: "There are fewer units than you asked for.", extra: `,"may_return":false`},
	soldOutMayReturn: {slug: "sold-out", status: 409, title: "Sold out", detail: "Every unit is taken, but not every one is paid for: some may return.", extra: `,"may_return":true`},
	overLimit:        {slug: "limit-reached", status: 409, title: "Limit reached", detail: "You would have more units than one buyer may have: ask for fewer."},
	overIdentity:     {slug: "limit-reached", status: 409, title: "Limit reached", detail: "An identity behind you would have more units than it may have: ask for fewer."},
	priceChanged:     {slug: "price-changed", status: 409, title: "Price changed", detail: "The total you sent is not the total of the present prices. Nothing was taken: look at the total, and order again with a new key."},

	mismatch:     {slug: "idempotency-mismatch", status: 422, title: "Idempotency-Key used before", detail: "Another order was asked for under this Idempotency-Key: use a new one for a new order."},
	badKey:       {slug: "invalid", status: 422, title: "Invalid", detail: "Idempotency-Key: want 1 to 64 printable ASCII characters."},
	badBody:      {slug: "invalid", status: 422, title: "Invalid", detail: "The body is not one JSON object of the form {\"lines\":[{\"sku\",\"quantity\"}],\"total\":{\"amount\",\"currency\"}}."},
	badDuplicate: {slug: "invalid", status: 422, title: "Invalid", detail: "The body has a key twice in one object: send each once."},
	badField:     {slug: "invalid", status: 422, title: "Invalid", detail: "The body has a key that is not known: send lines and total only."},
	badLines:     {slug: "invalid", status: 422, title: "Invalid", detail: "lines: want 1 to 8 different items."},
	badSKU:       {slug: "invalid", status: 422, title: "Invalid", detail: "sku: want 1 to 40 letters, digits and, after the first, any of . _ -"},
	badQuantity:  {slug: "invalid", status: 422, title: "Invalid", detail: "quantity: want a whole number from 1 to 1000 for each item."},
	badTotal:     {slug: "invalid", status: 422, title: "Invalid", detail: "total: want a whole number of minor units, from 0 to 1000000000000, and a currency."},
	badCurrency:  {slug: "invalid", status: 422, title: "Invalid", detail: "total: the currency is not the one of the sale: see GET /v1/sales/{id}."},

	noTicket:      {slug: "ticket-invalid", status: 401, title: "No ticket", detail: "Send your ticket as Authorization: Ticket <token>."},
	badTicket:     {slug: "ticket-invalid", status: 401, title: "Ticket invalid", detail: "The ticket is not one of ours: send it unchanged, or get another."},
	otherSale:     {slug: "ticket-invalid", status: 401, title: "Ticket of another sale", detail: "The ticket is for another sale: send the one for this sale."},
	ticketExpired: {slug: "ticket-invalid", status: 401, title: "Ticket expired", detail: "The ticket is no longer valid: get another."},
	ticketEarly:   {slug: "ticket-early", status: 403, title: "Too early for this ticket", detail: "The ticket is not valid yet: ask again at its time."},
	noSale:        {slug: "not-found", status: 404, title: "No such sale", detail: "There is no sale of this name: check the address."},
	noItem:        {slug: "not-found", status: 404, title: "No such item", detail: "The sale has no item of this SKU: see GET /v1/sales/{id}."},
	throttled:     {slug: "throttled", status: 429, title: "Too many requests", detail: "You ask too often: wait as long as Retry-After says.", retry: 1},

	salePaused:     {slug: "paused", status: 503, title: "Paused", detail: "The sale is paused and will go on: ask again after Retry-After.", retry: 2},
	overloaded:     {slug: "overloaded", status: 503, title: "Overloaded", detail: "Too many buyers at once. Nothing was taken: repeat with the same Idempotency-Key.", retry: 1},
	frozen:         {slug: "sale-frozen", status: 503, title: "Sale frozen", detail: "The sale is being brought back. Repeat with the same Idempotency-Key.", retry: 1},
	outcomeUnknown: {slug: "outcome-unknown", status: 503, title: "Outcome unknown", detail: "We do not know yet whether the order was taken. Repeat with the same Idempotency-Key and Idempotency-Replay: 1.", retry: 1},

	badRequest:   {status: 400, title: "Bad Request", detail: "The request cannot be read in one way only: send plain HTTP/1.1 with one Content-Length."},
	tooLarge:     {status: 413, title: "Content Too Large", detail: "The body is larger than 4096 bytes."},
	headTooLarge: {status: 431, title: "Request Header Fields Too Large", detail: "The request line and header fields are larger than 4096 bytes."},
	tooSlow:      {status: 408, title: "Request Timeout", detail: "The request did not arrive in time."},
	badMethod:    {status: 405, title: "Method Not Allowed", detail: "This address does not know the method: see Allow."},
	broken:       {status: 500, title: "Internal Server Error", detail: "Something broke on our side."},
}

func init() {
	for i := range problems {
		p := &problems[i]
		uri := "about:blank"
		if p.slug != "" {
			uri = "/problems/" + p.slug
		}
		p.body = []byte(`{"type":` + strconv.Quote(uri) + `,"title":` + strconv.Quote(p.title) +
			`,"status":` + strconv.Itoa(p.status) + `,"detail":` + strconv.Quote(p.detail) + p.extra)
		p.full = append(p.body[:len(p.body):len(p.body)], '}')
	}
}

var (
	problemJSON     = []byte("application/problem+json")
	plainJSON       = []byte("application/json")
	keyCacheControl = []byte("Cache-Control")
	noStore         = []byte("no-store")
	maxAge1         = []byte("public, max-age=1")
	keyRetryAfter   = []byte("Retry-After")
	keyAuthenticate = []byte("Www-Authenticate")
	ticketScheme    = []byte("Ticket")
	keyAllow        = []byte("Allow")
	seconds         = [...][]byte{[]byte("0"), []byte("1"), []byte("2"), []byte("3"), []byte("4")}
)

// writeHead sets status and header fields of an answer. It allocates nothing once
// the connection has answered before.
func writeHead(ctx *fasthttp.RequestCtx, a answer) {
	p := &problems[a]
	h := &ctx.Response.Header
	h.SetStatusCode(p.status)
	h.SetContentTypeBytes(problemJSON)
	h.SetCanonical(keyCacheControl, noStore)
	if p.retry > 0 {
		h.SetCanonical(keyRetryAfter, seconds[p.retry+rand.IntN(p.retry+1)])
	}
	if p.status == fasthttp.StatusUnauthorized {
		h.SetCanonical(keyAuthenticate, ticketScheme)
	}
}

// writeProblem answers with a problem that says nothing of its own.
func writeProblem(ctx *fasthttp.RequestCtx, a answer) {
	writeHead(ctx, a)
	ctx.Response.SetBodyRaw(problems[a].full)
}
