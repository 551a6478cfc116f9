package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/doorbuster/doorbuster/engine/audit"
	"github.com/doorbuster/doorbuster/engine/backing"
	"github.com/doorbuster/doorbuster/loadtest"
)

// asBinary makes this test binary the program: the demo starts its own binary.
const asBinary = "DOORBUSTER_TEST_AS_BINARY"

func TestMain(m *testing.M) {
	if os.Getenv(asBinary) != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

const (
	troubleUnits  = 6_000
	troubleBuyers = 30_000
	troubleMark   = troubleUnits / 4 // accepted orders after which the server dies
	troubleAway   = 5 * time.Second
	troubleLimit  = 3 * time.Minute
)

// syncBuffer is what a demo says, readable while it speaks.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string { s.mu.Lock(); defer s.mu.Unlock(); return s.b.String() }

// troubled is a demo on servers of its own.
func troubled(t *testing.T) *demo {
	t.Helper()
	t.Setenv(asBinary, "1")
	for _, name := range []string{"REDIS_URL", "AMQP_URL", "DATABASE_URL"} {
		t.Setenv(name, "") // servers that may be killed
	}
	said := new(syncBuffer)
	d := &demo{
		cmd: &DemoCmd{Units: troubleUnits, Buyers: troubleBuyers, Connections: 256},
		g:   &Globals{Dir: filepath.Join(t.TempDir(), "s"), LogLevel: "info", Stdout: said, Stderr: said},
	}
	t.Cleanup(func() {
		if err := d.stop(); err != nil {
			t.Errorf("stop: %v", err)
		}
		if d.services != nil {
			if err := d.services.Remove(context.Background()); err != nil {
				t.Errorf("remove: %v", err)
			}
		}
		if t.Failed() {
			t.Log(said.String())
			for _, name := range []string{"serve.log", "sandbox.log"} {
				b, _ := os.ReadFile(filepath.Join(d.g.Dir, name))
				t.Logf("%s:\n%s", name, b)
			}
		}
	})
	return d
}

// mustPass fails the test unless every law was checked and holds, all is sold
// and nothing was lost.
func mustPass(t *testing.T, r *audit.Report) {
	t.Helper()
	for i := range r.Laws {
		if l := &r.Laws[i]; l.Holds != audit.Holds {
			t.Errorf("law %d %s: %s: %s", l.Number, l.Name, l.Holds, l.Detail)
		}
	}
	if r.Verdict != audit.Pass || r.UnitsConfirmed != r.Units || r.Oversold != 0 || r.Stuck != 0 {
		t.Errorf("verdict %s, %d of %d units confirmed, oversold %d, stuck %d", r.Verdict, r.UnitsConfirmed, r.Units, r.Oversold, r.Stuck)
	}
}

// TestServerKilledInTheStorm kills each server once, in the middle of the storm,
// and brings it back 5 s later. Doors, workers and recovery stay up throughout;
// the sale goes on by itself, and the laws hold.
func TestServerKilledInTheStorm(t *testing.T) {
	if testing.Short() {
		t.Skip("starts and kills real servers")
	}
	for _, name := range []backing.Name{backing.Redis, backing.RabbitMQ, backing.PostgreSQL} {
		t.Run(string(name), func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), troubleLimit)
			defer cancel()
			d := troubled(t)
			var once sync.Once
			fault := make(chan error, 1)
			d.watch = func(s loadtest.Snapshot) {
				if s.Accepted >= troubleMark {
					once.Do(func() { go func() { fault <- killAndStart(ctx, d.services, name) }() })
				}
			}
			r, err := d.run(ctx)
			if err != nil {
				t.Fatal(err)
			}
			select {
			case err := <-fault:
				if err != nil {
					t.Fatalf("fault: %v", err)
				}
			case <-ctx.Done():
				t.Fatal("the server was never killed")
			}
			mustPass(t, r)
			t.Logf("accepted %d, cancelled %d, refused %d, %.1f s", r.Accepted, r.Cancelled, *r.Refused, r.Seconds)
		})
	}
}

func killAndStart(ctx context.Context, s *backing.Services, name backing.Name) error {
	if err := s.Kill(ctx, name); err != nil {
		return err
	}
	away := time.NewTimer(troubleAway)
	defer away.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-away.C:
	}
	return s.Start(ctx, name)
}
