package backing_test

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/fstest"

	"github.com/doorbuster/doorbuster/engine/backing"
	"github.com/doorbuster/doorbuster/engine/backing/backingtest"
)

// TestPasswordIsNeeded: on a machine with several users, the loopback is no wall.
func TestPasswordIsNeeded(t *testing.T) {
	t.Parallel()
	s := bringUp(t, backing.Config{Dir: openDir(t), URLs: backing.URLs{AMQP: backingtest.AMQP(t)}})
	for _, raw := range []string{s.URLs().Redis, s.URLs().Database} {
		u, err := url.Parse(raw)
		if err != nil {
			t.Fatal(err)
		}
		u.User = url.UserPassword(u.User.Username(), "guess")
		wrong := backing.URLs{Redis: u.String(), Database: u.String()}
		name := map[string]backing.Name{"redis": backing.Redis, "postgres": backing.PostgreSQL}[u.Scheme]
		if err := notes[name].note(t.Context(), wrong); err == nil {
			t.Errorf("%s let a wrong password in", name)
		}
	}
}

// TestGivenServersAreLeftAlone: what the caller named is neither started, nor
// killed, nor stopped.
func TestGivenServersAreLeftAlone(t *testing.T) {
	t.Parallel()
	given := backing.URLs{Redis: backingtest.RedisURL(t), AMQP: backingtest.AMQP(t), Database: backingtest.Database(t)}
	s := bringUp(t, backing.Config{Dir: openDir(t), URLs: given})
	for name, st := range up(t, s) {
		if st.Mode != backing.Given || st.PID != 0 || strings.Contains(st.Address, "@") {
			t.Errorf("%+v", st)
		}
		for verb, err := range map[string]error{
			"kill": s.Kill(t.Context(), name), "start": s.Start(t.Context(), name), "wipe": s.Wipe(t.Context(), name),
		} {
			if !errors.Is(err, backing.ErrForeign) {
				t.Errorf("%s %s: %v", verb, name, err)
			}
		}
	}
	if s.URLs() != given {
		t.Errorf("URLs %v", s.URLs())
	}
	if err := s.Kill(t.Context(), "mysql"); !errors.Is(err, backing.ErrUnknown) {
		t.Errorf("kill mysql: %v", err)
	}
	if err := s.Down(t.Context()); err != nil {
		t.Fatal(err)
	}
	up(t, s)
}

func TestGivenServerThatIsNotThere(t *testing.T) {
	t.Parallel()
	backingtest.RedisURL(t)
	port, err := backing.FreePort(nil)
	if err != nil {
		t.Fatal(err)
	}
	_, err = backing.Up(t.Context(), backing.Config{Dir: t.TempDir(), URLs: backing.URLs{
		Redis: fmt.Sprintf("redis://:secret@127.0.0.1:%d/0", port), AMQP: backingtest.AMQP(t), Database: backingtest.Database(t),
	}})
	if err == nil || !strings.Contains(err.Error(), strconv.Itoa(port)) || strings.Contains(err.Error(), "secret") {
		t.Errorf("error %v: want one that names the address and not the password", err)
	}
}

// TestUpTwiceAtOnce: the second of two ups finds what the first started.
func TestUpTwiceAtOnce(t *testing.T) {
	t.Parallel()
	cfg := backing.Config{Dir: openDir(t), URLs: backing.URLs{AMQP: backingtest.AMQP(t), Database: backingtest.Database(t)}}
	backingtest.RedisURL(t)
	var got [4]*backing.Services
	var wg sync.WaitGroup
	for i := range got {
		wg.Go(func() {
			s, err := backing.Up(t.Context(), cfg)
			if err != nil {
				t.Error(err)
			}
			got[i] = s
		})
	}
	wg.Wait()
	if t.Failed() {
		return
	}
	t.Cleanup(func() {
		if err := got[0].Remove(context.Background()); err != nil {
			t.Error(err)
		}
	})
	pids := map[int]bool{}
	for _, s := range got {
		pids[up(t, s)[backing.Redis].PID] = true
	}
	if len(pids) != 1 {
		t.Errorf("redis was started %d times", len(pids))
	}
}

