package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/doorbuster/doorbuster/engine/backing"
	"github.com/doorbuster/doorbuster/loadtest"
)

// asBinary makes this test binary the program: the tests run its commands as
// processes, and the demo starts its own binary.
const asBinary = "DOORBUSTER_TEST_AS_BINARY"

const (
	estateUp   = 2 * time.Minute
	commandEnd = time.Minute
)

func TestMain(m *testing.M) {
	if os.Getenv(asBinary) != "" {
		main()
		return
	}
	code := m.Run()
	if err := theEstate.remove(); err != nil {
		os.Stderr.WriteString("remove the tests' servers: " + err.Error() + "\n")
		code = 1
	}
	os.Exit(code)
}

// estate is servers of the tests' own that may be killed, and the directory of
// keys and logs beside them. The tests that use it run one after another.
type estate struct {
	once     sync.Once
	err      error
	dir      string
	said     syncBuffer
	services *backing.Services
}

var theEstate estate

// serverURLs are the variables that would lead a command to other servers.
var serverURLs = []string{"REDIS_URL", "AMQP_URL", "DATABASE_URL"}

// onEstate brings the servers up once and returns the globals of a command on
// them. What runs here or in a child until the test ends sees no other servers.
func onEstate(t *testing.T) *Globals {
	t.Helper()
	if testing.Short() {
		t.Skip("starts real servers")
	}
	alone(t)
	e := &theEstate
	e.once.Do(func() {
		if e.dir, e.err = os.MkdirTemp("", "doorbuster-test-"); e.err != nil { //nolint:usetesting // it outlives the test
			return
		}
		ctx, cancel := context.WithTimeout(context.Background(), estateUp)
		defer cancel()
		e.services, e.err = backing.Up(ctx, backing.Config{Dir: e.dir, Progress: &e.said})
	})
	if e.err != nil {
		t.Fatalf("bring up the servers: %v\n%s", e.err, e.said.String())
	}
	return &Globals{Dir: e.dir, LogLevel: "info", Stdout: new(syncBuffer), Stderr: new(syncBuffer)}
}

// alone hides the servers that the environment names and makes children of this
// binary the program.
func alone(t *testing.T) {
	t.Helper()
	t.Setenv(asBinary, "1")
	t.Setenv("GORACE", "atexit_sleep_ms=0") // else every command takes a second more
	for _, name := range serverURLs {
		t.Setenv(name, "")
	}
}

func (e *estate) remove() error {
	if e.dir == "" {
		return nil
	}
	var err error
	if e.services != nil {
		ctx, cancel := context.WithTimeout(context.Background(), estateUp)
		defer cancel()
		err = e.services.Remove(ctx)
	}
	return errors.Join(err, os.RemoveAll(e.dir))
}

// syncBuffer is what somebody says, readable while he speaks.
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

// said is what a command said, and its exit status.
type said struct {
	code     int
	out, err string
}

// command runs a command of the program as a process, to its end.
func command(t *testing.T, g *Globals, args ...string) said {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), commandEnd)
	defer cancel()
	var out, errs bytes.Buffer
	cmd := exec.CommandContext(ctx, self, append([]string{"--dir", g.Dir}, args...)...)
	cmd.Stdout, cmd.Stderr = &out, &errs
	var exit *exec.ExitError
	if err := cmd.Run(); err != nil && !errors.As(err, &exit) {
		t.Fatalf("%v: %v", args, err)
	}
	return said{cmd.ProcessState.ExitCode(), out.String(), errs.String()}
}

// must runs a command that has to succeed, and returns what it printed.
func must(t *testing.T, g *Globals, args ...string) string {
	t.Helper()
	s := command(t, g, args...)
	if s.code != 0 {
		t.Fatalf("%v: exit status %d: %s%s", args, s.code, s.out, s.err)
	}
	return s.out
}

// start starts a child that is stopped with the test; its log is shown if the
// test failed.
func start(t *testing.T, g *Globals, s spec) *child {
	t.Helper()
	c, err := startChild(t.Context(), g, s)
	t.Cleanup(func() {
		if err := c.stop(); err != nil {
			t.Errorf("stop: %v", err)
		}
		showLog(t, g, s.name)
	})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func showLog(t *testing.T, g *Globals, name string) {
	t.Helper()
	if !t.Failed() {
		return
	}
	const most = 20 << 10 // bytes of its end
	b, _ := os.ReadFile(filepath.Join(g.Dir, name+".log"))
	t.Logf("%s.log:\n%s", name, b[max(0, len(b)-most):])
}

// serve starts a server on ports of its own, and returns its URLs.
func serve(t *testing.T, g *Globals, name string, flags ...string) (*child, servingAt) {
	t.Helper()
	var at servingAt
	args := append([]string{"serve", "--listen", "127.0.0.1:0", "--metrics", "127.0.0.1:0"}, flags...)
	return start(t, g, spec{name: name, ready: &at, args: args}), at
}

// mint mints Count tickets of a Sale, of buyers PREFIX1, PREFIX2, …
func mint(t *testing.T, g *Globals, c TicketMintCmd) []loadtest.Ticket {
	t.Helper()
	file := filepath.Join(t.TempDir(), "tickets")
	c.Out, c.From, c.For = file, -time.Minute, time.Hour
	if err := c.Run(t.Context(), &Globals{Dir: g.Dir, Stdout: new(syncBuffer)}); err != nil {
		t.Fatal(err)
	}
	tickets, err := readTickets(file)
	if err != nil || len(tickets) != c.Count {
		t.Fatalf("%d tickets: %v", len(tickets), err)
	}
	return tickets
}

// saleFile writes a sale file and returns its path.
func saleFile(t *testing.T, lines ...string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "sale.yaml")
	if err := os.WriteFile(path, []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// until asks again until done says so, for things that give no sign of their own.
func until(ctx context.Context, t *testing.T, what string, done func() bool) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !done() {
		select {
		case <-ctx.Done():
			t.Fatalf("%s: %v", what, ctx.Err())
		case <-tick.C:
		}
	}
}
