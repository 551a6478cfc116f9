package backing

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

// Name names one backing service.
type Name string

// The services, in the order they are told about.
const (
	Redis      Name = "redis"
	RabbitMQ   Name = "rabbitmq"
	PostgreSQL Name = "postgresql"
	Prometheus Name = "prometheus"
)

// order is the order in which services are told about.
var order = []Name{Redis, RabbitMQ, PostgreSQL, Prometheus}

// DefaultDir is where the state lies when Config.Dir is empty, below the current
// directory.
const DefaultDir = ".doorbuster/default"

var (
	// ErrNotUp is returned by Open where no Up has been before.
	ErrNotUp = errors.New("backing services were never brought up here")
	// ErrForeign is returned by Kill, Start and Wipe for a server that was named
	// by its URL: it is not ours to touch.
	ErrForeign = errors.New("not a server of ours")
	// ErrMissing is returned by Up where a server is neither given, nor on this
	// machine, nor to be had; its text holds the command that installs it.
	ErrMissing = errors.New("server programs are missing")
	// ErrUnknown is returned for a name that is no service of this directory.
	ErrUnknown = errors.New("no such backing service")
)

// URLs say where the servers are. Each holds the password, where there is one.
type URLs struct {
	Redis    string `json:"redis"`
	AMQP     string `json:"amqp"`
	Database string `json:"database"`
	// Prometheus is empty without monitoring.
	Prometheus string `json:"prometheus,omitempty"`
}

// Config says what to bring up. Its zero value works.
type Config struct {
	// Dir holds the state; empty means DefaultDir.
	Dir string
	// URLs name servers to use as they are; an empty one means a private server.
	URLs URLs
	// Monitoring asks for Prometheus too.
	Monitoring bool
	// Dashboards holds prometheus.yml and the rules it names, copied beside
	// Prometheus' data; nil means a scrape configuration that watches
	// Prometheus alone.
	Dashboards fs.FS
	// Fsync is Redis' appendfsync: "everysec" (the default), "always" or "no".
	Fsync string
	// RedisMemory bounds Redis in bytes, beyond which it refuses writes; 0 means
	// no bound.
	RedisMemory int64
	// Env is added to what the programs of a service see, last, so that it overrides:
	// a library to load before all others, the names of a cluster. It is not
	// remembered: who starts the service again says it again.
	Env map[Name][]string
	// Password of all servers of a new Dir, for several that must know one another;
	// empty means a random one. An existing Dir keeps its own.
	Password string
	// NoInstall forbids installing packages.
	NoInstall bool
	// Progress is told in lines of text what is done and what is waited for; nil
	// means silence.
	Progress io.Writer
}

// ServiceStatus is how one service is now.
type ServiceStatus struct {
	Name Name `json:"name"`
	// Mode is "own" (a process of ours), "compose" (a container of ours) or
	// "given" (named by its URL).
	Mode Mode `json:"mode"`
	// Up says that it answered in its own protocol just now.
	Up bool `json:"up"`
	// PID is 0 where it is not a running process of ours.
	PID int `json:"pid,omitempty"`
	// Address is host:port, without the password.
	Address string `json:"address"`
	// Dir holds data and log; empty where they are not ours.
	Dir string `json:"dir,omitempty"`
	// Problem is why it is not up.
	Problem string `json:"problem,omitempty"`
}

// Mode is how a service came to be.
type Mode string

// The modes.
const (
	Own     Mode = "own"
	Compose Mode = "compose"
	Given   Mode = "given"
)

// Services are the backing services of one directory.
type Services struct {
	cfg Config
	m   machine

	mu    sync.Mutex
	known *state // as it was when last read
}

// Time limits that a caller's ctx can only shorten.
const (
	pingTimeout   = 3 * time.Second
	listenTimeout = 10 * time.Second
)

// Open returns the services an earlier Up of cfg.Dir brought up, running or not.
// It starts nothing. ErrNotUp if there was none.
func Open(cfg Config) (*Services, error) {
	s, err := open(cfg, thisMachine())
	if err != nil {
		return nil, err
	}
	return s, s.reload()
}

func open(cfg Config, m machine) (*Services, error) {
	if cfg.Dir == "" {
		cfg.Dir = DefaultDir
	}
	dir, err := filepath.Abs(cfg.Dir)
	if err != nil {
		return nil, err
	}
	cfg.Dir = dir
	switch cfg.Fsync {
	case "", FsyncDefault, "always", "no":
	default:
		return nil, fmt.Errorf("fsync %q: want everysec, always or no", cfg.Fsync)
	}
	return &Services{cfg: cfg, m: m}, nil
}

