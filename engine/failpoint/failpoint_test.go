package failpoint_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/doorbuster/doorbuster/engine/failpoint"
)

const root = "../.." // of the module

var uses = regexp.MustCompile(`failpoint\.Hit\(([^)]*)\)`)

// used counts the calls of Hit by their argument, in the code that is compiled into
// the program.
func used(t *testing.T) map[string]int {
	t.Helper()
	counts := map[string]int{}
	for _, top := range []string{"cmd", "engine", "stock", "payment", "loadtest"} {
		err := filepath.WalkDir(filepath.Join(root, top), func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			text, err := os.ReadFile(path)
			for _, m := range uses.FindAllStringSubmatch(string(text), -1) {
				counts[m[1]]++
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return counts
}

func TestEveryPointIsUsedOnce(t *testing.T) {
	t.Parallel()
	counts := used(t)
	for _, p := range failpoint.Points {
		if n := counts[`"`+p.Name+`"`]; n != 1 {
			t.Errorf("%s is listed and used %d times, want once", p.Name, n)
		}
		delete(counts, `"`+p.Name+`"`)
	}
	for name, n := range counts {
		t.Errorf("failpoint.Hit(%s) is used %d times and not listed in points.go", name, n)
	}
}

// TestPointsAreEnough holds the list against what was asked for: so many by area.
func TestPointsAreEnough(t *testing.T) {
	t.Parallel()
	want := map[string]int{"door": 7, "relay": 3, "ingest": 3, "pay": 7, "expiry": 1, "applier": 2, "recovery": 6}
	got := map[string]int{}
	for _, p := range failpoint.Points {
		area, _, _ := strings.Cut(p.Name, "/")
		got[area]++
		if p.Role == "" || p.Between == "" {
			t.Errorf("%s: want a role and what it stands between", p.Name)
		}
	}
	for area, n := range want {
		if got[area] < n {
			t.Errorf("%s has %d points, want %d", area, got[area], n)
		}
	}
}

func TestParse(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]failpoint.Setting{
		"door/after-reserve=kill":           {Name: "door/after-reserve", Do: failpoint.Kill, Hit: 1},
		"door/after-reserve=kill@3":         {Name: "door/after-reserve", Do: failpoint.Kill, Hit: 3},
		"relay/after-mark=stop@2":           {Name: "relay/after-mark", Do: failpoint.Stop, Hit: 2},
		"pay/before-authorise=delay:50ms":   {Name: "pay/before-authorise", Do: failpoint.Delay, Delay: 50 * time.Millisecond},
		" pay/before-authorise=delay:1s@4 ": {Name: "pay/before-authorise", Do: failpoint.Delay, Delay: time.Second, Hit: 4},
	} {
		got, err := failpoint.Parse(text)
		if err != nil || len(got) != 1 || got[0] != want {
			t.Errorf("%q: %+v, %v; want %+v", text, got, err, want)
		}
	}
	if got, err := failpoint.Parse("door/after-reserve=kill@3,relay/after-mark=stop"); err != nil || len(got) != 2 {
		t.Errorf("two: %+v, %v", got, err)
	}
	if got, err := failpoint.Parse(""); err != nil || got != nil {
		t.Errorf("none: %+v, %v", got, err)
	}
	for text, says := range map[string]string{
		"door/after-reserve":                              "POINT=ACTION",
		"door/nowhere=kill":                               "no such point",
		"door/after-reserve=explode":                      "kill, stop or delay",
		"door/after-reserve=kill:3":                       "kill, stop or delay",
		"door/after-reserve=delay":                        "kill, stop or delay",
		"door/after-reserve=delay:soon":                   "delay:50ms",
		"door/after-reserve=delay:-1s":                    "delay:50ms",
		"door/after-reserve=kill@0":                       "from 1 on",
		"door/after-reserve=kill@x":                       "from 1 on",
		"door/after-reserve=kill,door/after-reserve=stop": "twice",
		"door/after-reserve=kill,":                        "POINT=ACTION",
	} {
		if _, err := failpoint.Parse(text); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%q: %v, want %q in it", text, err, says)
		}
	}
}
