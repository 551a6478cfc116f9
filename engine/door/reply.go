package door

import (
	"strconv"
	"time"

	"github.com/valyala/fasthttp"

	"github.com/doorbuster/doorbuster/engine"
)

var methodPost = []byte("POST")

// refuse answers with a problem that says nothing of its own, and counts it.
func (d *Door) refuse(ctx *fasthttp.RequestCtx, a answer, route int) {
	d.metrics.answers[route][a].Inc()
	writeProblem(ctx, a)
}

// reply answers an order request. What names the order, the limit or the total is
// made in the request's own buffer; the rest is ready.
func (d *Door) reply(ctx *fasthttp.RequestCtx, r *request, a answer) {
	d.metrics.answers[routeOrder][a].Inc()
	writeHead(ctx, a)
	switch a {
	case accepted, replayHeld, replaySettled, replayReleased:
		ctx.Response.Header.SetContentTypeBytes(plainJSON)
		r.out = appendOrder(r.out[:0], r, a)
	case outcomeUnknown:
		r.out = append(append(r.out[:0], problems[a].body...), `,"order":"`...)
		r.out = append(append(r.out, r.id[:]...), `"}`...)
	case overLimit:
		r.out = appendLimit(append(r.out[:0], problems[a].body...), r.verdict.LimitBuyer)
	case overIdentity:
		r.out = appendLimit(append(r.out[:0], problems[a].body...), r.verdict.LimitIdentity)
	case priceChanged:
		r.out = appendTotal(append(r.out[:0], problems[a].body...), r)
	default:
		ctx.Response.SetBodyRaw(problems[a].full)
		return
	}
	ctx.Response.SetBody(r.out)
	if a == accepted {
		d.metrics.accept.Observe(secondsOf(d.clock() - r.began))
	}
}

func appendLimit(b []byte, limit int64) []byte {
	b = append(b, `,"limit":`...)
	b = strconv.AppendInt(b, limit, 10)
	return append(b, '}')
}

// appendTotal says what the basket costs now.
func appendTotal(b []byte, r *request) []byte {
	if total, err := engine.Total(r.lines[:r.n]); err == nil {
		b = append(b, `,"total":{"amount":`...)
		b = strconv.AppendInt(b, total, 10)
		b = append(b, `,"currency":"`...)
		b = append(b, r.wish.currency...)
		b = append(b, `"}`...)
	}
	return append(b, '}')
}

var statuses = [numAnswers]string{
	accepted: "accepted", replayHeld: "accepted", replaySettled: "confirmed", replayReleased: "cancelled",
}

// appendOrder appends the body that tells a buyer of his order.
func appendOrder(b []byte, r *request, a answer) []byte {
	b = append(b, `{"order":"`...)
	b = append(b, r.id[:]...)
	b = append(b, `","sale":"`...)
	b = append(b, r.claims.Sale...)
	b = append(b, `","status":"`...)
	b = append(b, statuses[a]...)
	b = append(b, `","hold":"`...)
	b = strconv.AppendInt(b, r.verdict.Hold.Epoch, 10)
	b = append(b, '.')
	b = strconv.AppendInt(b, r.verdict.Hold.Seq, 10)
	b = append(b, '"')
	if r.at > 0 {
		b = append(b, `,"accepted_at":"`...)
		b = appendTime(b, r.at)
		b = append(b, '"')
	}
	if a != accepted {
		b = append(b, `,"replayed":true`...)
	}
	return append(b, '}')
}

// appendTime appends Unix milliseconds as RFC 3339 in UTC, to the millisecond.
func appendTime(b []byte, ms int64) []byte {
	return time.UnixMilli(ms).UTC().AppendFormat(b, "2006-01-02T15:04:05.000Z")
}
