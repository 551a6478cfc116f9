package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/doorbuster/doorbuster/engine"
	"github.com/doorbuster/doorbuster/engine/control"
)

// The doors of crash tests come back at the address they had, so it must not be one
// that Linux hands out to outgoing connections (from 32768 on), nor of the servers
// (engine/backing: from 20000 on).
const (
	firstDoorPort = 17200
	lastDoorPort  = 19999
	doorPortTries = 100
)

// crashRoles are the processes of a stack, one each.
var crashRoles = []string{roleRecovery, roleRelay, roleWorker, roleDoor}

// crashStack is one installation on the tests' servers, with a database and queues
// of its own and a process for each role, of a binary that has the failpoints.
// For one goroutine at a time, but for put.
type crashStack struct {
	g       *Globals
	name    string
	exe     string
	b       Backends
	env     []string
	listen  string // of the door
	sandbox string // URL
	started [len(rolesOfStack{})]int
	procs   rolesOfStack
}

// rolesOfStack holds a process for each of crashRoles, by its index: goroutines that
// put different ones do not meet.
type rolesOfStack [4]struct {
	c     *child
	armed bool
}

// buildFailpoints builds the program with its failpoints.
func buildFailpoints(t *testing.T) string {
	t.Helper()
	exe := filepath.Join(t.TempDir(), "doorbuster")
	cmd := exec.CommandContext(t.Context(), "go", "build", "-buildvcs=false", "-tags", "failpoint", "-o", exe, ".")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build with failpoints: %v\n%s", err, out)
	}
	return exe
}

// open makes the stack's database, starts its payment provider and finds its door a
// place. Its other processes, which whole starts, end with the test.
func (s *crashStack) open(t *testing.T) {
	t.Helper()
	b, err := s.g.backends()
	if err != nil {
		t.Fatal(err)
	}
	b.Postgres = newDatabase(t, b.Postgres, s.name)
	s.b, s.listen = b, doorAddress(t)
	s.env = []string{
		"REDIS_URL=" + b.Redis, "AMQP_URL=" + b.AMQP, "DATABASE_URL=" + b.Postgres, "DOORBUSTER_QUEUE_PREFIX=" + s.prefix(),
	}
	var at servingAt
	start(t, s.g, spec{name: s.name + "-sandbox", exe: s.exe, ready: &at, args: []string{
		"sandbox", "--listen", "127.0.0.1:0", "--ledger", filepath.Join(t.TempDir(), "ledger"),
		"--declines", "30", "--errors-stored", "20", "--errors-lost", "20",
	}})
	s.sandbox = at.URL
	t.Cleanup(func() {
		for i := len(crashRoles) - 1; i >= 0; i-- { // senders before receivers
			if err := s.procs[i].c.stop(); err != nil {
				t.Errorf("stop: %v", err)
			}
		}
	})
}

func (s *crashStack) prefix() string { return s.name + "." }

// doorAddress is one on which nobody listens.
func doorAddress(t *testing.T) string {
	t.Helper()
	for range doorPortTries {
		at := net.JoinHostPort("127.0.0.1", strconv.Itoa(firstDoorPort+rand.IntN(lastDoorPort-firstDoorPort+1)))
		if ln, err := net.Listen("tcp", at); err == nil {
			_ = ln.Close()
			return at
		}
	}
	t.Fatal("no free port for a door")
	return ""
}

func indexOfRole(role string) int {
	for i := range crashRoles {
		if crashRoles[i] == role {
			return i
		}
	}
	panic("no such role in a stack: " + role)
}

// put replaces the process of a role, if there is one, by one with these failpoints
// armed; "" is none.
func (s *crashStack) put(ctx context.Context, role, failpoints string) (*child, error) {
	i := indexOfRole(role)
	p := &s.procs[i]
	if err := p.c.stop(); err != nil {
		return nil, err
	}
	s.started[i]++
	var at servingAt
	args := []string{"serve", "--roles", role, "--listen", s.listen, "--metrics="}
	if role == roleWorker {
		args = append(args, "--sandbox", s.sandbox)
	}
	c, err := startChild(ctx, s.g, spec{
		name: fmt.Sprintf("%s-%s-%d", s.name, role, s.started[i]), exe: s.exe, ready: &at, args: args,
		env: append([]string{"DOORBUSTER_FAILPOINTS=" + failpoints}, s.env...),
	})
	p.c, p.armed = c, failpoints != ""
	return c, err
}

// whole makes sure that every role runs, and none is armed.
func (s *crashStack) whole(ctx context.Context, t *testing.T) {
	t.Helper()
	for i, role := range crashRoles {
		if p := &s.procs[i]; p.c == nil || p.c.ended == nil || p.armed {
			if _, err := s.put(ctx, role, ""); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// logs shows what the processes of the stack said since those numbers of them, if the
// test failed.
func (s *crashStack) logs(t *testing.T, since [len(rolesOfStack{})]int) {
	t.Helper()
	for i, role := range crashRoles {
		for n := max(1, since[i]); n <= s.started[i]; n++ {
			showLog(t, s.g, fmt.Sprintf("%s-%s-%d", s.name, role, n))
		}
	}
}

// dies waits until the process was killed by its failpoint, and starts the role
// again.
func (s *crashStack) dies(ctx context.Context, c *child, role, point string) error {
	pid := c.cmd.Process.Pid
	var err error
	select {
	case err = <-c.ended:
		c.ended = nil
	case <-ctx.Done():
		return fmt.Errorf("%s: not hit, process %d lives: %w", point, pid, ctx.Err())
	}
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		return fmt.Errorf("%s: process %d ended with %w, want SIGKILL", point, pid, err)
	}
	if err := syscall.Kill(pid, 0); !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("%s: process %d is still there: %w", point, pid, err)
	}
	log, err := os.ReadFile(c.log)
	if err != nil || !strings.Contains(string(log), fmt.Sprintf(`"msg":"failpoint","point":%q`, point)) {
		return fmt.Errorf("%s: process %d was killed, and not there (%w)", point, pid, err)
	}
	_, err = s.put(ctx, role, "")
	return err
}

// control is an operator's hand on the stack.
func (s *crashStack) control(ctx context.Context, do func(*control.Control) error) error {
	ctl, done, err := openController(ctx, s.b, s.g)
	if err != nil {
		return err
	}
	defer done()
	return do(ctl)
}

// lose takes everything of a sale from Redis.
func (s *crashStack) lose(ctx context.Context, sale engine.SaleID) error {
	opt, err := redis.ParseURL(s.b.Redis)
	if err != nil {
		return err
	}
	rdb := redis.NewClient(opt)
	defer func() { _ = rdb.Close() }()
	var keys []string
	found := rdb.Scan(ctx, 0, "*{"+string(sale)+"}*", 1000).Iterator()
	for found.Next(ctx) {
		keys = append(keys, found.Val())
	}
	if err := found.Err(); err != nil || len(keys) == 0 {
		return fmt.Errorf("%d keys to lose: %w", len(keys), err)
	}
	return rdb.Unlink(ctx, keys...).Err() // one command: nobody sees some of them gone
}
