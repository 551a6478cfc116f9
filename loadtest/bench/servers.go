package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"runtime"

	"github.com/valyala/fasthttp"
)

func cores() int { return runtime.NumCPU() }

// fixedReply is what the bare server answers: an accepted order, byte for byte as
// long as the door's.
const fixedReply = `{"order":"abcdefghijklmnopqrstuvwxyz","sale":"bench-12345678","status":"accepted","hold":"1.123456","accepted_at":"2026-01-02T03:04:05.678Z"}`

// Child runs one of the bench's own servers until ctx ends: `bench-child bare`
// answers every request with the same 202. It says on out where it listens. Run
// starts it; nobody else does.
func Child(ctx context.Context, args []string, out io.Writer) error {
	if len(args) != 1 || args[0] != "bare" {
		return fmt.Errorf("bench-child %v: want bare", args)
	}
	var lc net.ListenConfig
	ln, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	server := &fasthttp.Server{
		NoDefaultServerHeader: true, Logger: log.New(io.Discard, "", 0),
		Handler: func(ctx *fasthttp.RequestCtx) {
			ctx.SetStatusCode(fasthttp.StatusAccepted)
			ctx.SetContentType("application/json")
			ctx.Response.Header.Set("Cache-Control", "no-store")
			ctx.SetBodyString(fixedReply)
		},
	}
	fmt.Fprintf(out, "bare server at http://%s\n", ln.Addr())
	served := make(chan error, 1)
	go func() { served <- server.Serve(ln) }()
	select {
	case err := <-served:
		return err
	case <-ctx.Done():
	}
	return errors.Join(ln.Close(), <-served)
}
