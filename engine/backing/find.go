package backing

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// machine is what finding and installing ask of the computer; tests put their
// own in its place.
type machine struct {
	root bool
	// look returns the path of a program by its name; "" if there is none.
	look func(name string) string
	// glob returns the paths that match a pattern.
	glob func(pattern string) []string
	// run runs a program to its end, its output to out.
	run func(ctx context.Context, out io.Writer, env []string, args ...string) error
	// holdServices keeps packages that are installed from starting services until
	// release is called.
	holdServices func() (release func() error, err error)
	// ownProcesses says that processes can be told apart here (Linux).
	ownProcesses bool
}

func thisMachine() machine {
	return machine{
		root: os.Geteuid() == 0,
		look: func(name string) string {
			path, err := exec.LookPath(name)
			if err != nil {
				return ""
			}
			return path
		},
		glob: func(pattern string) []string {
			paths, err := filepath.Glob(pattern)
			if err != nil {
				return nil
			}
			return paths
		},
		run: func(ctx context.Context, out io.Writer, env []string, args ...string) error {
			cmd := exec.CommandContext(ctx, args[0], args[1:]...)
			cmd.Env, cmd.Stdout, cmd.Stderr = append(cmd.Environ(), env...), out, out
			return cmd.Run()
		},
		holdServices: holdServices,
		ownProcesses: canRunProcesses(),
	}
}

// places are looked at before PATH. Debian keeps PostgreSQL's programs out of
// PATH, one directory per version, and puts a wrapper into it for RabbitMQ's
// that insists on root.
var places = map[string][]string{
	"rabbitmq-server": {"/usr/lib/rabbitmq/bin/rabbitmq-server", "/usr/lib/rabbitmq/lib/*/sbin/rabbitmq-server", "/opt/rabbitmq/sbin/rabbitmq-server"},
	"postgres":        {"/usr/lib/postgresql/*/bin/postgres", "/usr/pgsql-*/bin/postgres"},
	"initdb":          {"/usr/lib/postgresql/*/bin/initdb", "/usr/pgsql-*/bin/initdb"},
	"redis-server":    {"/usr/bin/redis-server"},
	"prometheus":      {"/usr/bin/prometheus"},
	"epmd":            {"/usr/lib/erlang/erts-*/bin/epmd"},
}

// find returns the paths of a service's programs, and the names of those that
// are not there.
func (m machine) find(k *kind) (paths map[string]string, missing []string) {
	paths = map[string]string{}
	for _, name := range k.programs {
		path := m.look(name)
		for _, pattern := range slices.Backward(places[name]) {
			if found := m.glob(pattern); len(found) > 0 {
				path = slices.MaxFunc(found, byVersion)
			}
		}
		if path == "" {
			missing = append(missing, name)
			continue
		}
		paths[name] = path
	}
	return paths, missing
}

// byVersion orders paths by the numbers in them: 9.6 comes before 15.
func byVersion(a, b string) int { return slices.Compare(numbers(a), numbers(b)) }

func numbers(path string) []int {
	var out []int
	for _, digits := range strings.FieldsFunc(path, func(r rune) bool { return r < '0' || r > '9' }) {
		if n, err := strconv.Atoi(digits); err == nil {
			out = append(out, n)
		}
	}
	return out
}

// want is one service that is to be started, and where it was found.
type want struct {
	kind *kind
	mode Mode
	// programs of an Own one.
	programs map[string]string
}

// provide finds a way to run each of kinds: the programs that are here, else
// installed, else containers. ErrMissing with the command to run if none.
func (m machine) provide(ctx context.Context, kinds []*kind, noInstall bool, tell func(format string, args ...any)) ([]want, error) {
	found, lacking := m.present(kinds)
	if len(lacking) == 0 {
		return found, nil
	}
	if why := m.cannotInstall(noInstall); why == nil {
		if err := m.install(ctx, lacking, tell); err != nil {
			return nil, err
		}
		found, lacking = m.present(kinds)
		if len(lacking) == 0 {
			return found, nil
		}
	}
	if err := m.run(ctx, io.Discard, nil, "docker", "compose", "version"); err != nil {
		return nil, fmt.Errorf("%w: %s. As root run: %s", ErrMissing, names(lacking), installCommand(lacking))
	}
	if err := m.run(ctx, io.Discard, nil, "docker", "info"); err != nil {
		return nil, fmt.Errorf("%w: %s, and docker does not answer. As root run: %s", ErrMissing, names(lacking), installCommand(lacking))
	}
	tell("%s: not on this machine, running in containers", names(lacking))
	for _, k := range lacking {
		found = append(found, want{kind: k, mode: Compose})
	}
	return found, nil
}

// present splits kinds into those whose programs are here and the others.
func (m machine) present(kinds []*kind) (found []want, lacking []*kind) {
	for _, k := range kinds {
		paths, missing := m.find(k)
		if len(missing) > 0 || !m.ownProcesses {
			lacking = append(lacking, k)
			continue
		}
		found = append(found, want{kind: k, mode: Own, programs: paths})
	}
	return found, lacking
}

// cannotInstall says why packages cannot be installed; nil if they can.
func (m machine) cannotInstall(forbidden bool) error {
	switch {
	case forbidden:
		return errors.New("installing is switched off")
	case !m.ownProcesses:
		return errors.New("not Linux")
	case !m.root:
		return errors.New("not root")
	case m.look("apt-get") == "":
		return errors.New("no apt-get")
	}
	return nil
}

func names(kinds []*kind) string {
	var out []string
	for _, k := range kinds {
		out = append(out, string(k.name))
	}
	return strings.Join(out, ", ")
}
