package backing

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	stopGrace = 20 * time.Second // for a server to shut down in order
	killGrace = 10 * time.Second // for the kernel to take away what was killed
)

// process names one process beyond doubt: ids are used again, an id with its
// start time is not.
type process struct {
	PID   int    `json:"pid"`
	Start uint64 `json:"start"` // clock ticks from boot to its start (proc(5), stat field 22)
	Boot  string `json:"boot"`  // the kernel's boot id, because Start begins anew at boot
}

// command is one program to run for a service.
type command struct {
	role   string
	path   string
	args   []string
	env    []string
	dir    string // working directory, and where its output goes: <dir>/out.log
	listen int    // port it must accept on before the next command of the service starts; 0 none
}

const (
	outputFile = "out.log"
	outputTail = 1500 // bytes of it that an error shows
)

// launch starts cmd in a session of its own, so that neither a terminal's Ctrl-C
// nor the end of this process reaches it, under the account given.
func launch(cmd command, who account) (process, error) {
	out, err := os.OpenFile(filepath.Join(cmd.dir, outputFile), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return process{}, err
	}
	defer func() { _ = out.Close() }()
	c := exec.Command(cmd.path, cmd.args...)
	c.Dir, c.Env, c.Stdout, c.Stderr = cmd.dir, cmd.env, out, out
	c.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Credential: who.credential()}
	if err := c.Start(); err != nil {
		return process{}, fmt.Errorf("start %s: %w", cmd.path, err)
	}
	pid := c.Process.Pid
	_ = c.Process.Release() // it outlives us; reap collects it where it does not
	st, ok := readStat(pid)
	if !ok {
		return process{}, fmt.Errorf("%s ended at once: %s", cmd.path, tail(out.Name()))
	}
	return process{PID: pid, Start: st.start, Boot: bootID()}, nil
}

// alive says whether p still runs. A process that has ended but was not waited
// for does not, and is waited for if it is our child.
func (p process) alive() bool {
	if p.PID == 0 || p.Boot != bootID() {
		return false
	}
	st, ok := readStat(p.PID)
	if !ok || st.start != p.Start {
		return false
	}
	if st.dead() {
		reap(p.PID)
		return false
	}
	return true
}

func reap(pid int) {
	var ws syscall.WaitStatus
	_, _ = syscall.Wait4(pid, &ws, syscall.WNOHANG, nil) // ECHILD: not ours to wait for
}

// signal signals p and nobody who has got its id since. The handle is taken
// first and then p is looked at again, so the id cannot change hands in between
// (os.FindProcess holds a pidfd).
func (p process) signal(sig syscall.Signal) error {
	h, err := os.FindProcess(p.PID)
	if err != nil {
		return nil
	}
	defer func() { _ = h.Release() }()
	if !p.alive() {
		return nil
	}
	if err := h.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("signal process %d: %w", p.PID, err)
	}
	return nil
}

// family returns p and all that descend from it or share its session: RabbitMQ's
// port programs make process groups of their own, PostgreSQL's children make
// sessions of their own, so neither a group nor a session holds them all. Where p
// itself has ended, its session is what is left of it; while a session has
// members the kernel gives its id to no other process.
func (p process) family() []process {
	if p.PID == 0 || p.Boot != bootID() {
		return nil
	}
	all := readStats()
	if st, ok := all[p.PID]; ok && st.start != p.Start {
		return nil
	}
	member := map[int]bool{p.PID: true}
	for grown := true; grown; {
		grown = false
		for pid, st := range all {
			if !member[pid] && !st.dead() && (member[st.parent] || st.session == p.PID) {
				member[pid], grown = true, true
			}
		}
	}
	var out []process
	for pid := range member {
		if st, ok := all[pid]; ok && st.start >= p.Start {
			out = append(out, process{PID: pid, Start: st.start, Boot: p.Boot})
		}
	}
	return out
}

// end ends p and its family: with quit first and SIGKILL after grace, or with
// SIGKILL at once where grace is 0. It returns when none of them runs.
func (p process) end(ctx context.Context, quit syscall.Signal, grace time.Duration) error {
	family := p.family()
	if len(family) == 0 {
		return nil
	}
	if grace > 0 {
		if err := p.signal(quit); err != nil {
			return err
		}
		polite, cancel := context.WithTimeout(ctx, grace)
		defer cancel()
		if gone(polite, family) == nil {
			return nil
		}
		family = append(family, p.family()...) // and those born meanwhile
	}
	for _, f := range family {
		if err := f.signal(syscall.SIGKILL); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, killGrace)
	defer cancel()
	return gone(ctx, family)
}

// gone returns nil once none of them runs.
func gone(ctx context.Context, family []process) error {
	for {
		left := 0
		for _, p := range family {
			if p.alive() {
				left = p.PID
			}
		}
		if left == 0 {
			return nil
		}
		if err := pause(ctx); err != nil {
			return fmt.Errorf("process %d does not end: %w", left, err)
		}
	}
}

// stat is what proc(5) says of a process.
type stat struct {
	state           byte
	parent, session int
	start           uint64
}

func (s stat) dead() bool { return s.state == 'Z' || s.state == 'X' }

// readStat reads /proc/<pid>/stat; false if there is no such process.
func readStat(pid int) (stat, bool) {
	b, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return stat{}, false
	}
	return parseStat(b)
}

// parseStat parses a line of /proc/<pid>/stat. The program's name, in brackets,
// may hold blanks and brackets itself: fields are counted from the last one.
func parseStat(b []byte) (stat, bool) {
	const (
		state, parent, session, start = 0, 1, 3, 19 // after the name
		needed                        = 20
	)
	end := bytes.LastIndexByte(b, ')')
	if end < 0 {
		return stat{}, false
	}
	f := strings.Fields(string(b[end+1:]))
	if len(f) < needed {
		return stat{}, false
	}
	st := stat{state: f[state][0]}
	var errs [3]error
	st.parent, errs[0] = strconv.Atoi(f[parent])
	st.session, errs[1] = strconv.Atoi(f[session])
	st.start, errs[2] = strconv.ParseUint(f[start], 10, 64)
	return st, errors.Join(errs[:]...) == nil
}

// readStats reads the stat of every process.
func readStats() map[int]stat {
	out := map[int]stat{}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return out
	}
	for _, e := range entries {
		if pid, err := strconv.Atoi(e.Name()); err == nil {
			if st, ok := readStat(pid); ok {
				out[pid] = st
			}
		}
	}
	return out
}

// bootID names this run of the kernel.
var bootID = sync.OnceValue(func() string {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
})

// canRunProcesses says whether this system lets us tell processes apart as above.
func canRunProcesses() bool { _, ok := readStat(os.Getpid()); return ok }

// tail returns the end of a file, for an error.
func tail(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	if b = lastBytes(b); len(b) == 0 {
		return "(" + path + " is empty)"
	}
	return "\n" + string(b)
}

// lastBytes returns the end of some output.
func lastBytes(b []byte) []byte {
	if len(b) > outputTail {
		b = b[len(b)-outputTail:]
	}
	return bytes.TrimSpace(b)
}
