package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/pprof"
	"time"

	"github.com/prometheus/client_golang/prometheus"
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
	return serveUntil(ctx, p.metrics, mux)
}

// serveUntil serves until ctx ends or the listener fails.
func serveUntil(ctx context.Context, ln net.Listener, handler http.Handler) error {
	server := &http.Server{Handler: handler, ReadHeaderTimeout: headerTimeout}
	served := make(chan error, 1)
	go func() { served <- server.Serve(ln) }()
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

// serveRegistry serves a registry's metrics at addr until stop is called; it
// serves nothing if addr is empty.
func serveRegistry(ctx context.Context, reg *prometheus.Registry, addr string) (stop func(), err error) {
	if addr == "" {
		return func() {}, nil
	}
	ln, err := (&net.ListenConfig{}).Listen(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("metrics: %w (another address: --metrics; none: --metrics=)", err)
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(reg, promhttp.HandlerOpts{Registry: reg}))
	own, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = serveUntil(own, ln, mux) // without it the audit goes on
	}()
	return func() { cancel(); <-ended }, nil
}
