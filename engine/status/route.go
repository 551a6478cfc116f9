package status

import (
	"strings"

	"github.com/valyala/fasthttp"
)

type routeID int

const (
	noRoute routeID = iota
	one             // /v1/orders/{id}
	events          // /v1/orders/{id}/events
	cancel          // /v1/orders/{id}/cancel
	mine            // /v1/sales/{id}/mine
	numRoutes
)

var methods = [numRoutes]string{
	one: fasthttp.MethodGet, events: fasthttp.MethodGet, cancel: fasthttp.MethodPost, mine: fasthttp.MethodGet,
}

// routeNames are labels of metrics.
var routeNames = [numRoutes]string{one: "order", events: "events", cancel: "cancel", mine: "mine"}

// route reads a path. The id is not looked at, but that it is one segment.
func route(path []byte) (routeID, string) {
	p := string(path)
	if rest, ok := strings.CutPrefix(p, "/v1/sales/"); ok {
		if id, ok := strings.CutSuffix(rest, "/mine"); ok && segment(id) {
			return mine, id
		}
		return noRoute, ""
	}
	id, ok := strings.CutPrefix(p, "/v1/orders/")
	if !ok {
		return noRoute, ""
	}
	r := one
	if of, ok := strings.CutSuffix(id, "/events"); ok {
		r, id = events, of
	} else if of, ok := strings.CutSuffix(id, "/cancel"); ok {
		r, id = cancel, of
	}
	if !segment(id) {
		return noRoute, ""
	}
	return r, id
}

func segment(s string) bool { return s != "" && strings.IndexByte(s, '/') < 0 }
