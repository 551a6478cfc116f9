package main

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
	"syscall"
	"time"
)

const (
	childReady = 60 * time.Second // for a child to say that it serves
	childStop  = 20 * time.Second // for a child to end after SIGTERM
)

// child is a process of this same binary.
type child struct {
	name  string
	log   string // file of its standard error
	cmd   *exec.Cmd
	ended chan error
}

// spec says what child to start.
type spec struct {
	name  string   // its log is name.log in the state directory
	args  []string // command and flags
	keep  bool     // else it is killed if this process dies
	env   []string // besides this process' own
	exe   string   // another build of this program; empty for this one
	ready any      // takes the one line of JSON by which it says that it is ready
}

// startChild starts this binary and waits until it says that it is ready.
func startChild(ctx context.Context, g *Globals, s spec) (*child, error) {
	exe := s.exe
	if exe == "" {
		var err error
		if exe, err = os.Executable(); err != nil {
			return nil, err
		}
	}
	if err := os.MkdirAll(g.Dir, 0o755); err != nil {
		return nil, err
	}
	c := &child{name: s.name, log: filepath.Join(g.Dir, s.name+".log"), ended: make(chan error, 1)}
	logFile, err := os.Create(c.log)
	if err != nil {
		return nil, err
	}
	defer func() { _ = logFile.Close() }()
	said, says, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer func() { _ = said.Close() }()
	// Not CommandContext: it would kill what SIGTERM lets drain.
	c.cmd = exec.Command(exe, append([]string{"--dir", g.Dir, "--log-level", g.LogLevel}, append(s.args, "--json")...)...) //nolint:noctx // see above
	c.cmd.Stdout, c.cmd.Stderr = says, logFile
	c.cmd.Env = append(os.Environ(), s.env...)
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if !s.keep {
		c.cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	}
	err = c.cmd.Start()
	_ = says.Close()
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", s.name, err)
	}
	go func() { c.ended <- c.cmd.Wait() }()
	if err := c.await(ctx, said, s.ready); err != nil {
		return nil, errors.Join(err, c.stop())
	}
	return c, nil
}

// await reads the ready line.
func (c *child) await(ctx context.Context, said io.Reader, ready any) error {
	line := make(chan []byte, 1)
	go func() {
		b, _ := bufio.NewReader(said).ReadBytes('\n')
		line <- b
	}()
	timeout := time.NewTimer(childReady)
	defer timeout.Stop()
	select {
	case b := <-line:
		if err := json.Unmarshal(b, ready); err != nil {
			return fmt.Errorf("%s did not start: see %s", c.name, c.log)
		}
		return nil
	case <-timeout.C:
		return fmt.Errorf("%s was not ready within %s: see %s", c.name, childReady, c.log)
	case <-ctx.Done():
		return ctx.Err()
	}
}

// stop ends the child: SIGTERM, and SIGKILL if it does not go. Calling it twice
// is harmless.
func (c *child) stop() error {
	if c == nil || c.ended == nil {
		return nil
	}
	_ = c.cmd.Process.Signal(syscall.SIGTERM)
	timeout := time.NewTimer(childStop)
	defer timeout.Stop()
	var err error
	select {
	case err = <-c.ended:
	case <-timeout.C:
		_ = c.cmd.Process.Kill() // it may have ended just now
		err = <-c.ended
		err = fmt.Errorf("did not end within %s of SIGTERM: %w", childStop, err)
	}
	c.ended = nil
	if err != nil {
		return fmt.Errorf("%s (see %s): %w", c.name, c.log, err)
	}
	return nil
}
