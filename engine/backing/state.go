package backing

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

const (
	stateFile    = "state.json"
	stateVersion = 1
	lockSetup    = "setup"
	lockState    = "state"
	lockSuffix   = ".lock"
	pollEvery    = 20 * time.Millisecond
)

// state is what state.json holds: all that a later process must know to find,
// check and end what an earlier one started.
type state struct {
	Version  int              `json:"version"`
	ID       string           `json:"id"`       // tells our node and container names from others'
	Password string           `json:"password"` // of all servers; the file is its owner's alone
	Data     string           `json:"data"`     // parent of the servers' own directories
	Services map[Name]*record `json:"services"`
	Adopted  []adopted        `json:"adopted,omitempty"`
}

// adopted is a process that another package started and left to Down.
type adopted struct {
	Name    string  `json:"name"`
	Process process `json:"process"`
}

// record is one service in state.json.
type record struct {
	Mode      Mode               `json:"mode"`
	URL       string             `json:"url"`
	Ports     map[string]int     `json:"ports,omitempty"`
	Programs  map[string]string  `json:"programs,omitempty"`
	Fsync     string             `json:"fsync,omitempty"`
	Memory    int64              `json:"memory,omitempty"`
	Processes map[string]process `json:"processes,omitempty"` // by role
}

func newState(data string) *state {
	return &state{
		Version: stateVersion, ID: strings.ToLower(rand.Text()[:8]), Password: rand.Text(),
		Data: data, Services: map[Name]*record{},
	}
}

// readState reads dir's state; ErrNotUp if there is none.
func readState(dir string) (*state, error) {
	b, err := os.ReadFile(filepath.Join(dir, stateFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s: %w", dir, ErrNotUp)
	}
	if err != nil {
		return nil, err
	}
	s := new(state)
	if err := json.Unmarshal(b, s); err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(dir, stateFile), err)
	}
	if s.Version != stateVersion {
		return nil, fmt.Errorf("%s: written by another version (%d, this is %d): stop those servers with it",
			filepath.Join(dir, stateFile), s.Version, stateVersion)
	}
	return s, nil
}

// write replaces state.json in one step: a reader sees the old or the new one.
func (s *state) write(dir string) error {
	b, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	tmp, err := os.CreateTemp(dir, stateFile+"-*") // mode 0600: the password
	if err != nil {
		return err
	}
	_, err = tmp.Write(append(b, '\n'))
	if err := errors.Join(err, tmp.Close()); err != nil {
		_ = os.Remove(tmp.Name())
		return err
	}
	return os.Rename(tmp.Name(), filepath.Join(dir, stateFile))
}

// lock waits until no other call, of this process or another, holds the lock of
// that name in dir. The lock goes with the returned function, or with the
// process. Locks are taken in the order: setup, one service's, state.
func lock(ctx context.Context, dir, name string) (unlock func(), err error) {
	f, err := os.OpenFile(filepath.Join(dir, name+lockSuffix), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return func() { _ = f.Close() }, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) {
			_ = f.Close()
			return nil, fmt.Errorf("lock %s: %w", f.Name(), err)
		}
		if err := pause(ctx); err != nil {
			_ = f.Close()
			return nil, fmt.Errorf("another process works on %s: %w", f.Name(), err)
		}
	}
}

// update changes state.json in dir: reads it, lets change change it, writes it.
func update(ctx context.Context, dir string, change func(*state) error) error {
	unlock, err := lock(ctx, dir, lockState)
	if err != nil {
		return err
	}
	defer unlock()
	st, err := readState(dir)
	if err != nil {
		return err
	}
	if err := change(st); err != nil {
		return err
	}
	return st.write(dir)
}

// pause waits for one polling interval, or for the end of ctx.
func pause(ctx context.Context) error {
	t := time.NewTimer(pollEvery)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
