package engine_test

import (
	"bytes"
	"fmt"
	"go/ast"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// Sizes beyond which a reader loses the thread.
const (
	maxFunctionLines = 70
	maxFileLines     = 500
	maxParameters    = 4
	maxScriptLines   = 60
	maxReserveLines  = 150
)

// tidyExceptions name what may break a rule, and why: finding.key → reason. It
// only shrinks: an entry that nothing needs fails the test.
var tidyExceptions = map[string]string{}

// functionsAreShort counts from the line of func to that of its last brace.
func functionsAreShort(all []source) (out []finding) {
	for _, s := range all {
		if s.file == nil || s.generated() {
			continue
		}
		for _, d := range s.file.Decls {
			f, ok := d.(*ast.FuncDecl)
			if !ok {
				continue
			}
			n := s.fset.Position(f.End()).Line - s.fset.Position(f.Pos()).Line + 1
			if n > maxFunctionLines {
				out = append(out, finding{"function-lines", s.path, funcName(f), fmt.Sprintf("has %d lines, at most %d", n, maxFunctionLines)})
			}
		}
	}
	return out
}

func funcName(f *ast.FuncDecl) string {
	if f.Recv == nil || len(f.Recv.List) == 0 {
		return f.Name.Name
	}
	recv := f.Recv.List[0].Type
	if star, ok := recv.(*ast.StarExpr); ok {
		recv = star.X
	}
	if generic, ok := recv.(*ast.IndexExpr); ok {
		recv = generic.X
	}
	if id, ok := recv.(*ast.Ident); ok {
		return id.Name + "." + f.Name.Name
	}
	return f.Name.Name
}

// countContext says whether a leading context counts as a parameter. It does
// not, as the receiver does not: it says how long, never what.
const countContext = false

func parameters(t *ast.FuncType) int {
	n := t.Params.NumFields()
	if n > 0 && !countContext {
		if sel, ok := t.Params.List[0].Type.(*ast.SelectorExpr); ok && sel.Sel.Name == "Context" {
			n--
		}
	}
	return n
}

// parametersAreFew looks at functions, methods and the methods of interfaces.
func parametersAreFew(all []source) (out []finding) {
	for _, s := range all {
		if s.file == nil || s.generated() {
			continue
		}
		complain := func(name string, t *ast.FuncType) {
			if n := parameters(t); n > maxParameters {
				out = append(out, finding{"parameters", s.path, name, fmt.Sprintf("has %d, at most %d: make a struct", n, maxParameters)})
			}
		}
		ast.Inspect(s.file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.FuncDecl:
				complain(funcName(n), n.Type)
			case *ast.InterfaceType:
				for _, m := range n.Methods.List {
					if t, ok := m.Type.(*ast.FuncType); ok && len(m.Names) > 0 {
						complain(m.Names[0].Name, t)
					}
				}
			}
			return true
		})
	}
	return out
}

// filesAreShort holds for what people write by hand and read from the top.
func filesAreShort(all []source) (out []finding) {
	for _, s := range all {
		if slices.Contains([]string{".go", ".lua", ".js", ".css"}, s.ext()) && !s.generated() && s.lines() > maxFileLines {
			out = append(out, finding{"file-lines", s.path, "", fmt.Sprintf("has %d lines, at most %d", s.lines(), maxFileLines)})
		}
	}
	return out
}

// packagesAreExplained: one file of each package says what the package is for.
func packagesAreExplained(all []source) (out []finding) {
	const shortest = 40 // "Package stock is the stock." explains nothing
	explained := map[string]bool{}
	for _, s := range all {
		if s.file != nil && !s.test() {
			doc := s.file.Doc.Text()
			explained[s.dir()] = explained[s.dir()] || len(doc) >= shortest
		}
	}
	for dir, ok := range explained {
		if !ok {
			out = append(out, finding{"package-comment", dir, "", "no file says what the package is for"})
		}
	}
	return out
}

