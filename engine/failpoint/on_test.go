//go:build failpoint

package failpoint_test

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/doorbuster/doorbuster/engine/failpoint"
)

// victim makes this test binary a process that passes a point three times.
const victim = "DOORBUSTER_TEST_VICTIM"

func TestMain(m *testing.M) {
	if setting := os.Getenv(victim); setting != "" {
		if err := failpoint.Arm(setting); err != nil {
			panic(err)
		}
		for range 3 {
			failpoint.Hit("relay/after-mark")
			_, _ = os.Stdout.WriteString("passed\n")
		}
		return
	}
	os.Exit(m.Run())
}

// start starts a victim, whose streams are in out.
func start(t *testing.T, setting string, out *bytes.Buffer) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), victim+"="+setting)
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd
}

func TestKill(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	cmd := start(t, "relay/after-mark=kill@2,door/after-reserve=kill", &out)
	var exit *exec.ExitError
	if err := cmd.Wait(); !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		t.Errorf("ended with %v, want SIGKILL", err)
	}
	if s := out.String(); strings.Count(s, "passed") != 1 || !strings.Contains(s, `"point":"relay/after-mark","hit":2,"do":"kill"`) {
		t.Errorf("said %q", s)
	}
}

func TestStop(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	cmd := start(t, "relay/after-mark=stop@3", &out)
	var ws syscall.WaitStatus
	if _, err := syscall.Wait4(cmd.Process.Pid, &ws, syscall.WUNTRACED, nil); err != nil || !ws.Stopped() {
		t.Fatalf("status %v, %v: want it stopped", ws, err)
	}
	if err := cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil || strings.Count(out.String(), "passed") != 3 {
		t.Errorf("%v, said %q", err, out.String())
	}
}

func TestDelay(t *testing.T) {
	t.Parallel()
	const wait = 30 * time.Millisecond
	if err := failpoint.Arm("pay/before-authorise=delay:" + wait.String()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = failpoint.Arm("") })
	for range 2 {
		began := time.Now()
		failpoint.Hit("pay/before-authorise")
		if took := time.Since(began); took < wait {
			t.Errorf("took %v, want %v", took, wait)
		}
	}
	if err := failpoint.Arm("nowhere=kill"); err == nil {
		t.Error("an unknown point was armed")
	}
}
