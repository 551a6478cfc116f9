package backing

import (
	"context"
	"fmt"
	"syscall"
)

// Pause stops a service where it stands (SIGSTOP to it and all its children), as a
// machine does that swaps or whose hypervisor sleeps: its connections stay, nothing
// answers. It returns the ids of the processes it stopped. Resume lets them go on;
// so would Kill and Down. ErrForeign as for Kill.
func (s *Services) Pause(ctx context.Context, name Name) (pids []int, err error) {
	return s.signalAll(ctx, name, syscall.SIGSTOP)
}

// Resume lets a paused service go on. Resuming what was not paused is no error.
func (s *Services) Resume(ctx context.Context, name Name) (pids []int, err error) {
	return s.signalAll(ctx, name, syscall.SIGCONT)
}

func (s *Services) signalAll(ctx context.Context, name Name, sig syscall.Signal) (pids []int, err error) {
	err = s.one(ctx, name, func(_ *state, r *record) error {
		if r.Mode != Own {
			return fmt.Errorf("it is no process of ours: %w", ErrForeign)
		}
		for _, p := range r.Processes[roleServer].family() {
			if err := p.signal(sig); err != nil {
				return err
			}
			pids = append(pids, p.PID)
		}
		return nil
	})
	return pids, err
}

// Quit asks a service to end in order, as an operator does, and returns when none of
// its processes is left; what has not gone after 20 s is killed. Its data stays.
// ErrForeign as for Kill.
func (s *Services) Quit(ctx context.Context, name Name) error {
	return s.one(ctx, name, func(st *state, r *record) error {
		if r.Mode == Compose {
			return s.containers(st).stop(ctx, name)
		}
		return r.Processes[roleServer].end(ctx, kinds[name].quit, stopGrace)
	})
}

// PID is the id of a service's process; 0 where it does not run or is not ours.
func (s *Services) PID(name Name) int {
	if err := s.reload(); err != nil {
		return 0
	}
	r := s.snapshot().Services[name]
	if r == nil || r.Mode != Own || !r.Processes[roleServer].alive() {
		return 0
	}
	return r.Processes[roleServer].PID
}
