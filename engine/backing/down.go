package backing

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"syscall"
)

// Down stops every server of ours, side by side and in order where they can, and
// returns when none of their processes is left. Data and ports stay for the next
// Up. Calling it twice is harmless.
func (s *Services) Down(ctx context.Context) error {
	unlock, err := lock(ctx, s.cfg.Dir, lockSetup)
	if err != nil {
		return err
	}
	defer unlock()
	return s.down(ctx)
}

func (s *Services) down(ctx context.Context) error {
	if err := s.endAdopted(ctx); err != nil {
		return err
	}
	errs := make([]error, len(order))
	var wg sync.WaitGroup
	for i, name := range order {
		wg.Go(func() {
			err := s.one(ctx, name, func(st *state, r *record) error { return s.stop(ctx, st, name, r) })
			if !errors.Is(err, ErrUnknown) && !errors.Is(err, ErrForeign) {
				errs[i] = err
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// Adopt leaves a running process, whose parent is about to end, to Down: it ends
// adopted processes before the servers they use, with SIGTERM and, after 20 s,
// SIGKILL. The process should be in a session of its own, or the end of the
// terminal's will end it earlier.
func (s *Services) Adopt(name string, pid int) error {
	st, ok := readStat(pid)
	if !ok || st.dead() {
		return fmt.Errorf("adopt %s: process %d does not run", name, pid)
	}
	ctx, cancel := context.WithTimeout(context.Background(), listenTimeout)
	defer cancel()
	return update(ctx, s.cfg.Dir, func(to *state) error {
		to.Adopted = append(to.Adopted, adopted{Name: name, Process: process{PID: pid, Start: st.start, Boot: bootID()}})
		return nil
	})
}

// endAdopted ends what was adopted, in the order in which it was.
func (s *Services) endAdopted(ctx context.Context) error {
	st, err := readState(s.cfg.Dir)
	if err != nil || len(st.Adopted) == 0 {
		return err
	}
	for _, a := range st.Adopted {
		if err := a.Process.end(ctx, syscall.SIGTERM, stopGrace); err != nil {
			return fmt.Errorf("%s: %w", a.Name, err)
		}
		s.tell("%s: stopped", a.Name)
	}
	return update(ctx, s.cfg.Dir, func(st *state) error {
		st.Adopted = nil
		return nil
	})
}

// stop stops one service: the server first, then what it needed.
func (s *Services) stop(ctx context.Context, st *state, name Name, r *record) error {
	if r.Mode == Compose {
		return s.containers(st).stop(ctx, name)
	}
	running := r.Processes[roleServer].alive()
	errs := []error{r.Processes[roleServer].end(ctx, kinds[name].quit, stopGrace)}
	for role, p := range r.Processes {
		if role != roleServer {
			errs = append(errs, p.end(ctx, syscall.SIGTERM, stopGrace))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	if running {
		s.tell("%s: stopped", name)
	}
	return update(ctx, s.cfg.Dir, func(st *state) error {
		st.Services[name].Processes = nil
		return nil
	})
}

// Remove is Down, and deletes all data and the state. Other files in the
// directory stay.
func (s *Services) Remove(ctx context.Context) error {
	unlock, err := lock(ctx, s.cfg.Dir, lockSetup)
	if err != nil {
		return err
	}
	defer unlock()
	if err := s.down(ctx); err != nil {
		return err
	}
	st := s.snapshot()
	var errs []error
	for _, name := range order {
		if r := st.Services[name]; r != nil && r.Mode == Compose {
			errs = append(errs, s.containers(st).remove(ctx))
			break
		}
	}
	for _, name := range order {
		errs = append(errs, os.RemoveAll(filepath.Join(st.Data, string(name))), os.RemoveAll(filepath.Join(s.cfg.Dir, string(name))),
			os.RemoveAll(filepath.Join(s.cfg.Dir, string(name)+lockSuffix)))
	}
	if st.Data != s.cfg.Dir {
		errs = append(errs, os.RemoveAll(st.Data))
	}
	for _, file := range []string{stateFile, composeFile, lockState + lockSuffix, lockSetup + lockSuffix} {
		errs = append(errs, os.RemoveAll(filepath.Join(s.cfg.Dir, file)))
	}
	return errors.Join(errs...)
}
