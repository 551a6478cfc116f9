package simulate_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// block is one change of a mutant: see tools/mutants.
var block = regexp.MustCompile(`(?ms)^file: (\S+)\n<<<<\n(.*?)\n====\n(.*?)\n?>>>>$`)

// TestMutantsApply: each mutant, those included that the simulator does not find yet
// (survivors), still says exactly what it changes, so that `make mutants` can build it.
func TestMutantsApply(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/*/*.txt")
	if err != nil || len(files) < 5 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		blocks := block.FindAllStringSubmatch(string(text), -1)
		if len(blocks) == 0 || !strings.HasPrefix(string(text), "what: ") {
			t.Errorf("%s is not a mutant", file)
		}
		for _, m := range blocks {
			src, err := os.ReadFile(filepath.Join("../..", m[1]))
			if err != nil {
				t.Fatal(err)
			}
			if n := strings.Count(string(src), m[2]); n != 1 {
				t.Errorf("%s: %s has this %d times, want once:\n%s", file, m[1], n, m[2])
			}
		}
	}
}
