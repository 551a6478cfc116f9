// Command mutants shows that the simulator would find what it is there for: it
// removes one safety after another from the production code (by go build -overlay,
// no file of the tree is touched), runs the simulator, and says which law it finds
// broken, and by which seed.
//
//	go run ./mutants [-root DIR] [-seeds N] [-json FILE] [NAME ...]
//
// It exits with 1 if a mutant does not apply, does not build, or is not found.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// patience is how long a mutant may tell stories. One that has found nothing by then is
// not found.
const patience = 10 * time.Minute

const dataDir = "loadtest/simulate/testdata/mutants"

func main() {
	root := flag.String("root", "..", "root of the repository")
	seeds := flag.Int("seeds", 4_000, "stories to tell, at most, for each")
	out := flag.String("json", "", "file for the results")
	flag.Parse()
	failed, err := run(*root, *seeds, *out, flag.Args())
	if err != nil {
		fmt.Fprintln(os.Stderr, "mutants:", err)
	}
	if err != nil || failed {
		os.Exit(1)
	}
}

// result is what became of a mutant.
type result struct {
	Name  string `json:"name"`
	What  string `json:"what"`
	Found bool   `json:"found"`
	Law   string `json:"law,omitempty"`
	Seed  uint64 `json:"seed,omitempty"`
	Tried int    `json:"stories"`
	Error string `json:"error,omitempty"`
}

func run(root string, seeds int, out string, names []string) (failed bool, err error) {
	root, err = filepath.Abs(root)
	if err != nil {
		return true, err
	}
	files, err := filepath.Glob(filepath.Join(root, dataDir, "*.txt"))
	if err != nil || len(files) == 0 {
		return true, fmt.Errorf("no mutants in %s: %w", dataDir, err)
	}
	dir, err := os.MkdirTemp("", "mutants")
	if err != nil {
		return true, err
	}
	defer os.RemoveAll(dir)
	b := bench{root: root, dir: dir, seeds: seeds}
	var all []result
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".txt")
		if len(names) > 0 && !slices.Contains(names, name) {
			continue
		}
		began := time.Now()
		r := result{Name: name}
		if err := b.try(file, &r); err != nil {
			r.Error = err.Error()
		}
		verdict := "NOT FOUND in " + strconv.Itoa(r.Tried) + " stories"
		switch {
		case r.Error != "":
			verdict = "ERROR " + r.Error
		case r.Found:
			verdict = fmt.Sprintf("seed %d: %s", r.Seed, r.Law)
		}
		failed = failed || !r.Found
		fmt.Printf("%-24s %5.1fs  %s\n", name, time.Since(began).Seconds(), verdict)
		all = append(all, r)
	}
	if out != "" {
		b, err := json.MarshalIndent(all, "", "  ")
		if err != nil {
			return true, err
		}
		return failed, os.WriteFile(out, append(b, '\n'), 0o644)
	}
	return failed, nil
}

// bench is where mutants are tried.
type bench struct {
	root, dir string // of the repository, and for what is built
	seeds     int
}

// try builds one mutant and simulates it.
func (t *bench) try(file string, r *result) error {
	root, dir := t.root, t.dir
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	what, files, err := mutate(root, string(text))
	r.What = what
	if err != nil {
		return err
	}
	overlay := map[string]map[string]string{"Replace": {}}
	for path, src := range files {
		p := filepath.Join(dir, strings.ReplaceAll(path, "/", "_"))
		if err := os.WriteFile(p, []byte(src), 0o600); err != nil {
			return err
		}
		overlay["Replace"][filepath.Join(root, path)] = p
	}
	main := filepath.Join(dir, "teller.go")
	if err := os.WriteFile(main, []byte(tellerSource), 0o600); err != nil {
		return err
	}
	overlay["Replace"][filepath.Join(root, teller, "main.go")] = main
	b, err := json.Marshal(overlay)
	if err != nil {
		return err
	}
	o, bin := filepath.Join(dir, "overlay.json"), filepath.Join(dir, "teller")
	if err := os.WriteFile(o, b, 0o600); err != nil {
		return err
	}
	build := exec.Command("go", "build", "-buildvcs=false", "-ldflags", "-s -w", "-overlay", o, "-o", bin, "./"+teller)
	build.Dir = root
	if msg, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build: %w: %s", err, msg)
	}
	return simulate(bin, t.seeds, r)
}

// teller is where the overlay has a program that tells stories and nothing else: the real
// one takes three times as long to link.
const teller = "loadtest/simulate/mutant"

const tellerSource = `package main

import (
	"context"
	"encoding/json"
	"os"
	"runtime/debug"
	"strconv"

	"github.com/doorbuster/doorbuster/loadtest/simulate"
)

func main() {
	debug.SetGCPercent(600)
	seeds, _ := strconv.Atoi(os.Args[1])
	report, err := simulate.Run(context.Background(), simulate.Config{Seeds: seeds, From: 1, Most: 1})
	if err != nil {
		panic(err)
	}
	_ = json.NewEncoder(os.Stdout).Encode(report)
}
`

func simulate(bin string, seeds int, r *result) error {
	var stdout, stderr bytes.Buffer
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, bin, strconv.Itoa(seeds))
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	var report struct {
		Seeds   int `json:"seeds"`
		Failing []struct {
			Seed   uint64   `json:"seed"`
			Broken []string `json:"broken"`
		} `json:"failing"`
	}
	if bad := json.Unmarshal(stdout.Bytes(), &report); bad != nil {
		if first, _, _ := strings.Cut(stderr.String(), "\n"); strings.HasPrefix(first, "panic:") {
			r.Found, r.Law = true, first // a story that cannot even be told
			return nil
		}
		if ctx.Err() != nil {
			return fmt.Errorf("nothing found in %s", patience)
		}
		return errors.Join(err, bad, errors.New(stderr.String()))
	}
	r.Tried = report.Seeds
	if len(report.Failing) > 0 {
		f := report.Failing[0]
		r.Found, r.Seed, r.Law = true, f.Seed, f.Broken[0]
	}
	return nil
}

var block = regexp.MustCompile(`(?ms)^file: (\S+)\n<<<<\n(.*?)\n====\n(.*?)\n?>>>>$`)

// mutate reads a mutant: a line "what: …", then blocks "file: PATH", "<<<<", the text as
// it is (exactly once there), "====", the text as it shall be, ">>>>". It returns the files
// as they shall be.
func mutate(root, text string) (what string, files map[string]string, err error) {
	what, _, _ = strings.Cut(strings.TrimPrefix(text, "what: "), "\n")
	files = map[string]string{}
	blocks := block.FindAllStringSubmatch(text, -1)
	if len(blocks) == 0 {
		return what, nil, errors.New("it changes nothing")
	}
	for _, m := range blocks {
		path, old, next := m[1], m[2], m[3]
		src, ok := files[path]
		if !ok {
			b, err := os.ReadFile(filepath.Join(root, path))
			if err != nil {
				return what, nil, err
			}
			src = string(b)
		}
		if n := strings.Count(src, old); n != 1 {
			return what, nil, fmt.Errorf("%s has the text %d times, want once: %q", path, n, old)
		}
		files[path] = strings.Replace(src, old, next, 1)
	}
	return what, files, nil
}
