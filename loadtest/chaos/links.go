package chaos

import (
	"context"
	"fmt"
	"net/url"
	"time"

	"github.com/doorbuster/doorbuster/engine/backing"
	"github.com/doorbuster/doorbuster/loadtest/proxy"
)

// links are those that carry a sale. The worker's to Redis is not among them: it
// carries nothing but orders of an older epoch that are taken again, see retake.go.
var links = []link{
	crowdLink,
	{door, string(backing.Redis)},
	{door, string(backing.RabbitMQ)},
	{relay, string(backing.Redis)},
	{relay, string(backing.RabbitMQ)},
	{relay, string(backing.PostgreSQL)},
	{worker, string(backing.RabbitMQ)},
	{worker, string(backing.PostgreSQL)},
	{worker, provider},
	{recovery, string(backing.Redis)},
	{recovery, string(backing.RabbitMQ)},
	{recovery, string(backing.PostgreSQL)},
}

// toxic is a toxic as a fault.
type toxic struct {
	fault string
	is    proxy.Toxic
	delay time.Duration
}

// toxics are what a link can suffer.
var toxics = []toxic{
	{"50ms", proxy.Slow, 50 * time.Millisecond},
	{"500ms", proxy.Slow, 500 * time.Millisecond},
	{"blackhole", proxy.Blackhole, 0},
	{"reset", proxy.Resetting, 0},
	{"half-open", proxy.HalfOpen, 0},
}

// sick is how long a link suffers.
var sick = span{1500 * time.Millisecond, 4 * time.Second}

func linkCells() (cells []*Cell) {
	for _, l := range links {
		for _, t := range toxics {
			cells = append(cells, &Cell{
				Component: l.String(), Fault: t.fault, kind: "link", link: l, hold: sick,
				strike: func(_ context.Context, h *house) (string, error) {
					h.memory["hits"] = h.proxy.Hits()
					h.proxy.Set(t.is, t.delay)
					return "", nil
				},
				heal: healLink,
			})
		}
	}
	return append(cells, retakeCells()...)
}

func healLink(_ context.Context, h *house) (string, error) {
	before, struck := h.memory["hits"].(int64)
	h.proxy.Set(proxy.Clean, 0)
	if !struck {
		return "", nil
	}
	if met := h.proxy.Hits() - before; met > 0 {
		return fmt.Sprintf("%d connections and reads met the toxic", met), nil
	}
	return "", unproven("nothing passed the link meanwhile")
}

func hostOf(rawURL string) string {
	u, err := url.Parse(rawURL)
	if err != nil {
		return ""
	}
	return u.Host
}
