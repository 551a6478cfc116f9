package backing

import (
	"context"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// kind is what the four services differ in.
type kind struct {
	name     Name
	accounts []string // to run as where we are root, first that exists
	programs []string // all must be found; the first is the server
	ports    []string // the first is the one clients use
	quit     syscall.Signal
	boot     time.Duration // how long it may take until it answers

	// prepare makes the configuration and, on the first start, the data.
	prepare func(ctx context.Context, s site) error
	// commands are run in order, the server last.
	commands func(s site) []command
	url      func(s site) string
	// ping speaks the server's protocol; nil means it is ready for clients.
	ping func(ctx context.Context, url string) error
	// settle finishes a server that answers: what must be there before clients.
	settle func(ctx context.Context, s site) error
}

const (
	portMain   = "main" // the port that clients use
	dataName   = "data" // the directory that Wipe deletes
	roleServer = "server"
	roleMapper = "mapper"
)

// kinds are the services we know, by name.
var kinds = map[Name]*kind{Redis: &redisKind, RabbitMQ: &rabbitKind, PostgreSQL: &postgresKind, Prometheus: &prometheusKind}

// site is where and how one service runs.
type site struct {
	dir      string // its own directory: configuration, data, log
	who      account
	id       string // of the installation
	password string
	ports    map[string]int
	programs map[string]string // name → path
	fsync    string
	memory   int64
	boards   fs.FS
}

func (s site) address() string { return address(s.ports[portMain]) }

// dataDir holds what Wipe deletes.
func (s site) dataDir() string { return filepath.Join(s.dir, dataName) }

// environment is what a server's process sees: nothing of ours, so that no
// setting of the caller's shell or of the host's installation reaches it.
func (s site) environment(extra ...string) []string {
	dirs := map[string]bool{}
	for _, path := range s.programs {
		dirs[filepath.Dir(path)] = true
	}
	path := append(slices.Sorted(maps.Keys(dirs)), systemPath...)
	return append([]string{"PATH=" + strings.Join(path, ":"), "HOME=" + s.dir, "LANG=C.UTF-8"}, extra...)
}

var systemPath = []string{"/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"}