// TestUpGivesUp: its context ends while RabbitMQ boots; nothing of that is left.
func TestUpGivesUp(t *testing.T) {
	t.Parallel()
	dir := openDir(t)
	cfg := backing.Config{Dir: dir, URLs: backing.URLs{Redis: backingtest.RedisURL(t), Database: backingtest.Database(t)}}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan error, 1)
	go func() {
		_, err := backing.Up(ctx, cfg)
		done <- err
	}()
	var s *backing.Services
	backingtest.Eventually(t, "RabbitMQ's processes", func() bool {
		var err error
		if s, err = backing.Open(backing.Config{Dir: dir}); err != nil {
			return false
		}
		return len(s.PIDs()) == 2
	})
	pids := families(s)
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded) && err == nil {
		t.Errorf("up: %v", err)
	}
	wantGone(t, pids)
}

// TestServerThatDoesNotStart: the error shows why, from the server's own words.
func TestServerThatDoesNotStart(t *testing.T) {
	t.Parallel()
	s := bringUp(t, backing.Config{Dir: openDir(t), URLs: backing.URLs{AMQP: backingtest.AMQP(t), Database: backingtest.Database(t)}})
	if err := s.Kill(t.Context(), backing.Redis); err != nil {
		t.Fatal(err)
	}
	manifest := filepath.Join(s.Dir(backing.Redis), "data", "appendonlydir", "appendonly.aof.manifest")
	if err := os.WriteFile(manifest, []byte("nonsense\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	err := s.Start(t.Context(), backing.Redis)
	if err == nil || !strings.Contains(err.Error(), "manifest") {
		t.Errorf("error %v: want Redis' complaint about its manifest", err)
	}
}

func TestAdoptedEndFirst(t *testing.T) {
	t.Parallel()
	s := bringUp(t, backing.Config{Dir: openDir(t), URLs: backing.URLs{
		Redis: backingtest.RedisURL(t), AMQP: backingtest.AMQP(t), Database: backingtest.Database(t),
	}})
	pid, _ := start(t, `echo ready; exec sleep 300`)
	if err := s.Adopt("sleeper", pid); err != nil {
		t.Fatal(err)
	}
	if err := s.Down(t.Context()); err != nil {
		t.Fatal(err)
	}
	if backing.Alive(pid) {
		t.Error("the adopted process is left")
	}
	if err := s.Adopt("gone", pid); err == nil {
		t.Error("a process that had ended was adopted")
	}
}

// TestMonitoring starts Prometheus with the files it is given.
func TestMonitoring(t *testing.T) {
	t.Parallel()
	given := backing.URLs{Redis: backingtest.RedisURL(t), AMQP: backingtest.AMQP(t), Database: backingtest.Database(t)}
	cfg := backing.Config{Dir: openDir(t), URLs: given, Monitoring: true}
	s := bringUp(t, cfg)
	if st := up(t, s)[backing.Prometheus]; st.PID == 0 || s.URLs().Prometheus == "" {
		t.Fatalf("%+v", st)
	}
	cfg.Dashboards = fstest.MapFS{
		"prometheus.yml":  {Data: []byte("rule_files: [rules/*.yml]\n")},
		"rules/doors.yml": {Data: []byte("groups: [{name: doors, rules: [{record: doors:open, expr: vector(1)}]}]\n")},
	}
	bringUp(t, cfg) // it runs already and is told to read them
	cmd := exec.CommandContext(t.Context(), "promtool", "query", "instant", s.URLs().Prometheus, "prometheus_build_info")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("promtool: %v: %s", err, out)
	}
	if got := get(t, s.URLs().Prometheus+"/api/v1/rules"); !strings.Contains(got, "doors:open") {
		t.Errorf("rules are not loaded: %s", got)
	}
}
