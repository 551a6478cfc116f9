package payment_test

import (
	"context"
	"net"
	"path/filepath"
	"testing"
	"time"

	"github.com/doorbuster/doorbuster/engine/postgres"
	"github.com/doorbuster/doorbuster/payment/provider"
	"github.com/doorbuster/doorbuster/payment/provider/sandbox"
)

// Every connection to PostgreSQL is cut, again and again, in the middle of
// whatever it does, commits included.
func TestRealConnectionsThatDie(t *testing.T) {
	t.Parallel()
	const n, cuts = 4000, 12
	p := provider.NewInstant()
	r := newSite(t, "instant", p)
	admin, err := postgres.Open(t.Context(), r.pool.Config().ConnString(), postgres.Options{MaxConns: 1})
	must(t, err)
	defer admin.Close()
	r.publish(t, r.envelopes(1, n))
	r.start(t)
	for range cuts {
		_, err := admin.Exec(t.Context(), `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
			WHERE datname = current_database() AND pid <> pg_backend_pid()`)
		must(t, err)
		time.Sleep(15 * time.Millisecond) // the cuts are to fall into the work, wherever
	}
	// An answer to a commit that was cut leaves orders leased to nobody: not waited for.
	deadline := time.Now().Add(30 * time.Second)
	for ended := 0; ended < n && time.Now().Before(deadline); {
		_, err := admin.Exec(t.Context(), `WITH a AS (UPDATE orders SET due_at = now() WHERE state = 2), b AS (UPDATE work SET due_at = now()) UPDATE tasks SET due_at = now()`)
		must(t, err)
		must(t, admin.QueryRow(t.Context(), `SELECT count(*) FROM orders WHERE state > 2`).Scan(&ended))
		time.Sleep(100 * time.Millisecond) // of a poll, bounded by the deadline
	}
	r.lawSix(t, p, r.atRest(t, n))
}

// The provider goes away in the middle and comes back with its ledger.
func TestRealProviderThatGoesAway(t *testing.T) {
	t.Parallel()
	const n = 1500
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	address, file := ln.Addr().String(), filepath.Join(t.TempDir(), "ledger")
	script := sandbox.Script{Seed: 3, DeclinePerMille: 30, ErrorStoredPerMille: 20, Latency: time.Millisecond}
	stop := running(t, func(ctx context.Context) error { return sandbox.Serve(ctx, ln, script, file) })
	p := provider.NewHTTP("http://" + address).WithTimeout(400 * time.Millisecond)
	t.Cleanup(p.Close)
	r := newSite(t, "sandbox", p)
	r.publish(t, r.envelopes(1, n))
	r.start(t)
	for deadline := time.Now().Add(20 * time.Second); r.figures(t).confirmed == 0 && time.Now().Before(deadline); {
	}
	stop()
	for range 5 {
		if f := r.figures(t); f.confirmed+f.cancelled == n {
			t.Error("everything ended while the provider was away")
		}
		time.Sleep(50 * time.Millisecond) // the provider is away for a while
	}
	ln, err = net.Listen("tcp", address)
	must(t, err)
	running(t, func(ctx context.Context) error { return sandbox.Serve(ctx, ln, script, file) })
	r.lawSix(t, p, r.atRest(t, n))
}
