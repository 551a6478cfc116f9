package backing

import (
	"context"
	"errors"
	"io"
	"io/fs"
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

// DefaultDir is where the state lies when Config.Dir is empty, below the current
// directory.
const DefaultDir = ".doorbuster/dev"

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
type Services struct{}

// Up brings up what cfg asks for and returns when every server has answered in
// its own protocol. What already runs is left alone, so a second call is
// harmless; a server that ran on another Fsync is told the new one.
func Up(_ context.Context, _ Config) (*Services, error) { return nil, ErrMissing }

// Open returns the services an earlier Up of cfg.Dir brought up, running or not.
// It starts nothing. ErrNotUp if there was none.
func Open(_ Config) (*Services, error) { return nil, ErrNotUp }

// URLs returns where the servers are.
func (s *Services) URLs() URLs { return URLs{} }

// Status asks every service for a sign of life, side by side.
func (s *Services) Status(_ context.Context) []ServiceStatus { return nil }

// Kill ends a service at once (SIGKILL to it and all its children), as a power
// cut would. Its data stays. Killing what does not run is no error.
func (s *Services) Kill(_ context.Context, _ Name) error { return ErrUnknown }

// Start starts a service again, on the same port and data, and returns when it
// answers. Starting what runs is no error.
func (s *Services) Start(_ context.Context, _ Name) error { return ErrUnknown }

// Wipe deletes a stopped service's data: the next Start finds it empty.
func (s *Services) Wipe(_ context.Context, _ Name) error { return ErrUnknown }

// Down stops every server of ours and returns when none of their processes is
// left. Data and ports stay for the next Up. Calling it twice is harmless.
func (s *Services) Down(_ context.Context) error { return nil }

// Remove is Down, and deletes all data and the state.
func (s *Services) Remove(_ context.Context) error { return nil }
