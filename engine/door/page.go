package door

import (
	"strconv"

	"github.com/valyala/fasthttp"

	"github.com/doorbuster/doorbuster/engine"
)

// show answers GET /v1/sales/{id}.
func (d *Door) show(ctx *fasthttp.RequestCtx, id []byte) {
	if !ctx.IsGet() && !ctx.IsHead() {
		ctx.Response.Header.SetCanonical(keyAllow, methodsRead)
		d.refuse(ctx, badMethod, routeShow)
		return
	}
	_, v, a := d.use(id, d.clock(), false)
	if a != unanswered {
		d.refuse(ctx, a, routeShow)
		return
	}
	d.metrics.answers[routeShow][unanswered].Inc()
	h := &ctx.Response.Header
	h.SetContentTypeBytes(plainJSON)
	h.SetCanonical(keyCacheControl, maxAge1)
	ctx.Response.SetBodyRaw(v.page)
}

var methodsRead = []byte("GET, HEAD")

// pageSize is what a page of so many items takes at most, or nearly.
func pageSize(items int) int { return 320 + 180*items }

// stateOf names the state of a sale as the API does.
func stateOf(v *view, lost bool) string {
	switch {
	case v.State == engine.SaleClosed, v.Now >= v.Closes:
		return "closed"
	case v.Frozen, lost:
		return "frozen"
	case v.State == engine.SalePaused:
		return "paused"
	case v.Now < v.Opens:
		return "scheduled"
	}
	return "open"
}

// appendPage appends what GET says of a sale; lost says that the slot has not
// answered for longer than a lease. Times are RFC 3339 in UTC, amounts in minor
// units, now is Redis' clock.
func appendPage(b []byte, sale engine.SaleID, v *view, lost bool) []byte {
	b = append(b, `{"sale":"`...)
	b = append(b, sale...)
	b = append(b, `","state":"`...)
	b = append(b, stateOf(v, lost)...)
	b = append(b, `","opens":"`...)
	b = appendTime(b, v.Opens)
	b = append(b, `","closes":"`...)
	b = appendTime(b, v.Closes)
	b = append(b, `","now":"`...)
	b = appendTime(b, v.Now)
	b = append(b, `","currency":"`...)
	b = append(b, v.Currency...)
	b = appendField(b, `","limit":`, v.LimitBuyer)
	b = appendField(b, `,"version":`, v.Version)
	b = append(b, `,"items":[`...)
	for i := range v.Items {
		it := &v.Items[i]
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, `{"sku":"`...)
		b = append(b, it.SKU...)
		b = appendField(b, `","price":`, it.Price)
		b = appendField(b, `,"units":`, it.Units)
		b = appendField(b, `,"available":`, it.Available)
		b = appendField(b, `,"held":`, it.Held)
		b = appendField(b, `,"sold":`, it.Sold)
		b = append(b, '}')
	}
	return append(b, `]}`...)
}

func appendField(b []byte, name string, n int64) []byte {
	b = append(b, name...)
	return strconv.AppendInt(b, n, 10)
}
