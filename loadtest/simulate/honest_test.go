package simulate_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// What the simulator must run, and not do itself.
var mustImport = []string{"engine/door", "engine/recovery", "engine/relay", "engine/control", "payment"}

// words are the states, outcomes and reasons in which production code decides. Only the
// laws, which look at the end, may ask for them, and the services for those that their
// interfaces speak.
var words = []string{
	"Reserved", "Paying", "Confirmed", "Cancelled", "RecordHeld", "RecordSettled", "RecordReleased", "Accepted", "ReplayHeld", "ReplaySettled",
	"ReplayReleased", "Mismatch", "NotOpen", "Closed", "Paused", "PriceChanged", "OverLimit", "OverIdentity", "SoldOut", "NoReplay",
	"Settle", "Release", "Drop", "Return", "Restock", "Withdraw", "NextOrderStates", "NextSaleStates", "CanBecome", "Declined", "Voided",
	"StateDeclined", "StateAuthorised", "StateCaptured", "StateVoided", "StateRefunded", "TriggerNew", "TriggerNoScript", "TriggerRunID",
	"SaleScheduled", "SaleOpen", "SalePaused", "SaleClosed", "SaleSettled", "ReasonRejected",
	"Captured", "ReasonSoldOut", "ReasonLimit", "ReasonEpoch", "ReasonDeclined", "ReasonExpired", "ReasonBuyer",
}

// allowed says which file may use which words of which package.
var allowed = map[string][]string{
	"laws.go": {
		"engine.Confirmed", "engine.RecordHeld", "provider.StateAuthorised", "provider.StateCaptured",
		"engine.SaleOpen", "engine.SalePaused", "engine.SaleClosed", "engine.SaleSettled",
	},
	"window.go":   {"engine.SaleClosed", "engine.SalePaused"},
	"verdict.go":  {"ledger.Captured", "engine.Confirmed", "provider.StateAuthorised", "provider.StateCaptured"},
	"bank.go":     {"ledger.Captured", "provider.Declined", "provider.Closed"},                         // what the bank answers; what becomes of a charge is provider.Charge's
	"epilogue.go": {"engine.SaleOpen", "engine.SalePaused", "engine.SaleClosed", "engine.SaleSettled"}, // where there is something more to tell
	"operator.go": {"engine.SalePaused"},                                                               // what he looks at before he opens it
}

// TestDecidesNothing: the simulator runs the production code, and declares no
// transition, guard or decision of its own.
func TestDecidesNothing(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("*.go")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	imported := map[string]bool{}
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		src, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		f, err := parser.ParseFile(token.NewFileSet(), file, src, 0)
		if err != nil {
			t.Fatal(err)
		}
		packages := map[string]bool{}
		for _, spec := range f.Imports {
			path, _ := strconv.Unquote(spec.Path.Value)
			if ours, ok := strings.CutPrefix(path, "github.com/doorbuster/doorbuster/"); ok {
				imported[ours] = true
				packages[filepath.Base(ours)] = true
			}
		}
		for _, found := range decisions(f, packages) {
			if !slices.Contains(allowed[file], found) {
				t.Errorf("%s uses %s: what is decided by it belongs to the production code", file, found)
			}
		}
	}
	for _, p := range mustImport {
		if !imported[p] {
			t.Errorf("%s is not imported: what is simulated in its place?", p)
		}
	}
}

// decisions lists the words that a file takes from our packages.
func decisions(f *ast.File, packages map[string]bool) (found []string) {
	ast.Inspect(f, func(n ast.Node) bool {
		sel, ok := n.(*ast.SelectorExpr)
		if !ok {
			return true
		}
		if pkg, ok := sel.X.(*ast.Ident); ok && packages[pkg.Name] && pkg.Obj == nil && slices.Contains(words, sel.Sel.Name) {
			found = append(found, pkg.Name+"."+sel.Sel.Name)
		}
		return true
	})
	return found
}
