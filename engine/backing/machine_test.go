package backing_test

import (
	"errors"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/doorbuster/doorbuster/deploy"
	"github.com/doorbuster/doorbuster/engine/backing"
)

// all are the programs of the three servers, in PATH.
func all() map[string]string {
	return map[string]string{
		"redis-server": "/usr/bin/redis-server", "rabbitmq-server": "/usr/lib/rabbitmq/bin/rabbitmq-server", "erl": "/usr/bin/erl",
		"epmd": "/usr/bin/epmd", "postgres": "/usr/bin/postgres", "initdb": "/usr/bin/initdb", "prometheus": "/usr/bin/prometheus",
	}
}

func with(programs map[string]string, more ...string) map[string]string {
	out := map[string]string{}
	maps.Copy(out, programs)
	for _, name := range more {
		out[name] = "/usr/bin/" + name
	}
	return out
}

func without(programs map[string]string, names ...string) map[string]string {
	out := maps.Clone(programs)
	for _, name := range names {
		delete(out, name)
	}
	return out
}

const installAll = "apt-get install -y --no-install-recommends redis-server libfaketime rabbitmq-server postgresql"

var (
	own = map[backing.Name]backing.Mode{backing.Redis: backing.Own, backing.RabbitMQ: backing.Own, backing.PostgreSQL: backing.Own}
	one = map[backing.Name]backing.Mode{backing.Redis: backing.Compose, backing.RabbitMQ: backing.Own, backing.PostgreSQL: backing.Own}
)

// provisions are machines, what is run on them, and what comes of it.
var provisions = []struct {
	name      string
	fake      backing.Fake
	noInstall bool
	want      map[backing.Name]backing.Mode
	ran       []string
	fails     string // in the error's text
}{
	{
		name: "all there", fake: backing.Fake{Programs: all()}, want: own,
	},
	{
		name: "nothing there, root",
		fake: backing.Fake{Root: true, Programs: map[string]string{"apt-get": "/usr/bin/apt-get"}, Installs: all()},
		want: own, ran: []string{"hold", "apt-get update", installAll, "release"},
	},
	{
		name: "one missing, root: only that one",
		fake: backing.Fake{Root: true, Programs: with(without(all(), "initdb"), "apt-get"), Installs: all()},
		want: own, ran: []string{"hold", "apt-get update", "apt-get install -y --no-install-recommends postgresql", "release"},
	},
	{
		name: "the lists cannot be fetched",
		fake: backing.Fake{Root: true, Programs: map[string]string{"apt-get": "x"}, Installs: all(), Fails: []string{"apt-get update"}},
		want: own, ran: []string{"hold", "apt-get update", installAll, "release"},
	},
	{
		name: "systemd would start them at the next boot",
		fake: backing.Fake{
			Root: true, Programs: map[string]string{"apt-get": "x", "systemctl": "x"}, Files: []string{"/run/systemd/system"}, Installs: all(),
		},
		want: own,
		ran:  []string{"hold", "apt-get update", installAll, "systemctl disable --quiet redis-server rabbitmq-server postgresql", "release"},
	},
	{
		name: "the package does not install",
		fake: backing.Fake{
			Root: true, Programs: map[string]string{"apt-get": "x"}, Fails: []string{"apt-get install"}, Output: "E: Unable to locate package",
		},
		ran: []string{"hold", "apt-get update", installAll, "release"}, fails: "E: Unable to locate package",
	},
	{
		name: "not root, no docker", fake: backing.Fake{Programs: with(nil, "apt-get"), Fails: []string{"docker"}},
		ran: []string{"docker compose version"}, fails: "As root run: apt-get update && " + installAll,
	},
	{
		name: "not root, docker without a daemon", fake: backing.Fake{Programs: with(nil, "apt-get"), Fails: []string{"docker info"}},
		ran: []string{"docker compose version", "docker info"}, fails: "docker does not answer",
	},
	{
		name: "not root, docker, one missing", fake: backing.Fake{Programs: without(all(), "redis-server")},
		want: one, ran: []string{"docker compose version", "docker info"},
	},
	{
		name: "root, installing switched off", fake: backing.Fake{Root: true, Programs: with(nil, "apt-get"), Fails: []string{"docker"}},
		noInstall: true, ran: []string{"docker compose version"}, fails: "server programs are missing",
	},
	{
		name: "root, no apt-get, no docker", fake: backing.Fake{Root: true, Fails: []string{"docker"}},
		ran: []string{"docker compose version"}, fails: "server programs are missing: redis, rabbitmq, postgresql",
	},
	{
		name: "not Linux", fake: backing.Fake{Root: true, NotLinux: true, Programs: with(all(), "apt-get")},
		want: map[backing.Name]backing.Mode{backing.Redis: backing.Compose, backing.RabbitMQ: backing.Compose, backing.PostgreSQL: backing.Compose},
		ran:  []string{"docker compose version", "docker info"},
	},
}

