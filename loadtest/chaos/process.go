package chaos

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	processReady = 30 * time.Second // to say that it serves
	processStop  = 20 * time.Second // to end after SIGTERM
	stateWait    = 2 * time.Second  // for the kernel to have done what a signal says
	statePoll    = time.Millisecond
)

// process is one role, or the provider, as a child of ours. It is started, harmed
// and started again by one goroutine.
type process struct {
	name string
	exe  string
	args []string
	env  []string
	log  string

	cmd     *exec.Cmd
	ended   chan error // holds how it ended
	url     string     // where it serves, "" if nowhere
	metrics string     // and its metrics
	meant   bool       // we ended it
}

// start runs it and waits until it says that it serves. The log is appended to.
func (p *process) start(ctx context.Context) error {
	log, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }()
	said, says, err := os.Pipe()
	if err != nil {
		return err
	}
	defer func() { _ = said.Close() }()
	cmd := exec.Command(p.exe, p.args...) //nolint:noctx // the end of ctx would kill what stop asks first
	cmd.Env, cmd.Stdout, cmd.Stderr = p.env, says, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL}
	err = cmd.Start()
	_ = says.Close()
	if err != nil {
		return fmt.Errorf("start %s: %w", p.name, err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	p.cmd, p.ended, p.meant = cmd, ended, false
	if err := p.await(ctx, said); err != nil {
		return errors.Join(err, p.stop())
	}
	return nil
}

// await reads the line by which it says that it is ready.
func (p *process) await(ctx context.Context, said io.Reader) error {
	line := make(chan []byte, 1)
	go func() {
		b, _ := bufio.NewReader(said).ReadBytes('\n')
		line <- b
	}()
	timeout := time.NewTimer(processReady)
	defer timeout.Stop()
	select {
	case b := <-line:
		var at struct{ URL, Metrics string }
		if err := json.Unmarshal(b, &at); err != nil {
			return fmt.Errorf("%s did not start: see %s", p.name, p.log)
		}
		p.url, p.metrics = at.URL, at.Metrics
		return nil
	case <-timeout.C:
		return fmt.Errorf("%s was not ready within %s: see %s", p.name, processReady, p.log)
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (p *process) pid() int { return p.cmd.Process.Pid }

// kill ends it at once and returns how it ended.
func (p *process) kill() (how error) {
	p.meant = true
	_ = p.cmd.Process.Kill() // it may have ended
	how = <-p.ended
	p.ended <- how
	return how
}

// gone waits until it has ended, and returns how.
func (p *process) gone(ctx context.Context, most time.Duration) (how error, ok bool) { //nolint:revive // how it ended is no failure
	timeout := time.NewTimer(most)
	defer timeout.Stop()
	select {
	case how = <-p.ended:
		p.ended <- how
		return how, true
	case <-timeout.C:
	case <-ctx.Done():
	}
	return nil, false
}

// byItself tells whether it has ended without being asked to.
func (p *process) byItself() (how error, yes bool) { //nolint:revive // how it ended is no failure
	select {
	case how = <-p.ended:
		p.ended <- how
		return how, !p.meant
	default:
		return nil, false
	}
}

// stop ends it: SIGTERM, and SIGKILL if it does not go. Calling it twice is
// harmless.
func (p *process) stop() error {
	if p.cmd == nil {
		return nil
	}
	p.meant = true
	_ = p.cmd.Process.Signal(syscall.SIGCONT)
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	if _, ok := p.gone(context.Background(), processStop); ok {
		return nil
	}
	_ = p.kill() // how it ends is not the question
	return fmt.Errorf("%s did not end within %s of SIGTERM", p.name, processStop)
}

// processState is the letter that proc(5) gives a process; 0 if there is none.
func processState(pid int) byte {
	b, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return 0
	}
	rest := string(b[strings.LastIndexByte(string(b), ')')+1:])
	if f := strings.Fields(rest); len(f) > 0 {
		return f[0][0]
	}
	return 0
}

// stopped waits until all of them are stopped, or none is; false if that does not
// come.
func stopped(pids []int, want bool) bool {
	for end := time.Now().Add(stateWait); time.Now().Before(end); time.Sleep(statePoll) {
		all := true
		for _, pid := range pids {
			all = all && (processState(pid) == 'T') == want
		}
		if all {
			return true
		}
	}
	return false
}