// emptyNames say nothing about what is inside.
var emptyNames = []string{
	"util", "utils", "common", "base", "helper", "helpers", "manager", "managers", "types", "misc", "shared", "lib", "core",
}

// namesSaySomething looks at directories and at Go files.
func namesSaySomething(all []source) (out []finding) {
	for _, s := range all {
		name := strings.TrimSuffix(strings.TrimSuffix(path.Base(s.path), s.ext()), "_test")
		words := append(strings.Split(s.dir(), "/"), name)
		if s.file != nil {
			words = append(words, strings.TrimSuffix(s.file.Name.Name, "_test"))
		}
		for _, w := range words {
			if slices.Contains(emptyNames, w) {
				out = append(out, finding{"name", s.path, w, "says nothing about what is inside"})
				break
			}
		}
	}
	return out
}

// The patterns are put together here, so that this file does not match them.
var (
	machinePath  = regexp.MustCompile(`(?:^|[^\w.~-])/(?:wo` + `rk|ro` + `ot|ho` + `me/\w+|Us` + `ers/\w+|tm` + `p/dev)/`)
	registryHost = regexp.MustCompile(`(?i)https?://(?:[\w-]+\.)*(?:regi` + `stry|mir` + `ror|artif` + `actory|nex` + `us|pro` + `xy)\w*[.:/]`)
	loose        = regexp.MustCompile(`\b(?:TO` + `DO|FIX` + `ME|XX` + `X|HA` + `CK)\b`)
	numbered     = regexp.MustCompile(`^\(#\d+\)`)
)

// nothingOfOneMachine: a path or host that is there on one machine only.
func nothingOfOneMachine(all []source) (out []finding) {
	for _, s := range all {
		for _, m := range machinePath.FindAll(s.text, -1) {
			out = append(out, finding{"machine-path", s.path, string(bytes.TrimSpace(m)), "is a path of one machine"})
		}
		for _, m := range registryHost.FindAll(s.text, -1) {
			out = append(out, finding{"registry", s.path, string(m), "names a host that packages come from"})
		}
	}
	return out
}

// nothingLeftLoose: work that is left carries the number of its issue.
func nothingLeftLoose(all []source) (out []finding) {
	for _, s := range all {
		if s.ext() == ".md" || s.ext() == ".yml" || s.path == "LICENSE" {
			continue
		}
		for _, at := range loose.FindAllIndex(s.text, -1) {
			if !numbered.Match(s.text[at[1]:]) {
				out = append(out, finding{"loose-end", s.path, string(s.text[at[0]:at[1]]), "needs the number of its issue: (#n)"})
			}
		}
	}
	return out
}

// scriptsAreHeaded: a Lua script is read by people who do not know its caller.
func scriptsAreHeaded(all []source) (out []finding) {
	for _, s := range all {
		if s.ext() != ".lua" {
			continue
		}
		for _, word := range []string{"PURPOSE", "KEYS", "ARGV", "RETURNS", "TIME"} {
			if !regexp.MustCompile(`(?m)^--\s*` + word + `\b`).Match(s.text) {
				out = append(out, finding{"script-header", s.path, word, "is missing in its header"})
			}
		}
		limit := maxScriptLines
		if path.Base(s.path) == "reserve.lua" {
			limit = maxReserveLines
		}
		if n := s.lines(); n > limit {
			out = append(out, finding{"script-lines", s.path, "", fmt.Sprintf("has %d lines, at most %d", n, limit)})
		}
	}
	return out
}

var tidyRules = []rule{
	functionsAreShort, parametersAreFew, filesAreShort, packagesAreExplained, namesSaySomething,
	nothingOfOneMachine, nothingLeftLoose, scriptsAreHeaded,
}

func TestTidy(t *testing.T) {
	t.Parallel()
	_, all := tree(t)
	check(t, apply(all, tidyRules...), tidyExceptions)
}
