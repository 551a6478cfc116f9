package main

import (
	"encoding/binary"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// program says what time it is, and how long a moment was for it.
const program = `package main

import "time"

func main() {
	began := time.Now()
	println(began.Unix(), time.Since(began) < time.Minute)
}
`

// TestShift: a program that is built so goes by a clock that is as wrong as the file
// says, and its durations are true.
func TestShift(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file, err := overlay(dir)
	if err != nil {
		t.Fatal(err)
	}
	source, exe, shift := filepath.Join(dir, "main.go"), filepath.Join(dir, "exe"), filepath.Join(dir, "shift")
	if err := os.WriteFile(source, []byte(program), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-overlay", file, "-o", exe, source).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, want := range []time.Duration{0, time.Hour, -time.Hour} {
		seconds := uint64(int64(want / time.Second))
		if err := os.WriteFile(shift, binary.LittleEndian.AppendUint64(nil, seconds), 0o600); err != nil {
			t.Fatal(err)
		}
		cmd := exec.CommandContext(t.Context(), exe)
		cmd.Env = append(os.Environ(), "DOORBUSTER_CLOCK_SHIFT="+shift)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		now, steady, _ := strings.Cut(strings.TrimSpace(string(out)), " ")
		unix, err := strconv.ParseInt(now, 10, 64)
		if off := time.Until(time.Unix(unix, 0)); err != nil || (off-want).Abs() > 10*time.Second || steady != "true" {
			t.Errorf("it said %q: %s off, want %s; %v", out, off, want, err)
		}
	}
}