// TestProvide: programs that are here, then packages, then containers, then the
// one command to run.
func TestProvide(t *testing.T) {
	t.Parallel()
	for i := range provisions {
		c := &provisions[i]
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			got, err := c.fake.Provide(t.Context(), c.noInstall, backing.Redis, backing.RabbitMQ, backing.PostgreSQL)
			if c.fails == "" && (err != nil || !maps.Equal(got, c.want)) {
				t.Errorf("got %v, %v, want %v", got, err, c.want)
			}
			if c.fails != "" && (err == nil || !strings.Contains(err.Error(), c.fails)) {
				t.Errorf("error %v, want one with %q", err, c.fails)
			}
			if strings.HasPrefix(c.name, "not root, no") && !errors.Is(err, backing.ErrMissing) {
				t.Errorf("error %v is not ErrMissing", err)
			}
			if !slices.Equal(c.fake.Ran, c.ran) {
				t.Errorf("ran %q, want %q", c.fake.Ran, c.ran)
			}
		})
	}
}

func TestFindPrefersTheRealProgram(t *testing.T) {
	t.Parallel()
	f := backing.Fake{
		// Debian's wrapper insists on root; its PostgreSQL is not in PATH.
		Programs: map[string]string{"rabbitmq-server": "/usr/sbin/rabbitmq-server", "epmd": "/usr/bin/epmd", "erl": "/usr/bin/erl"},
		Files: []string{
			"/usr/lib/rabbitmq/bin/rabbitmq-server", "/usr/lib/rabbitmq/lib/rabbitmq_server-3.10.8/sbin/rabbitmq-server",
			"/usr/lib/postgresql/9.6/bin/postgres", "/usr/lib/postgresql/15/bin/postgres", "/usr/lib/postgresql/15/bin/initdb",
		},
	}
	rabbit, missing := f.Find(backing.RabbitMQ)
	if got := rabbit["rabbitmq-server"]; got != "/usr/lib/rabbitmq/bin/rabbitmq-server" || missing != nil {
		t.Errorf("found %q, missing %v", got, missing)
	}
	postgres, missing := f.Find(backing.PostgreSQL)
	if got := postgres["postgres"]; got != "/usr/lib/postgresql/15/bin/postgres" || missing != nil {
		t.Errorf("found %q, missing %v", got, missing)
	}
	if _, missing = f.Find(backing.Redis); !slices.Equal(missing, []string{"redis-server"}) {
		t.Errorf("missing %v", missing)
	}
}

func TestInstallTellsHowFarItIs(t *testing.T) {
	t.Parallel()
	const output = "Reading package lists...\nNeed to get 42.1 MB of archives.\nGet:1 x\nUnpacking redis-server ...\nSetting up redis-server ...\n"
	want := []string{"  Need to get 42.1 MB of archives.", "  Unpacking redis-server ...", "  Setting up redis-server ..."}
	for cut := range len(output) {
		if got := backing.AptLines(output, cut); !slices.Equal(got, want) {
			t.Fatalf("cut at %d: told %q, want %q", cut, got, want)
		}
	}
}

// TestComposeFileHasOurVariables: one that only the file knows would silently
// take its default, one that only we know would do nothing.
func TestComposeFileHasOurVariables(t *testing.T) {
	t.Parallel()
	var inFile []string
	for _, m := range regexp.MustCompile(`\$\{(\w+)`).FindAllSubmatch(deploy.Compose, -1) {
		inFile = append(inFile, string(m[1]))
	}
	slices.Sort(inFile)
	inFile = slices.Compact(inFile)
	if ours := backing.Variables(); !slices.Equal(inFile, ours) {
		t.Errorf("compose.yaml reads %q, we set %q", inFile, ours)
	}
	for _, m := range regexp.MustCompile(`(?m)^\s*ports: \["([^$"]*)`).FindAllSubmatch(deploy.Compose, -1) {
		if string(m[1]) != "127.0.0.1:" {
			t.Errorf("a port is not the loopback's: %q", m[1])
		}
	}
}
