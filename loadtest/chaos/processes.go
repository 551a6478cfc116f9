package chaos

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"syscall"
	"time"

	"github.com/doorbuster/doorbuster/engine/backing"
)

// away is how long what was killed or stopped in order stays away.
var away = span{300 * time.Millisecond, 2 * time.Second}

// pauses are the SIGSTOPs.
var pauses = map[string]time.Duration{"stop-1s": time.Second, "stop-5s": 5 * time.Second, "stop-30s": 30 * time.Second}

func processCells() (cells []*Cell) {
	for _, role := range []string{door, relay, worker, recovery, provider} {
		cells = append(cells,
			&Cell{Component: role, Fault: "kill", kind: role, hold: away, strike: killRole(role), heal: restartRole(role)},
			&Cell{Component: role, Fault: "term", kind: role, hold: away, strike: termRole(role), heal: restartRole(role)})
		for _, fault := range []string{"stop-1s", "stop-5s", "stop-30s"} {
			hold := span{pauses[fault], pauses[fault]}
			cells = append(cells, &Cell{Component: role, Fault: fault, kind: role, hold: hold, strike: stopRole(role), heal: contRole(role)})
		}
	}
	for _, name := range []backing.Name{backing.Redis, backing.RabbitMQ, backing.PostgreSQL} {
		lossy := name == backing.Redis
		cells = append(cells,
			&Cell{Component: string(name), Fault: "kill", kind: string(name), lossy: lossy, hold: away, strike: killServer(name), heal: startServer(name)},
			&Cell{Component: string(name), Fault: "term", kind: string(name), lossy: lossy, hold: away, strike: quitServer(name), heal: startServer(name)})
		for _, fault := range []string{"stop-1s", "stop-5s", "stop-30s"} {
			hold := span{pauses[fault], pauses[fault]}
			cells = append(cells, &Cell{Component: string(name), Fault: fault, kind: string(name), lossy: lossy, hold: hold, strike: pauseServer(name), heal: resumeServer(name)})
		}
	}
	return cells
}

type deed = func(ctx context.Context, h *house) (string, error)

func killRole(role string) deed {
	return func(_ context.Context, h *house) (string, error) {
		p := h.proc[role]
		h.memory["pid"] = p.pid()
		var exit *exec.ExitError
		how := p.kill()
		if !errors.As(how, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
			return "", unproven("%s ended with %v", role, how)
		}
		return fmt.Sprintf("pid %d: %v", p.pid(), how), nil
	}
}

func termRole(role string) deed {
	return func(_ context.Context, h *house) (string, error) {
		p := h.proc[role]
		h.memory["pid"] = p.pid()
		p.meant = true
		return "", p.cmd.Process.Signal(syscall.SIGTERM)
	}
}

// restartRole waits for the end of what was asked to end, and starts it again.
func restartRole(role string) deed {
	return func(ctx context.Context, h *house) (string, error) {
		p := h.proc[role]
		was, struck := h.memory["pid"].(int)
		if !struck {
			return "", nil
		}
		how, ok := p.gone(ctx, processStop)
		if !ok {
			return "", fmt.Errorf("%s (pid %d) did not end within %s of SIGTERM", role, was, processStop)
		}
		if role == provider {
			if err := h.startProvider(ctx, hostOf(p.url), nil); err != nil {
				return "", err
			}
		} else if err := p.start(ctx); err != nil {
			return "", err
		}
		if now := h.proc[role].pid(); now != was {
			return fmt.Sprintf("pid %d → %d after %v", was, now, ended(how)), nil
		}
		return "", unproven("%s has its old pid %d", role, was)
	}
}

func ended(how error) string {
	if how == nil {
		return "exit status 0"
	}
	return how.Error()
}

func stopRole(role string) deed {
	return func(_ context.Context, h *house) (string, error) {
		pid := h.proc[role].pid()
		if err := h.proc[role].cmd.Process.Signal(syscall.SIGSTOP); err != nil {
			return "", err
		}
		if !stopped([]int{pid}, true) {
			return "", unproven("pid %d is in state %c", pid, processState(pid))
		}
		return fmt.Sprintf("pid %d in state T", pid), nil
	}
}

func contRole(role string) deed {
	return func(_ context.Context, h *house) (string, error) {
		pid := h.proc[role].pid()
		if processState(pid) != 'T' {
			return "", unproven("pid %d was no longer stopped", pid)
		}
		return "", h.proc[role].cmd.Process.Signal(syscall.SIGCONT)
	}
}

func killServer(name backing.Name) deed {
	return func(ctx context.Context, h *house) (string, error) {
		pid := h.cfg.Services.PID(name)
		h.memory["pid"] = pid
		if err := h.cfg.Services.Kill(ctx, name); err != nil {
			return "", err
		}
		if pid == 0 || h.cfg.Services.PID(name) != 0 {
			return "", unproven("%s had pid %d", name, pid)
		}
		return fmt.Sprintf("pid %d killed", pid), nil
	}
}

// quitServer begins; a server takes its time.
func quitServer(name backing.Name) deed {
	return func(ctx context.Context, h *house) (string, error) {
		h.memory["pid"] = h.cfg.Services.PID(name)
		done := make(chan error, 1)
		h.memory["quit"] = done
		go func() { done <- h.cfg.Services.Quit(context.WithoutCancel(ctx), name) }()
		return "", nil
	}
}

func startServer(name backing.Name) deed {
	return func(ctx context.Context, h *house) (string, error) {
		was, struck := h.memory["pid"].(int)
		if quit, ok := h.memory["quit"].(chan error); ok {
			if err := <-quit; err != nil {
				return "", err
			}
		}
		if err := h.cfg.Services.Start(ctx, name); err != nil {
			return "", fmt.Errorf("%w: %w", errBench, err)
		}
		now := h.cfg.Services.PID(name)
		if struck && now == was {
			return "", unproven("%s has its old pid %d", name, was)
		}
		return fmt.Sprintf("pid %d → %d", was, now), nil
	}
}

func pauseServer(name backing.Name) deed {
	return func(ctx context.Context, h *house) (string, error) {
		pids, err := h.cfg.Services.Pause(ctx, name)
		if err != nil {
			return "", err
		}
		pid := h.cfg.Services.PID(name)
		if !stopped([]int{pid}, true) {
			return "", unproven("%s: pid %d is in state %c", name, pid, processState(pid))
		}
		return fmt.Sprintf("%d processes stopped, pid %d in state T", len(pids), pid), nil
	}
}

func resumeServer(name backing.Name) deed {
	return func(ctx context.Context, h *house) (string, error) {
		was := processState(h.cfg.Services.PID(name))
		if _, err := h.cfg.Services.Resume(ctx, name); err != nil {
			return "", err
		}
		if was != 'T' {
			return "", unproven("%s was no longer stopped", name)
		}
		return "", nil
	}
}
