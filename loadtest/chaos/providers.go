package chaos

import (
	"context"
	"fmt"
	"time"
)

// long is how long the provider misbehaves.
var long = span{2 * time.Second, 5 * time.Second}

// faults of the provider, as flags of its process.
var providerFaults = []struct {
	fault string
	flags []string
}{
	{"slow", []string{"--latency", "800ms"}},
	{"timeout-stored", []string{"--timeouts-stored", "300"}},
	{"timeout-lost", []string{"--timeouts-lost", "300"}},
	{"500-stored", []string{"--errors-stored", "500"}},
	{"429", []string{"--throttled", "700"}},
	{"capture-refused", []string{"--capture-refused", "200"}},
}

// providerCells change what the provider does: it dies and comes back at once with
// other faults, on the same book. Killed roles are elsewhere.
func providerCells() (cells []*Cell) {
	for _, f := range providerFaults {
		cells = append(cells, &Cell{
			Component: provider, Fault: f.fault, kind: provider, hold: long,
			strike: func(ctx context.Context, h *house) (string, error) { return swapProvider(ctx, h, f.flags) },
			heal: func(ctx context.Context, h *house) (string, error) {
				if h.memory["swapped"] == nil {
					return "", nil
				}
				_, err := swapProvider(ctx, h, nil)
				return "", err
			},
		})
	}
	return cells
}

func swapProvider(ctx context.Context, h *house, flags []string) (string, error) {
	old := h.proc[provider]
	h.memory["swapped"] = true
	_ = old.kill() // the new pid proves it
	if err := h.startProvider(ctx, hostOf(old.url), flags); err != nil {
		return "", err
	}
	return fmt.Sprintf("pid %d → %d with %v", old.pid(), h.proc[provider].pid(), flags), nil
}
