package engine_test

import (
	"fmt"
	"go/ast"
	"go/token"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// floors is the house (docs/ARCHITECTURE.md): a package may import those on
// lower floors, never its neighbours. A package that is not here has no place
// yet: give it one.
var floors = map[string]int{
	"engine":           0,
	"engine/failpoint": 0,
	"dashboards":       0,
	"loadtest/proxy":   0,

	"loadtest/smuggling": 0,
	"deploy":             0,

	"engine/ticket":    1,
	"engine/queue":     1,
	"engine/postgres":  1,
	"engine/client":    1,
	"stock":            1,
	"payment/provider": 1,

	"engine/door":              2,
	"engine/orders":            2,
	"engine/backing":           2,
	"payment/ledger":           2,
	"payment/provider/sandbox": 2,

	"engine/relay":     3,
	"engine/recovery":  3,
	"engine/status":    3,
	"engine/admission": 3,
	"engine/control":   3,
	"engine/audit":     3,
	"payment":          3,

	"engine/console":   4,
	"loadtest":         4,
	"loadtest/history": 4,

	"loadtest/bench":    5,
	"loadtest/chaos":    5,
	"loadtest/simulate": 5,

	"cmd/doorbuster": 8,
}

// allowLists narrow what a floor would allow. The door is the hot path: what it
// can reach it may come to wait for.
var allowLists = map[string][]string{
	"engine/door": {"engine", "engine/failpoint", "engine/ticket", "engine/queue", "stock"},
}

// standardOnly are packages that everything stands on.
var standardOnly = []string{"engine", "engine/failpoint"}

// testSupport says that a package serves tests only: its name is that of the
// package it stands below, with "test" behind.
func testSupport(dir string) bool { return path.Base(dir) == path.Base(path.Dir(dir))+"test" }

// goFiles are the files that the compiler sees in a build.
func goFiles(all []source) (out []source) {
	for _, s := range all {
		if s.file != nil && !s.test() && !s.tools() && !testSupport(s.dir()) {
			out = append(out, s)
		}
	}
	return out
}

func imports(s source) (paths []string) {
	for _, spec := range s.file.Imports {
		if p, err := strconv.Unquote(spec.Path.Value); err == nil {
			paths = append(paths, p)
		}
	}
	return paths
}

// ours returns the directory of an import that is of this module.
func ours(importPath string) (dir string, ok bool) {
	dir, ok = strings.CutPrefix(importPath, modulePath+"/")
	return dir, ok
}

// importsPointDown: each package has a floor and imports lower ones only.
func importsPointDown(all []source) (out []finding) {
	homeless := map[string]bool{}
	for _, s := range goFiles(all) {
		floor, placed := floors[s.dir()]
		if !placed {
			if !homeless[s.dir()] {
				out = append(out, finding{"floor", s.dir(), "", "has no floor: add it to the table"})
			}
			homeless[s.dir()] = true
			continue
		}
		for _, p := range imports(s) {
			dir, ok := ours(p)
			if !ok {
				continue
			}
			other, placed := floors[dir]
			switch {
			case testSupport(dir):
				out = append(out, finding{"floor", s.dir(), dir, "is for tests only"})
			case !placed:
				out = append(out, finding{"floor", s.dir(), dir, "has no floor: add it to the table"})
			case other >= floor:
				out = append(out, finding{"floor", s.dir(), dir, fmt.Sprintf("is on floor %d, this is floor %d", other, floor)})
			}
			if list, narrow := allowLists[s.dir()]; narrow && !slices.Contains(list, dir) {
				out = append(out, finding{"allow-list", s.dir(), dir, "is not on its list"})
			}
		}
	}
	return out
}

// bottomIsStandard: what everything imports imports nothing but Go.
func bottomIsStandard(all []source) (out []finding) {
	for _, s := range goFiles(all) {
		if !slices.Contains(standardOnly, s.dir()) {
			continue
		}
		for _, p := range imports(s) {
			if strings.Contains(strings.Split(p, "/")[0], ".") {
				out = append(out, finding{"standard-only", s.path, p, "is not the standard library"})
			}
		}
	}
	return out
}

// onlyCommandReadsEnvironment: a package that reads it cannot be started twice
// in one process, as tests do.
func onlyCommandReadsEnvironment(all []source) (out []finding) {
	readers := []string{"Getenv", "LookupEnv", "Environ", "ExpandEnv"}
	for _, s := range goFiles(all) {
		if s.command() {
			continue
		}
		ast.Inspect(s.file, func(n ast.Node) bool {
			sel, ok := n.(*ast.SelectorExpr)
			if !ok || !slices.Contains(readers, sel.Sel.Name) {
				return true
			}
			if id, ok := sel.X.(*ast.Ident); ok && (id.Name == "os" || id.Name == "syscall") {
				out = append(out, finding{"environment", s.path, sel.Sel.Name, "only cmd reads the environment"})
			}
			return true
		})
	}
	return out
}

// strings of Go code, with what they are in.
func literals(s source) (out []string) {
	ast.Inspect(s.file, func(n ast.Node) bool {
		if lit, ok := n.(*ast.BasicLit); ok && lit.Kind == token.STRING {
			if text, err := strconv.Unquote(lit.Value); err == nil {
				out = append(out, text)
			}
		}
		return true
	})
	return out
}

var (
	createTable = regexp.MustCompile(`(?i)\bcreate table (?:if not exists )?([a-z_][a-z0-9_]*)`)
	usesTable   = regexp.MustCompile(`(?i)\b(?:from|join|into|update|truncate|delete from)\s+(?:only\s+)?([a-z_][a-z0-9_]*)`)
	isStatement = regexp.MustCompile(`(?is)^\s*(?:select|insert|update|delete|with|truncate|merge)\b`)
)

// tableOwners finds who embeds the migration that makes a table.
func tableOwners(all []source) map[string]string {
	owners := map[string]string{}
	for _, s := range all {
		if s.ext() != ".sql" || !strings.Contains(s.path, "/migrations/") {
			continue
		}
		for _, m := range createTable.FindAllSubmatch(s.text, -1) {
			owners[string(m[1])] = path.Dir(s.dir())
		}
	}
	return owners
}

// foreignTables: SQL touches foreign tables only in audit, which must not trust
// the owners' own words.
func foreignTables(all []source) (out []finding) {
	owners := tableOwners(all)
	for _, s := range goFiles(all) {
		if s.dir() == "engine/audit" {
			continue
		}
		for _, text := range literals(s) {
			if !isStatement.MatchString(text) {
				continue
			}
			for _, m := range usesTable.FindAllStringSubmatch(text, -1) {
				if owner := owners[m[1]]; owner != "" && owner != s.dir() {
					out = append(out, finding{"foreign-table", s.path, m[1], "belongs to " + owner})
				}
			}
		}
	}
	return out
}

// keyOwners are the packages whose keys begin so; each keeps them in one file.
var keyOwners = map[string]string{"s:{": "stock/keys.go", "w:{": "engine/admission/keys.go"}

// foreignKeys: who writes down a key of another's cannot be found when it moves.
func foreignKeys(all []source) (out []finding) {
	for _, s := range goFiles(all) {
		for prefix, owner := range keyOwners {
			if s.path == owner {
				continue
			}
			if slices.ContainsFunc(literals(s), func(text string) bool { return strings.HasPrefix(text, prefix) }) {
				out = append(out, finding{"foreign-key", s.path, prefix, "stands in " + owner + " alone"})
			}
		}
	}
	return out
}

// topLevel is what may stand at the root.
var topLevel = []string{
	"cmd", "engine", "stock", "payment", "loadtest", "dashboards", "Makefile", "go.mod", "README.md",
	"deploy", "docs", "tools", "LICENSE", "CHANGELOG.md", "SECURITY.md", ".gitignore", ".golangci.yml", ".ci",
}

func topLevelIsFixed(all []source) (out []finding) {
	for _, s := range all {
		if top := strings.Split(s.path, "/")[0]; !slices.Contains(topLevel, top) {
			out = append(out, finding{"top-level", s.path, "", "has no place at the root"})
		}
	}
	return out
}

func TestFloors(t *testing.T) {
	t.Parallel()
	_, all := tree(t)
	check(t, apply(all, importsPointDown, bottomIsStandard, onlyCommandReadsEnvironment, foreignTables, foreignKeys, topLevelIsFixed), nil)
}

// TestFloorsNamesOnlyWhatMayCome keeps the table from growing names of packages
// that left: an entry is a package, or one that the plan still has before it.
func TestFloorsNamesOnlyWhatMayCome(t *testing.T) {
	t.Parallel()
	_, all := tree(t)
	planned := []string{"engine/failpoint", "engine/client", "engine/admission", "engine/console", "dashboards"}
	here := map[string]bool{}
	for _, s := range goFiles(all) {
		here[s.dir()] = true
	}
	for dir := range floors {
		if !here[dir] && !slices.Contains(planned, dir) {
			t.Errorf("%s has a floor, but is not in the tree", dir)
		}
	}
}
