package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/doorbuster/doorbuster/loadtest/chaos"
)

const (
	chaosPairs = 12 // at least
	chaosMost  = 4 * time.Minute
	// chaosRest is how long a sale may take to come to rest. The figure is 10 s; here
	// other tests and the race detector share the machine.
	chaosRest = 15 * time.Second
	// chaosCells are the deaths of every process, what Redis can lose, and of the others
	// what hurts most in little time.
	chaosCells = "*/kill,redis/empty-start,redis/aof-1s,door-redis/blackhole,worker-postgresql/reset,clients/same-key-50"
)

// TestChaosPairs breaks real servers and real roles, each once, at a moment that the
// seed chooses, as `make chaos` does with all cells.
func TestChaosPairs(t *testing.T) {
	if testing.Short() {
		t.Skip("starts real servers")
	}
	alone(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "chaos")
	lines := filepath.Join(t.TempDir(), "runs.json")
	defer must(t, &Globals{Dir: dir}, "down", "--wipe")
	ctx, cancel := context.WithTimeout(t.Context(), chaosMost+time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, self, "--dir", dir, "--log-level", "error", "chaos", "--pairs", chaos.Each, "--cells", chaosCells,
		"--for", "3m40s", "--json", lines)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = time.Minute
	began := time.Now()
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("%v: %s", err, out)
	}
	b, err := os.ReadFile(lines)
	if err != nil {
		t.Fatal(err)
	}
	counted := 0
	for scan := bufio.NewScanner(bytes.NewReader(b)); scan.Scan(); {
		var r chaos.Result
		if err := json.Unmarshal(scan.Bytes(), &r); err != nil {
			t.Fatal(err)
		}
		t.Log(r.Line())
		if r.Valid && r.Proof != "" && r.Acked > 0 {
			counted++
		}
		if rest := time.Duration(r.Convergence) * time.Millisecond; r.Valid && rest > chaosRest {
			t.Errorf("%s came to rest after %s, want %s", r.Name(), rest, chaosRest)
		}
	}
	if took := time.Since(began); counted < chaosPairs || took > chaosMost {
		t.Errorf("%d pairs in %s, want at least %d in %s", counted, took.Round(time.Second), chaosPairs, chaosMost)
	}
}
