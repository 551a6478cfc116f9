package engine_test

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// The rules of the house that no linter knows: floors_test.go says who may
// import, read and write what; tidy_test.go how large and how named things may
// be. They parse the whole tree, so they stand here, in the package that imports
// nothing of it. Each rule is a function from sources to findings, and
// house_rules_test.go shows each of them a source that breaks it.

const modulePath = "github.com/doorbuster/doorbuster"

// source is one file of the tree.
type source struct {
	path string // from the root, with slashes
	text []byte
	fset *token.FileSet
	file *ast.File // nil if it is not Go
}

func (s source) dir() string   { return path.Dir(s.path) }
func (s source) ext() string   { return path.Ext(s.path) }
func (s source) test() bool    { return strings.HasSuffix(s.path, "_test.go") }
func (s source) tools() bool   { return strings.HasPrefix(s.path, "tools/") }
func (s source) command() bool { return strings.HasPrefix(s.path, "cmd/") }

// lines counts as an editor does.
func (s source) lines() int { return bytes.Count(s.text, []byte("\n")) }

// generated says that a program wrote it (go.dev/s/generatedcode).
func (s source) generated() bool { return s.file != nil && ast.IsGenerated(s.file) }

// finding is one breach of one rule.
type finding struct {
	rule, path, subject string
	detail              string
}

// key names a finding in the list of exceptions: no line numbers, no sizes, so
// that an exception does not move with the code.
func (f finding) key() string { return strings.TrimSpace(f.rule + " " + f.path + " " + f.subject) }

func (f finding) String() string {
	return fmt.Sprintf("%s: %s: %s %s", f.path, f.rule, f.subject, f.detail)
}

// parse makes a source; Go that does not parse is the compiler's to report.
func parse(name string, text []byte) (source, error) {
	s := source{path: name, text: text}
	if path.Ext(name) != ".go" {
		return s, nil
	}
	s.fset = token.NewFileSet()
	f, err := parser.ParseFile(s.fset, name, text, parser.ParseComments|parser.SkipObjectResolution)
	s.file = f
	return s, err
}

// texts are the files that the rules look at, by extension; and by name those
// without one.
var (
	texts      = []string{".go", ".lua", ".js", ".css", ".html", ".sql", ".md", ".yaml", ".yml", ".json", ".sh", ".mod", ".txt", ".tmpl"}
	namedTexts = []string{"Makefile", "run", ".gitignore", "LICENSE"}
)

// notOurs hold nothing of ours, or nothing that is kept (.gitignore).
var notOurs = []string{".git", "bin", ".doorbuster", "node_modules", "out.json"}

// tree returns all sources below the root of the module.
func tree(t *testing.T) (root string, all []source) {
	t.Helper()
	root, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	err = filepath.WalkDir(root, func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if slices.Contains(notOurs, d.Name()) {
				return fs.SkipDir
			}
			return nil
		}
		if slices.Contains(notOurs, d.Name()) {
			return nil
		}
		if !slices.Contains(texts, filepath.Ext(d.Name())) && !slices.Contains(namedTexts, d.Name()) {
			return nil
		}
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		name, err := filepath.Rel(root, file)
		if err != nil {
			return err
		}
		s, err := parse(filepath.ToSlash(name), text)
		if err != nil {
			return err
		}
		all = append(all, s)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	const few = 40 // an empty tree would keep every rule
	if len(all) < few {
		t.Fatalf("only %d files below %s: this is not the whole tree", len(all), root)
	}
	return root, all
}

// check fails for every finding that is not excepted, and for every exception
// that nothing needs any more: the list only shrinks.
func check(t *testing.T, findings []finding, exceptions map[string]string) {
	t.Helper()
	for _, complaint := range judge(findings, exceptions) {
		t.Error(complaint)
	}
}

func judge(findings []finding, exceptions map[string]string) (complaints []string) {
	needed := map[string]bool{}
	for _, f := range findings {
		needed[f.key()] = true
		if exceptions[f.key()] == "" {
			complaints = append(complaints, f.String())
		}
	}
	for key := range exceptions {
		if !needed[key] {
			complaints = append(complaints, "stale exception, delete it: "+key)
		}
	}
	slices.Sort(complaints)
	return complaints
}

// rule is one check over all sources.
type rule func([]source) []finding

func apply(all []source, rules ...rule) (findings []finding) {
	for _, r := range rules {
		findings = append(findings, r(all)...)
	}
	return findings
}
