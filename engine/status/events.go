package status

import (
	"bufio"
	"encoding/json"
	"net"
	"time"

	"github.com/valyala/fasthttp"

	"github.com/doorbuster/doorbuster/engine"
)

// Bounds of a stream.
const (
	heartbeatEvery = 15 * time.Second // a comment, so that proxies keep the line and the dead are noticed
	streamFor      = 30 * time.Minute // then the browser comes again
	streamWrite    = 5 * time.Second  // for one event to be taken by the socket
)

// events streams the order's states: an "order" event with the JSON of Order at
// once and at each change, and an "end" event after a terminal one.
func (s *Status) events(ctx *fasthttp.RequestCtx, who asker, id engine.OrderID) {
	first, err := s.find(who, id)
	if err != nil {
		s.fail(ctx, "events", err)
		return
	}
	st, ok := s.hub.join(who, id)
	if !ok {
		write(ctx, manyStreams)
		return
	}
	h := &ctx.Response.Header
	h.SetContentType("text/event-stream")
	h.Set(fasthttp.HeaderCacheControl, "no-store")
	h.Set("X-Accel-Buffering", "no")
	ctx.Response.ImmediateHeaderFlush = true
	conn := ctx.Conn() // outlives the handler, as long as the stream is written
	ctx.SetBodyStreamWriter(func(w *bufio.Writer) {
		defer s.hub.leave(st)
		s.stream(&sink{w: w, conn: conn}, st, first)
	})
}

// stream writes events until the order is at its end, the line is dead, or the
// hub closes.
func (s *Status) stream(to *sink, st *stream, last Order) {
	beat, over := time.NewTicker(s.beat), time.NewTimer(streamFor)
	defer beat.Stop()
	defer over.Stop()
	to.retry()
	to.order(&last)
	for to.err == nil && !last.terminal() {
		select {
		case next := <-st.updates:
			if !same(&last, &next) {
				last = next
				to.order(&last)
			}
		case <-beat.C:
			to.comment()
		case <-over.C:
			return
		case <-s.hub.closing:
			return
		}
	}
	if to.err == nil {
		to.end()
	}
}

// sink writes server-sent events (WHATWG HTML, section 9.2) to one connection.
type sink struct {
	w    *bufio.Writer
	conn net.Conn
	err  error
}

func (k *sink) retry()   { k.put("retry: 2000\n\n") }
func (k *sink) comment() { k.put(": still here\n\n") }
func (k *sink) end()     { k.put("event: end\ndata: {}\n\n") }

func (k *sink) order(o *Order) {
	body, err := json.Marshal(o)
	if err != nil {
		panic("status: an order cannot be written as JSON: " + err.Error()) // its types are ours
	}
	k.put("event: order\ndata: " + string(body) + "\n\n")
}

// put writes and flushes. The server's own write deadline was set when the
// answer began and is long over: each event gets a new one.
func (k *sink) put(text string) {
	if k.err != nil {
		return
	}
	if k.err = k.conn.SetWriteDeadline(time.Now().Add(streamWrite)); k.err != nil {
		return
	}
	if _, k.err = k.w.WriteString(text); k.err == nil {
		k.err = k.w.Flush()
	}
}
