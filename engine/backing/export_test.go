package backing

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strings"
	"syscall"
	"time"
)

// ChosenPort says whether port is one that freePort may hand out.
func ChosenPort(port int) bool { return port >= firstPort && port <= lastPort }

// FreePort is freePort.
func FreePort(taken map[int]bool) (int, error) { return freePort(taken) }

// ParseStat is parseStat, taken apart.
func ParseStat(line string) (state byte, parent, session int, start uint64, ok bool) {
	st, ok := parseStat([]byte(line))
	return st.state, st.parent, st.session, st.start, ok
}

// ChangePorts gives a record that had port another one if it is not free, and
// says which it has then.
func ChangePorts(port int) (int, error) {
	st := newState("")
	r := &record{Ports: map[string]int{portMain: port}}
	st.Services[Redis] = r
	err := st.choosePorts(r, []string{portMain})
	return r.Ports[portMain], err
}

// End ends process pid as Down and Kill do; late changes its start time, as if
// the id had been used again.
func End(ctx context.Context, pid int, late uint64, grace time.Duration) error {
	st, ok := readStat(pid)
	if !ok {
		return errors.New("no such process")
	}
	return process{PID: pid, Start: st.start + late, Boot: bootID()}.end(ctx, syscall.SIGTERM, grace)
}

// Alive says whether pid runs and has not merely not been waited for.
func Alive(pid int) bool {
	st, ok := readStat(pid)
	return ok && !st.dead()
}

// Runs says whether the process that had pid, and started late ticks after the
// one that has it now, runs.
func Runs(pid int, late uint64) bool {
	st, _ := readStat(pid)
	return process{PID: pid, Start: st.start + late, Boot: bootID()}.alive()
}

// Family returns the ids of a process and its descendants.
func Family(pid int) (ids []int) {
	st, _ := readStat(pid)
	for _, p := range (process{PID: pid, Start: st.start, Boot: bootID()}).family() {
		ids = append(ids, p.PID)
	}
	return ids
}

// PIDs returns the ids of all processes that state.json names.
func (s *Services) PIDs() (ids []int) {
	st, err := readState(s.cfg.Dir)
	if err != nil {
		return nil
	}
	for _, r := range st.Services {
		for _, p := range r.Processes {
			ids = append(ids, p.PID)
		}
	}
	return ids
}

// Lock is lock.
func Lock(ctx context.Context, dir, name string) (unlock func(), err error) {
	return lock(ctx, dir, name)
}

// Fake is a machine that is not there.
type Fake struct {
	Root      bool
	NotLinux  bool
	Programs  map[string]string // in PATH: name → path
	Files     []string          // elsewhere: what a glob may find
	Installs  map[string]string // added to Programs by apt-get install
	Fails     []string          // commands that fail, by how they begin
	Output    string            // what apt-get says
	OnCommand func(env []string, command string) error

	Ran  []string // all commands, and "hold" and "release"
	Told []string
}

func (f *Fake) machine() machine {
	return machine{
		root: f.Root,
		look: func(name string) string { return f.Programs[name] },
		glob: func(pattern string) (found []string) {
			for _, file := range f.Files {
				if ok, _ := path.Match(pattern, file); ok {
					found = append(found, file)
				}
			}
			return found
		},
		run:          f.run,
		ownProcesses: !f.NotLinux,
		holdServices: func() (func() error, error) {
			f.Ran = append(f.Ran, "hold")
			return func() error { f.Ran = append(f.Ran, "release"); return nil }, nil
		},
	}
}

func (f *Fake) run(_ context.Context, out io.Writer, env []string, args ...string) error {
	command := strings.Join(args, " ")
	f.Ran = append(f.Ran, command)
	for _, start := range f.Fails {
		if strings.HasPrefix(command, start) {
			_, _ = io.WriteString(out, f.Output)
			return errors.New("exit status 1")
		}
	}
	if strings.HasPrefix(command, "apt-get install") {
		_, _ = io.WriteString(out, f.Output)
		maps.Copy(f.Programs, f.Installs)
	}
	if f.OnCommand != nil {
		return f.OnCommand(env, command)
	}
	return nil
}

// Provide finds a way to run the services, and tells the mode of each.
func (f *Fake) Provide(ctx context.Context, noInstall bool, services ...Name) (map[Name]Mode, error) {
	var wanted []*kind
	for _, name := range services {
		wanted = append(wanted, kinds[name])
	}
	found, err := f.machine().provide(ctx, wanted, noInstall, func(format string, args ...any) {
		f.Told = append(f.Told, strings.TrimSpace(fmt.Sprintf(format, args...)))
	})
	modes := map[Name]Mode{}
	for _, w := range found {
		modes[w.kind.name] = w.mode
	}
	return modes, err
}

// Find returns the paths of a service's programs on the fake.
func (f *Fake) Find(name Name) (paths map[string]string, missing []string) {
	return f.machine().find(kinds[name])
}

// UpOn is Up on the fake.
func (f *Fake) UpOn(ctx context.Context, cfg Config) (*Services, error) {
	return upOn(ctx, cfg, f.machine())
}

// Variables returns the names that compose.yaml is given, for all services.
func Variables() (names []string) {
	st := newState("")
	for _, name := range order {
		st.Services[name] = &record{Mode: Compose}
	}
	for _, v := range (containers{state: st}).environment() {
		names = append(names, strings.SplitN(v, "=", 2)[0])
	}
	slices.Sort(names)
	return names
}

// AptLines returns what is told of apt-get's output, written in two pieces.
func AptLines(output string, cut int) (told []string) {
	a := &aptLines{all: new(bytes.Buffer), tell: func(format string, args ...any) { told = append(told, fmt.Sprintf(format, args...)) }}
	_, _ = io.WriteString(a, output[:cut])
	_, _ = io.WriteString(a, output[cut:])
	return told
}

// Buried waits for a killed server that nobody has waited for.
func Buried(ctx context.Context, dataDir string) { buried(ctx, dataDir) }
