package main

import (
	"context"
	"errors"
	"net/http"
	"net/http/pprof"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/valyala/fasthttp"

	"github.com/doorbuster/doorbuster/engine/door"
)

const headerTimeout = 5 * time.Second // of a request to the metrics listener

// serveHTTP serves door and status on one listener, one origin. When ctx ends it
// takes no new connections and lets the requests in hand finish.
func (p *program) serveHTTP(ctx context.Context) error {
	if p.listener == nil {
		<-ctx.Done()
		return nil
	}
	server := door.NewServer(p.route, door.ServerOptions{MaxConns: p.cmd.MaxConns, Logger: p.log})
	served := make(chan error, 1)
	go func() { served <- server.Serve(p.listener) }()
	select {
	case err := <-served:
		return err
	case <-ctx.Done():
	}
	drain, cancel := p.drainContext()
	defer cancel()
	err := server.ShutdownWithContext(drain)
	if errors.Is(err, context.DeadlineExceeded) {
		p.log.Warn("connections were still open at the end of the drain")
		err = nil
	}
	return errors.Join(err, <-served)
}

// route asks each role in turn whether the request is its own.
func (p *program) route(ctx *fasthttp.RequestCtx) {
	for _, handle := range p.routes {
		if handle(ctx) {
			return
		}
	}
	ctx.Response.Header.Set("Cache-Control", "no-store")
	ctx.SetStatusCode(fasthttp.StatusNotFound)
	ctx.SetContentType("application/problem+json")
	ctx.SetBodyString(`{"type":"/problems/not-found","title":"Not found","status":404,"detail":"There is no such route."}`)
}

// serveMetrics serves what operators and Prometheus read, on a port of its own.
func (p *program) serveMetrics(ctx context.Context) error {
	if p.metrics == nil {
		<-ctx.Done()
		return nil
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(p.reg, promhttp.HandlerOpts{Registry: p.reg}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("ok\n")) })
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	server := &http.Server{Handler: mux, ReadHeaderTimeout: headerTimeout}
	served := make(chan error, 1)
	go func() { served <- server.Serve(p.metrics) }()
	select {
	case err := <-served:
		return err
	case <-ctx.Done():
	}
	if err := server.Close(); err != nil {
		return err
	}
	if err := <-served; !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
