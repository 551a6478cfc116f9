package door

import (
	"errors"
	"log/slog"
	"net"
	"runtime/debug"
	"sync"
	"time"

	"github.com/valyala/fasthttp"
)

// Bounds of the listener.
const (
	MaxBody      = 4 << 10         // bytes of a request's body
	MaxHead      = 4 << 10         // bytes of its request line and header fields
	maxRead      = 4 * MaxBody     // of a body: what is above MaxBody is read to be refused politely
	ReadTimeout  = 2 * time.Second // for a whole request, from its first byte
	writeBuffer  = 2 << 10
	defaultConns = 50_000
	defaultIdle  = time.Minute
	defaultWrite = 5 * time.Second
)

// ServerOptions bound the listener. The zero value works.
type ServerOptions struct {
	MaxConns     int           // open connections; default 50,000
	IdleTimeout  time.Duration // of a connection between two requests; default 60 s
	WriteTimeout time.Duration // of a reply; default 5 s; streams hijack or set their own
	Logger       *slog.Logger
}

// NewServer returns a hardened server that passes to handle only requests which
// every proxy before it must read as we do; others get 400 and the end of their
// connection. It serves the whole listener: door, status and pages. A panic in
// handle is logged, and answered with 500.
func NewServer(handle fasthttp.RequestHandler, opt ServerOptions) *Server {
	if opt.MaxConns <= 0 {
		opt.MaxConns = defaultConns
	}
	if opt.IdleTimeout <= 0 {
		opt.IdleTimeout = defaultIdle
	}
	if opt.WriteTimeout <= 0 {
		opt.WriteTimeout = defaultWrite
	}
	if opt.Logger == nil {
		opt.Logger = slog.New(slog.DiscardHandler)
	}
	g := &guard{handle: handle, log: opt.Logger}
	return &Server{&fasthttp.Server{
		Handler:                      g.serve,
		ErrorHandler:                 refuseBroken,
		Concurrency:                  opt.MaxConns,
		ReadBufferSize:               MaxHead,
		WriteBufferSize:              writeBuffer,
		ReadTimeout:                  ReadTimeout,
		WriteTimeout:                 opt.WriteTimeout,
		IdleTimeout:                  opt.IdleTimeout,
		MaxRequestBodySize:           maxRead,
		DisablePreParseMultipartForm: true,
		NoDefaultServerHeader:        true,
		CloseOnShutdown:              true,
		SecureErrorLogMessage:        true,
		Logger:                       quiet{},
	}}
}

// quiet drops what fasthttp would log: errors of single connections, which any
// client can cause at any rate.
type quiet struct{}

func (quiet) Printf(string, ...any) {}

type guard struct {
	handle fasthttp.RequestHandler
	log    *slog.Logger
	heads  sync.Pool
}

// headKey is the user value under which a request carries its *head.
var headKey any = new(byte)

func (g *guard) serve(ctx *fasthttp.RequestCtx) {
	h, _ := g.heads.Get().(*head)
	if h == nil {
		h = new(head)
	}
	defer func() {
		if p := recover(); p != nil {
			g.log.Error("panic in a handler", "panic", p, "stack", string(debug.Stack()))
			ctx.ResetBody()
			writeProblem(ctx, broken)
			ctx.SetConnectionClose()
		}
	}()
	switch {
	case !h.read(&ctx.Request.Header):
		writeProblem(ctx, badRequest)
		ctx.SetConnectionClose()
	case len(ctx.Request.Body()) > MaxBody:
		writeProblem(ctx, tooLarge)
	default:
		ctx.SetUserValue(headKey, h)
		g.handle(ctx)
		ctx.RemoveUserValue(headKey)
	}
	*h = head{}
	g.heads.Put(h)
}

// headOf returns the head that the guard has read, or reads it where the handler
// is called without a guard.
func headOf(ctx *fasthttp.RequestCtx) (*head, bool) {
	if h, ok := ctx.UserValue(headKey).(*head); ok {
		return h, true
	}
	h := new(head)
	return h, h.read(&ctx.Request.Header)
}

// refuseBroken answers what fasthttp could not read; it closes the connection
// itself.
func refuseBroken(ctx *fasthttp.RequestCtx, err error) {
	var small *fasthttp.ErrSmallBuffer
	var timeout net.Error
	switch {
	case errors.Is(err, fasthttp.ErrBodyTooLarge):
		writeProblem(ctx, tooLarge)
	case errors.As(err, &small):
		writeProblem(ctx, headTooLarge)
	case errors.As(err, &timeout) && timeout.Timeout():
		writeProblem(ctx, tooSlow)
	default:
		writeProblem(ctx, badRequest)
	}
}
