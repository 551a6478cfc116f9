package backing_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/doorbuster/doorbuster/engine/backing"
	"github.com/doorbuster/doorbuster/engine/backing/backingtest"
)

// TestUnreachableDirectory: as root, below a directory that is closed to others.
func TestUnreachableDirectory(t *testing.T) {
	t.Parallel()
	closed := t.TempDir()
	if err := os.Chmod(closed, 0o700); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(closed, "state")
	s := bringUp(t, backing.Config{Dir: dir, URLs: backing.URLs{AMQP: backingtest.AMQP(t)}})
	up(t, s)
	data := s.Dir(backing.PostgreSQL)
	if inside := strings.HasPrefix(data, closed); inside == (os.Geteuid() == 0) {
		t.Errorf("uid %d: data in %s, state in %s", os.Geteuid(), data, dir)
	}
	reopened, err := backing.Open(backing.Config{Dir: dir})
	if err != nil || reopened.Dir(backing.PostgreSQL) != data {
		t.Errorf("a later process looks elsewhere: %v", err)
	}
	if err := s.Remove(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Dir(data)); !os.IsNotExist(err) && os.Geteuid() == 0 {
		t.Errorf("%s is left: %v", filepath.Dir(data), err)
	}
}

// asOrdinary names the environment variable by which TestOrdinaryUser runs this
// test binary again.
const asOrdinary = "DOORBUSTER_TEST_ORDINARY_DIR"

func TestMain(m *testing.M) {
	dir := os.Getenv(asOrdinary)
	if dir == "" {
		os.Exit(m.Run())
	}
	if err := liveAsOrdinary(dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func liveAsOrdinary(dir string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	s, err := backing.Up(ctx, backing.Config{Dir: dir, NoInstall: true, Progress: os.Stderr})
	if err != nil {
		return err
	}
	list := s.Status(ctx)
	pids := families(s)
	err = errors.Join(s.Down(ctx), s.Remove(ctx))
	for _, pid := range pids {
		if backing.Alive(pid) {
			err = errors.Join(err, fmt.Errorf("process %d is left", pid))
		}
	}
	return errors.Join(err, json.NewEncoder(os.Stdout).Encode(list))
}

// TestOrdinaryUser runs all of it as nobody where we are root; where we are not,
// every other test here does.
func TestOrdinaryUser(t *testing.T) {
	t.Parallel()
	backingtest.RedisURL(t)
	if os.Geteuid() != 0 {
		return
	}
	const nobody = 65534
	dir := openDir(t)
	if err := errors.Join(os.Mkdir(dir, 0o755), os.Chown(dir, nobody, nobody)); err != nil {
		t.Fatal(err)
	}
	binary := filepath.Join(filepath.Dir(dir), "backing.test")
	copyFile(t, os.Args[0], binary) // the original lies where nobody cannot look
	cmd := exec.CommandContext(t.Context(), binary)
	cmd.Dir = dir
	cmd.Env = []string{asOrdinary + "=" + filepath.Join(dir, "s"), "PATH=/usr/local/bin:/usr/bin:/bin"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	out, err := cmd.Output()
	if exit := new(exec.ExitError); errors.As(err, &exit) {
		t.Fatalf("%v\n%s", err, exit.Stderr)
	}
	var list []backing.ServiceStatus
	if err := json.Unmarshal(out, &list); err != nil || len(list) != 3 {
		t.Fatalf("%s: %v", out, err)
	}
	for _, st := range list {
		if !st.Up {
			t.Errorf("%+v", st)
		}
	}
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	b, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, b, 0o755); err != nil {
		t.Fatal(err)
	}
}

func get(t *testing.T, url string) string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
