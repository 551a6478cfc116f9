package backing_test

import (
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/doorbuster/doorbuster/engine/backing"
)

func TestParseStat(t *testing.T) {
	t.Parallel()
	const rest = " S 7 42 41 0 -1 4194560 0 0 0 0 0 0 0 0 20 0 1 0 98765 0 0"
	for name, line := range map[string]string{
		"plain": "42 (sleep)" + rest, "blanks": "42 (tmux: server)" + rest, "brackets": "42 (a) Z 1 (b))" + rest,
	} {
		state, parent, session, start, ok := backing.ParseStat(line)
		if !ok || state != 'S' || parent != 7 || session != 41 || start != 98765 {
			t.Errorf("%s: %c %d %d %d %v", name, state, parent, session, start, ok)
		}
	}
	for name, line := range map[string]string{
		"empty": "", "no name": "42 S 7", "cut off": "42 (sleep) S 7 42", "no number": strings.Replace("42 (x)"+rest, "98765", "soon", 1),
	} {
		if _, _, _, _, ok := backing.ParseStat(line); ok {
			t.Errorf("%s: taken", name)
		}
	}
}

// start runs a shell script whose first line of output says that it is ready.
func start(t *testing.T, script string) (pid int, firstLine string) {
	t.Helper()
	cmd := exec.Command("/bin/sh", "-c", script)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	line := make([]byte, 64)
	n, err := out.Read(line)
	if err != nil {
		t.Fatal(err)
	}
	return cmd.Process.Pid, strings.TrimSpace(string(line[:n]))
}

// TestEndTakesTheWholeFamily: a grandchild in a session of its own goes too, as
// RabbitMQ's port programs and PostgreSQL's children must.
func TestEndTakesTheWholeFamily(t *testing.T) {
	t.Parallel()
	pid, line := start(t, `setsid sh -c 'echo $$; exec sleep 300' & wait`)
	child, err := strconv.Atoi(line)
	if err != nil {
		t.Fatal(err)
	}
	if family := backing.Family(pid); !slices.Contains(family, child) || !slices.Contains(family, pid) {
		t.Fatalf("family of %d is %v, without %d", pid, family, child)
	}
	if err := backing.End(t.Context(), pid, 0, 0); err != nil {
		t.Fatal(err)
	}
	if backing.Alive(pid) || backing.Alive(child) {
		t.Errorf("alive: leader %v, grandchild %v", backing.Alive(pid), backing.Alive(child))
	}
}

func TestEndKillsWhatDoesNotListen(t *testing.T) {
	t.Parallel()
	pid, _ := start(t, `trap '' TERM; echo ready; while :; do sleep 300; done`)
	begun := time.Now()
	if err := backing.End(t.Context(), pid, 0, 200*time.Millisecond); err != nil {
		t.Fatal(err)
	}
	if backing.Alive(pid) {
		t.Error("alive")
	}
	if took := time.Since(begun); took < 200*time.Millisecond {
		t.Errorf("killed after %s: it was not asked first", took)
	}
}

// TestEndSparesAStranger: the id is in use again by a process with another start
// time.
func TestEndSparesAStranger(t *testing.T) {
	t.Parallel()
	pid, _ := start(t, `echo ready; exec sleep 300`)
	for _, grace := range []time.Duration{0, time.Second} {
		if err := backing.End(t.Context(), pid, 1, grace); err != nil {
			t.Fatal(err)
		}
	}
	if !backing.Alive(pid) {
		t.Error("a process that was not ours was ended")
	}
	if !backing.Runs(pid, 0) || backing.Runs(pid, 1) {
		t.Errorf("runs: itself %v, a stranger %v", backing.Runs(pid, 0), backing.Runs(pid, 1))
	}
}

func TestPorts(t *testing.T) {
	t.Parallel()
	taken := map[int]bool{}
	for range 50 {
		port, err := backing.FreePort(taken)
		if err != nil {
			t.Fatal(err)
		}
		if taken[port] || !backing.ChosenPort(port) {
			t.Fatalf("port %d", port)
		}
		taken[port] = true
	}
	for port := range 1 << 16 {
		taken[port] = true
	}
	if port, err := backing.FreePort(taken); err == nil {
		t.Errorf("port %d is taken and was handed out", port)
	}
	port, err := backing.FreePort(nil)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := backing.ChangePorts(port); got != port || err != nil {
		t.Errorf("a free port %d was changed to %d, %v", port, got, err)
	}
	ln, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ln.Close() }()
	if got, err := backing.ChangePorts(port); got == port || err != nil {
		t.Errorf("port %d is in use and was kept, %v", port, err)
	}
}

func TestLockIsHeldByOne(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	unlock, err := backing.Lock(t.Context(), dir, "x")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := backing.Lock(ctx, dir, "x"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a second one got it: %v", err)
	}
	other, err := backing.Lock(t.Context(), dir, "y")
	if err != nil {
		t.Fatal(err)
	}
	other()
	unlock()
	again, err := backing.Lock(t.Context(), dir, "x")
	if err != nil {
		t.Fatal(err)
	}
	again()
}

func TestOpenRefuses(t *testing.T) {
	t.Parallel()
	if _, err := backing.Open(backing.Config{Dir: t.TempDir()}); !errors.Is(err, backing.ErrNotUp) {
		t.Errorf("no state: %v", err)
	}
	if _, err := backing.Open(backing.Config{Dir: t.TempDir(), Fsync: "sometimes"}); err == nil || errors.Is(err, backing.ErrNotUp) {
		t.Errorf("fsync sometimes: %v", err)
	}
	for name, content := range map[string]string{"another version": `{"version":99}`, "not JSON": `{`} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "state.json"), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := backing.Open(backing.Config{Dir: dir}); err == nil {
			t.Errorf("%s: opened", name)
		}
		// Down of `doorbuster up` must not read that as nothing to do.
		if _, err := backing.Up(t.Context(), backing.Config{Dir: dir}); err == nil {
			t.Errorf("%s: up", name)
		}
	}
}

// TestBuried: PostgreSQL must not be started while the one before is a zombie, whose
// id its lock file names.
func TestBuried(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	dead := exec.Command("true") //nolint:noctx // it ends at once
	if err := dead.Start(); err != nil {
		t.Fatal(err)
	}
	pid := strconv.Itoa(dead.Process.Pid)
	for end := time.Now().Add(5 * time.Second); ; { // the kernel gives no signal of it but to who waits
		b, err := os.ReadFile(filepath.Join("/proc", pid, "stat"))
		if err != nil || time.Now().After(end) {
			t.Fatalf("no zombie: %s %v", b, err)
		}
		if strings.Contains(string(b), ") Z ") {
			break
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "postmaster.pid"), []byte(pid+"\n"+dir+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	backing.Buried(t.Context(), dir)
	if _, err := os.Stat(filepath.Join("/proc", pid)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("process %s is still there: %v", pid, err)
	}
	_ = dead.Wait() // it was waited for already
	backing.Buried(t.Context(), t.TempDir())
}
