package dashboards_test

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/doorbuster/doorbuster/dashboards"
)

// promtool runs it, or skips where there is none.
func promtool(t *testing.T, args ...string) {
	t.Helper()
	path, err := exec.LookPath("promtool")
	if err != nil {
		if os.Getenv("DOORBUSTER_REQUIRE_SERVERS") != "" {
			t.Fatal("promtool is not installed, and DOORBUSTER_REQUIRE_SERVERS is set: install the package prometheus")
		}
		t.Skip("promtool is not installed")
	}
	if out, err := exec.CommandContext(t.Context(), path, args...).CombinedOutput(); err != nil {
		t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

func TestBoardIsTheCommittedOne(t *testing.T) {
	t.Parallel()
	board := dashboards.Overview()
	want, err := board.JSON()
	if err != nil {
		t.Fatal(err)
	}
	const path = "files/overview.json"
	if os.Getenv("UPDATE") != "" {
		if err := os.WriteFile(path, want, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(path)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("%s is not what overview.go makes (%v): run UPDATE=1 go test ./dashboards", path, err)
	}
}

func TestBoardHolds(t *testing.T) {
	t.Parallel()
	board := dashboards.Overview()
	titles, ids := map[string]bool{}, map[int]bool{}
	for _, p := range board.Panels {
		if titles[p.Title] || ids[p.ID] || p.ID == 0 {
			t.Errorf("panel %q, id %d: title or id is there twice", p.Title, p.ID)
		}
		titles[p.Title], ids[p.ID] = true, true
		if (p.Type == "row") != (len(p.Targets) == 0) {
			t.Errorf("panel %q is a %s with %d queries", p.Title, p.Type, len(p.Targets))
		}
		if g := p.GridPos; g.X+g.W > 24 || g.W == 0 || g.H == 0 {
			t.Errorf("panel %q stands at %+v", p.Title, g)
		}
		for _, q := range board.Panels {
			if a, b := p.GridPos, q.GridPos; p.ID < q.ID && a.X < b.X+b.W && b.X < a.X+a.W && a.Y < b.Y+b.H && b.Y < a.Y+a.H {
				t.Errorf("panels %q and %q cover each other", p.Title, q.Title)
			}
		}
	}
}

// Prometheus itself reads every expression: as a recording rule.
func TestExpressionsParse(t *testing.T) {
	t.Parallel()
	board := dashboards.Overview()
	var rules strings.Builder
	rules.WriteString("groups:\n  - name: board\n    rules:\n")
	for i, expr := range board.Expressions() {
		fmt.Fprintf(&rules, "      - record: board:expression:%d\n        expr: %q\n", i, plain(expr, "10s", ".*"))
	}
	path := filepath.Join(t.TempDir(), "board.yml")
	if err := os.WriteFile(path, []byte(rules.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	promtool(t, "check", "rules", path)
}

// plain replaces Grafana's variables.
func plain(expr, interval, sale string) string {
	return strings.NewReplacer("$__rate_interval", interval, "$sale", sale).Replace(expr)
}

func TestAlerts(t *testing.T) {
	t.Parallel()
	promtool(t, "check", "rules", "files/alerts.yml")
	promtool(t, "test", "rules", "testdata/alerts_test.yml")
}

func TestEveryAlertHasBothTests(t *testing.T) {
	t.Parallel()
	rules, err := fs.ReadFile(dashboards.FS, "alerts.yml")
	if err != nil {
		t.Fatal(err)
	}
	tests, err := os.ReadFile("testdata/alerts_test.yml")
	if err != nil {
		t.Fatal(err)
	}
	alerts := regexp.MustCompile(`- alert: (\w+)`).FindAllSubmatch(rules, -1)
	if len(alerts) == 0 {
		t.Fatal("no alerts")
	}
	for _, a := range alerts {
		for _, end := range []string{"fires", "stays quiet"} {
			if !bytes.Contains(tests, []byte("- name: "+string(a[1])+" "+end+"\n")) {
				t.Errorf("alert %s has no test in which it %s", a[1], end)
			}
		}
	}
}

func TestScrapeConfig(t *testing.T) {
	t.Parallel()
	got, err := fs.ReadFile(dashboards.FS, "prometheus.yml")
	if err != nil || !bytes.Equal(got, dashboards.ScrapeConfig(dashboards.DefaultTargets...)) {
		t.Errorf("prometheus.yml is not ScrapeConfig(DefaultTargets...): %v\n%s", err, got)
	}
	dir := t.TempDir()
	if err := os.CopyFS(dir, dashboards.FS); err != nil {
		t.Fatal(err)
	}
	promtool(t, "check", "config", filepath.Join(dir, "prometheus.yml"))
}