// reload reads state.json again.
func (s *Services) reload() error {
	st, err := readState(s.cfg.Dir)
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.known = st
	s.mu.Unlock()
	return nil
}

func (s *Services) snapshot() *state {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.known
}

// URLs returns where the servers are, running or not.
func (s *Services) URLs() URLs {
	at := func(name Name) string {
		if r := s.snapshot().Services[name]; r != nil {
			return r.URL
		}
		return ""
	}
	return URLs{Redis: at(Redis), AMQP: at(RabbitMQ), Database: at(PostgreSQL), Prometheus: at(Prometheus)}
}

// Dir returns the directory with a service's configuration, data and log; empty
// where it is not a process of ours.
func (s *Services) Dir(name Name) string {
	st := s.snapshot()
	if r := st.Services[name]; r == nil || r.Mode != Own {
		return ""
	}
	return filepath.Join(st.Data, string(name))
}

// Status asks every service for a sign of life, side by side, and returns after
// 3 s at the latest.
func (s *Services) Status(ctx context.Context) []ServiceStatus {
	if err := s.reload(); err != nil && s.snapshot() == nil {
		return nil
	}
	st := s.snapshot()
	var out []ServiceStatus
	for _, name := range order {
		if r := st.Services[name]; r != nil {
			out = append(out, ServiceStatus{Name: name, Mode: r.Mode, Address: hostPort(r.URL), Dir: s.Dir(name)})
		}
	}
	var wg sync.WaitGroup
	for i := range out {
		wg.Go(func() { s.look(ctx, st.Services[out[i].Name], &out[i]) })
	}
	wg.Wait()
	return out
}

// look fills in how one service is now.
func (s *Services) look(ctx context.Context, r *record, out *ServiceStatus) {
	ctx, cancel := context.WithTimeout(ctx, pingTimeout)
	defer cancel()
	if r.Mode == Own {
		p := r.Processes[roleServer]
		if !p.alive() {
			out.Problem = "not running"
			return
		}
		out.PID = p.PID
	}
	if err := kinds[out.Name].ping(ctx, r.URL); err != nil {
		out.Problem = err.Error()
		return
	}
	out.Up = true
}

func hostPort(rawURL string) string {
	u, err := url.Parse(rawURL)
	if err != nil {
		return ""
	}
	return u.Host
}

// Kill ends a service at once (SIGKILL to it and all its children), as a power
// cut would, and returns when they are gone. Its data stays. Killing what does
// not run is no error. ErrForeign for a server that was given by its URL.
func (s *Services) Kill(ctx context.Context, name Name) error {
	return s.one(ctx, name, func(st *state, r *record) error {
		if r.Mode == Compose {
			return s.containers(st).kill(ctx, name)
		}
		return r.Processes[roleServer].end(ctx, syscall.SIGKILL, 0)
	})
}

// Start starts a service again, on the same port and data, and returns when it
// answers. Starting what runs is no error. ErrForeign as for Kill.
func (s *Services) Start(ctx context.Context, name Name) error {
	return s.one(ctx, name, func(st *state, _ *record) error { return s.start(ctx, st, name) })
}

// Wipe deletes a stopped service's data: the next Start finds it empty. It is an
// error if the service runs.
func (s *Services) Wipe(ctx context.Context, name Name) error {
	return s.one(ctx, name, func(st *state, r *record) error {
		if r.Mode == Compose {
			return s.containers(st).wipe(ctx, name)
		}
		if p := r.Processes[roleServer]; p.alive() {
			return fmt.Errorf("wipe: process %d still runs", p.PID)
		}
		return os.RemoveAll(filepath.Join(st.Data, string(name), dataName))
	})
}

// one does something to one service of ours, under its lock.
func (s *Services) one(ctx context.Context, name Name, do func(*state, *record) error) error {
	if kinds[name] == nil {
		return fmt.Errorf("%s: %w", name, ErrUnknown)
	}
	unlock, err := lock(ctx, s.cfg.Dir, string(name))
	if err != nil {
		return err
	}
	defer unlock()
	st, err := readState(s.cfg.Dir) // a copy of its own: start changes it
	if err != nil {
		return err
	}
	r := st.Services[name]
	switch {
	case r == nil:
		return fmt.Errorf("%s: %w", name, ErrUnknown)
	case r.Mode == Given:
		return fmt.Errorf("%s: %w", name, ErrForeign)
	}
	if err := do(st, r); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return s.reload()
}

func (s *Services) containers(st *state) containers {
	return containers{dir: s.cfg.Dir, state: st, m: s.m}
}

// tell writes one line of progress.
func (s *Services) tell(format string, args ...any) {
	if s.cfg.Progress == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	_, _ = fmt.Fprintf(s.cfg.Progress, format+"\n", args...)
}
