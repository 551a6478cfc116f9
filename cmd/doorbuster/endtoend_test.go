package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/doorbuster/doorbuster/engine"
	"github.com/doorbuster/doorbuster/engine/audit"
	"github.com/doorbuster/doorbuster/engine/backing"
	"github.com/doorbuster/doorbuster/loadtest/history"
)

// TestDemoSellsAndProves runs `doorbuster demo` as a user does: its own servers,
// provider, server of all roles, crowd and audit. No fault but the provider's
// declines and time-outs: their units must be sold again.
func TestDemoSellsAndProves(t *testing.T) {
	if testing.Short() {
		t.Skip("starts real servers")
	}
	alone(t)
	g := &Globals{Dir: filepath.Join(t.TempDir(), "demo")}
	report := filepath.Join(t.TempDir(), "out.json")
	s := command(t, g, "demo", "--units", "400", "--buyers", "2000", "--connections", "64", "--json", report)
	if s.code != 0 {
		t.Fatalf("exit status %d: %s%s", s.code, s.out, s.err)
	}
	b, err := os.ReadFile(report)
	if err != nil {
		t.Fatal(err)
	}
	var r audit.Report
	if err := json.Unmarshal(b, &r); err != nil {
		t.Fatal(err)
	}
	mustPass(t, &r)
	if r.Cancelled == 0 { // 3 % of more than 400 are declined: one in 200,000 such runs has none
		t.Error("no order was cancelled: nothing was compensated")
	}
	checkAnswers(t, g, r.Sale, history.Rules{Limit: 1, Ends: true})
	services, err := backing.Open(backing.Config{Dir: g.Dir})
	if err != nil {
		t.Fatal(err)
	}
	for _, st := range services.Status(t.Context()) {
		if st.Up {
			t.Errorf("%s is still up after the demo", st.Name)
		}
	}
	must(t, g, "down", "--wipe")
}

// checkAnswers checks the histories of a demo's crowd.
func checkAnswers(t *testing.T, g *Globals, sale engine.SaleID, rules history.Rules) {
	t.Helper()
	f, err := os.Open(filepath.Join(g.Dir, string(sale)+".answers"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	ops, err := history.FromLog(sale, f)
	if err != nil {
		t.Fatal(err)
	}
	found, err := history.Check(rules, ops)
	if err != nil || found.Orders == 0 {
		t.Errorf("%d orders: %v", found.Orders, err)
	}
	t.Logf("%+v", found)
}
