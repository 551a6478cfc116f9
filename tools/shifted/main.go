// Command shifted builds the program with a clock that can be set wrong: time.Now adds
// as many seconds as a file says, while durations stay true, as when somebody sets the
// clock of a machine. A Go program asks the kernel past every library, so nothing that
// is loaded before it can lie to it; this changes package time itself, for this build
// alone, by go build -overlay. No file of the tree or of Go is touched.
//
//	go run ./shifted [-root DIR] [-o FILE]
//
// The program reads the file that DOORBUSTER_CLOCK_SHIFT names: 8 bytes, seconds,
// little endian. Whoever writes there moves the clock of the running process. It is
// for loadtest/chaos and must not sell.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

const (
	reads   = "sec, nsec, mono := runtimeNow()\n" // in time.Now, and nowhere else
	shifted = reads + "\tsec += shift()\n"

	// shiftFile becomes part of package time. The file is mapped, so that reading it
	// costs a load and a change is seen at once.
	shiftFile = `package time

import (
	"sync/atomic"
	"syscall"
	"unsafe"
)

var shifted *int64

func init() {
	path, _ := syscall.Getenv("DOORBUSTER_CLOCK_SHIFT")
	if path == "" {
		return
	}
	fd, err := syscall.Open(path, syscall.O_RDONLY, 0)
	if err != nil {
		panic("DOORBUSTER_CLOCK_SHIFT " + path + ": " + err.Error())
	}
	b, err := syscall.Mmap(fd, 0, 8, syscall.PROT_READ, syscall.MAP_SHARED)
	if err != nil {
		panic("DOORBUSTER_CLOCK_SHIFT " + path + ": " + err.Error())
	}
	shifted = (*int64)(unsafe.Pointer(&b[0]))
}

func shift() int64 {
	if shifted == nil {
		return 0
	}
	return atomic.LoadInt64(shifted)
}
`
)

func main() {
	root := flag.String("root", "..", "root of the repository")
	out := flag.String("o", "bin/doorbuster-shifted", "file to write, below the root")
	flag.Parse()
	if err := build(*root, *out); err != nil {
		fmt.Fprintln(os.Stderr, "shifted:", err)
		os.Exit(1)
	}
}

// overlayDir is always the same: Go's cache knows what it has compiled by path, too.
func overlayDir() (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = os.TempDir()
	}
	dir := filepath.Join(cache, "doorbuster-shifted")
	return dir, os.MkdirAll(dir, 0o755)
}

// overlay writes what go build -overlay wants into dir, and returns its name.
func overlay(dir string) (string, error) {
	goroot, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		return "", fmt.Errorf("go env: %w", err)
	}
	pkg := filepath.Join(strings.TrimSpace(string(goroot)), "src", "time")
	text, err := os.ReadFile(filepath.Join(pkg, "time.go"))
	if err != nil {
		return "", err
	}
	if n := strings.Count(string(text), reads); n != 1 {
		return "", fmt.Errorf("%s has %q %d times, want once: this Go reads its clock in another way, and shifted must follow", pkg, reads, n)
	}
	replace := map[string]string{}
	for name, content := range map[string]string{"time.go": strings.Replace(string(text), reads, shifted, 1), "shift.go": shiftFile} {
		replace[filepath.Join(pkg, name)] = filepath.Join(dir, name)
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			return "", err
		}
	}
	list, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return "", err
	}
	file := filepath.Join(dir, "overlay.json")
	return file, os.WriteFile(file, list, 0o600)
}

func build(root, out string) error {
	dir, err := overlayDir()
	if err != nil {
		return err
	}
	file, err := overlay(dir)
	if err != nil {
		return err
	}
	cmd := exec.Command("go", "build", "-buildvcs=false", "-overlay", file, "-o", out, "./cmd/doorbuster")
	cmd.Dir, cmd.Stdout, cmd.Stderr = root, os.Stdout, os.Stderr
	return cmd.Run()
}
