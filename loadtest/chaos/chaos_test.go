package chaos_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/doorbuster/doorbuster/loadtest/chaos"
)

// TestPlanCovers: pairwise has every cell that is not a link, every link, and every
// kind at every moment; the seed decides, and decides the same again.
func TestPlanCovers(t *testing.T) {
	t.Parallel()
	plan, err := chaos.Plan(&chaos.Config{Seed: 3})
	if err != nil {
		t.Fatal(err)
	}
	if len(plan) < 48 {
		t.Errorf("%d pairs, want at least 48", len(plan))
	}
	cells, components, when := map[string]bool{}, map[string]bool{}, map[string]int{}
	for _, p := range plan {
		cells[p.Cell.Name()], components[p.Cell.Component] = true, true
		when[p.Moment.Name]++
	}
	for _, c := range chaos.Cells() {
		if !components[c.Component] {
			t.Errorf("nothing breaks %s", c.Component)
		}
		if !strings.Contains(c.Component, "-") && !cells[c.Name()] {
			t.Errorf("%s is not in the plan", c.Name())
		}
	}
	for _, m := range chaos.Moments {
		if when[m.Name] < 10 { // there are ten kinds of component
			t.Errorf("%d pairs at %s, want ten at least", when[m.Name], m.Name)
		}
	}
	again, err := chaos.Plan(&chaos.Config{Seed: 3})
	if err != nil || len(again) != len(plan) {
		t.Fatalf("%d pairs the second time: %v", len(again), err)
	}
	for i := range plan {
		if plan[i].Name() != again[i].Name() {
			t.Fatalf("pair %d is %s, and then %s", i, plan[i].Name(), again[i].Name())
		}
	}
}

func TestPlanChooses(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		cfg  chaos.Config
		want int
	}{
		{chaos.Config{Cells: "door/kill", Pairs: chaos.All}, len(chaos.Moments)},
		{chaos.Config{Cells: "door/kill,relay/kill", Moments: "half-*", Pairs: chaos.All}, 2},
		{chaos.Config{Cells: "*/kill", Moments: "half-stock", Pairs: chaos.All, From: 3, Runs: 2}, 2},
		{chaos.Config{Pairs: chaos.Each}, len(chaos.Cells())},
		{chaos.Config{Moments: "half-stock", Pairs: chaos.All}, len(chaos.Cells())},
		{chaos.Config{Cells: "rabbitmq/delivery-limit", Pairs: chaos.All}, 3}, // only where buyers still come
	} {
		plan, err := chaos.Plan(&c.cfg)
		if err != nil || len(plan) != c.want {
			t.Errorf("%+v: %d pairs, %v; want %d", c.cfg, len(plan), err, c.want)
		}
	}
	for _, bad := range []chaos.Config{{Cells: "nothing/*"}, {Cells: "[", Pairs: chaos.All}, {Pairs: "some"}} {
		if _, err := chaos.Plan(&bad); err == nil {
			t.Errorf("%+v: no error", bad)
		}
	}
}

// TestNamesAreUnique: a cell is found by its name.
func TestNamesAreUnique(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for _, c := range chaos.Cells() {
		if seen[c.Name()] {
			t.Errorf("%s is there twice", c.Name())
		}
		seen[c.Name()] = true
	}
}

// TestRecordAppends: what stands on the page stays.
func TestRecordAppends(t *testing.T) {
	t.Parallel()
	page := filepath.Join(t.TempDir(), "PROOF.md")
	s := &chaos.Summary{Runs: 1, Invalid: 1, Results: []chaos.Result{
		{Cell: "door/kill", Moment: "half-stock", Valid: true, Acked: 7},
		{Cell: "relay/kill", Moment: "half-stock", Why: "too late|\nby far", Violations: []string{"law 2 broken"}, Excused: []string{"law 14 broken"}},
	}}
	for range 2 {
		if err := chaos.Record(page, chaos.Session{Began: time.Now(), Command: "bin/doorbuster chaos --seed 1", Commit: "abc", Summary: s}); err != nil {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"| door/kill | half-stock | yes | 7 |", `no: too late\| by far`, "**law 2 broken**; the fault itself: law 14 broken |", "`bin/doorbuster chaos --seed 1`", "commit abc"} {
		if n := strings.Count(string(b), want); n != 2 {
			t.Errorf("%q is there %d times, want 2:\n%s", want, n, b)
		}
	}
}
