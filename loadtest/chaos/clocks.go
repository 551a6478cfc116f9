package chaos

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"time"
)

// clockFaults are how wrong the clock of a role's machine becomes.
var clockFaults = []struct {
	fault string
	by    time.Duration
}{{"clock+1h", time.Hour}, {"clock-1h", -time.Hour}}

// tellsClock is where a role serves what bears the time: the Date of its answers is
// what its own clock says.
const tellsClock = "127.0.0.1:0"

// roleClockCells set the clock of a role's machine wrong, and right again. The roles
// are said to go by durations of their own and by the clocks of Redis and PostgreSQL
// only: nobody should notice.
func roleClockCells() (cells []*Cell) {
	for _, role := range []string{door, relay, worker, recovery} {
		for _, f := range clockFaults {
			cells = append(cells, &Cell{
				Component: role, Fault: f.fault, kind: role, hold: long, own: shiftable(role), arm: ready,
				strike: shiftClock(f.by), heal: unshiftClock(role, f.by),
			})
		}
	}
	return cells
}

// shiftable makes the role run as a build whose clock can be set wrong.
func shiftable(role string) func(context.Context, *house) error {
	return func(_ context.Context, h *house) error {
		if _, err := os.Stat(h.cfg.Shifted); err != nil {
			return fmt.Errorf("this cell runs a build whose clock can be set wrong: `make shifted` (%w)", err)
		}
		h.shift = filepath.Join(h.cfg.Dir, h.name+".shift")
		h.shifted = role
		h.closers = append(h.closers, func(context.Context) error { return os.Remove(h.shift) })
		return os.WriteFile(h.shift, make([]byte, 8), 0o600)
	}
}

// setShift writes into the file that the role has mapped.
func (h *house) setShift(by time.Duration) (err error) {
	f, err := os.OpenFile(h.shift, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	_, err = f.WriteAt(binary.LittleEndian.AppendUint64(nil, uint64(int64(by.Seconds()))), 0)
	return err
}

func shiftClock(by time.Duration) deed {
	return func(_ context.Context, h *house) (string, error) {
		h.memory["shifted"] = true
		return "", h.setShift(by)
	}
}

// unshiftClock asks the role what time it is, and sets its clock right.
func unshiftClock(role string, by time.Duration) deed {
	return func(ctx context.Context, h *house) (string, error) {
		if h.memory["shifted"] == nil {
			return "", nil
		}
		off, err := clockOf(ctx, h.proc[role].metrics)
		if err := errors.Join(err, h.setShift(0)); err != nil {
			return "", err
		}
		if (off - by).Abs() > clockNear {
			return "", unproven("the clock of %s was %s off, not %s", role, off, by)
		}
		return fmt.Sprintf("pid %d went by a clock %s off", h.proc[role].pid(), off.Round(time.Second)), nil
	}
}

// clockOf is how far the clock of who serves at url is off ours.
func clockOf(ctx context.Context, url string) (time.Duration, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url+"/healthz", http.NoBody)
	if err != nil {
		return 0, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err
	}
	_ = resp.Body.Close()
	at, err := http.ParseTime(resp.Header.Get("Date"))
	return time.Until(at), err
}
