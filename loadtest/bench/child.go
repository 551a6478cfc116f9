package bench

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	startTimeout = 60 * time.Second // for a child to say where it listens
	stopTimeout  = 20 * time.Second // after SIGTERM, before SIGKILL
)

// child is a process of ours.
type child struct {
	name string
	cmd  *exec.Cmd
	urls []string // where it listens, in the order it said so
}

var listening = regexp.MustCompile(`http://[0-9.:]+`)

// start starts a child that says in the first line of its standard output where
// it listens ("… at http://127.0.0.1:1234 …"). Its log goes to a file in
// Config.Dir.
func (b *bench) start(ctx context.Context, name string, args ...string) (*child, error) {
	return b.startWith(ctx, b.cfg.Env, name, args...)
}

// startWith is start, with an environment of the child's own.
func (b *bench) startWith(ctx context.Context, env []string, name string, args ...string) (*child, error) {
	log, err := os.Create(filepath.Join(b.cfg.Dir, "bench-"+name+".log"))
	if err != nil {
		return nil, err
	}
	defer func() { _ = log.Close() }() // the child has its own descriptor
	// Not bound to ctx: the end of ctx would kill it, and stop asks first.
	cmd := exec.Command(b.cfg.Exe, append(append([]string(nil), b.cfg.Args...), args...)...)
	cmd.Env, cmd.Stderr = env, log
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	c := &child{name: name, cmd: cmd}
	first := make(chan string, 1)
	go func() { // ends with the child's standard output
		s := bufio.NewScanner(out)
		s.Scan()
		first <- s.Text()
		for s.Scan() {
			continue
		}
	}()
	select {
	case line := <-first:
		if c.urls = listening.FindAllString(line, -1); len(c.urls) > 0 {
			b.children = append(b.children, c)
			return c, nil
		}
		err = fmt.Errorf("start %s: it said %q; see %s", name, line, log.Name())
	case <-ctx.Done():
		err = ctx.Err()
	case <-time.After(startTimeout):
		err = fmt.Errorf("start %s: it said nothing for %v; see %s", name, startTimeout, log.Name())
	}
	return nil, errors.Join(err, c.stop())
}

// stop asks the child to end, and kills it if it does not. Calling it twice is
// harmless.
func (c *child) stop() error {
	if c.cmd.ProcessState != nil {
		return nil
	}
	_ = c.cmd.Process.Signal(syscall.SIGTERM)
	kill := time.AfterFunc(stopTimeout, func() { _ = c.cmd.Process.Kill() })
	defer kill.Stop()
	err := c.cmd.Wait()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return fmt.Errorf("%s: %w", c.name, err)
	}
	return err
}

// resident returns the child's resident memory in bytes.
func (c *child) resident() (int64, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", c.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.SplitSeq(string(status), "\n") {
		if kb, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			n, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(kb), "kB")), 10, 64)
			return n << 10, err
		}
	}
	return 0, errors.New("no VmRSS in the process' status")
}

// machine describes the machine in a line.
func machine() string {
	model, mem := "unknown CPU", "?"
	if b, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.SplitSeq(string(b), "\n") {
			if _, v, ok := strings.Cut(line, ":"); ok && strings.HasPrefix(line, "model name") {
				model = strings.TrimSpace(v)
				break
			}
		}
	}
	if b, err := os.ReadFile("/proc/meminfo"); err == nil {
		var kb int64
		if _, err := fmt.Sscanf(string(b), "MemTotal: %d kB", &kb); err == nil {
			mem = fmt.Sprintf("%d GiB", (kb+1<<19)>>20)
		}
	}
	return fmt.Sprintf("%s, %d cores, %s of memory", model, cores(), mem)
}
