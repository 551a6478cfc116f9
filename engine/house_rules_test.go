package engine_test

import (
	"slices"
	"strings"
	"testing"
)

// file is one source of a table below.
type file struct{ path, text string }

func sources(t *testing.T, files []file) (all []source) {
	t.Helper()
	for _, f := range files {
		s, err := parse(f.path, []byte(f.text))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, s)
	}
	return all
}

const explained = "// Package x is here to be looked at by a rule of the house.\n"

// breaches are small trees that break one rule each, and what it must find.
var breaches = []struct {
	name  string
	rule  rule
	files []file
	want  []string // keys of the findings
}{
	{
		"sideways import", importsPointDown,
		[]file{{"stock/a.go", `package stock; import _ "` + modulePath + `/engine/queue"`}},
		[]string{"floor stock engine/queue"},
	},
	{
		"upward import", importsPointDown,
		[]file{{"engine/orders/a.go", `package orders; import _ "` + modulePath + `/payment"`}},
		[]string{"floor engine/orders payment"},
	},
	{
		"import of a package without a floor", importsPointDown,
		[]file{{"payment/a.go", `package payment; import _ "` + modulePath + `/engine/attic"`}},
		[]string{"floor payment engine/attic"},
	},
	{
		"package without a floor", importsPointDown,
		[]file{{"engine/attic/a.go", "package attic"}},
		[]string{"floor engine/attic"},
	},
	{
		"test support in production", importsPointDown,
		[]file{{"payment/a.go", `package payment; import _ "` + modulePath + `/engine/backing/backingtest"`}},
		[]string{"floor payment engine/backing/backingtest"},
	},
	{
		"the door's list", importsPointDown,
		[]file{{"engine/door/a.go", `package door; import _ "` + modulePath + `/engine/postgres"`}},
		[]string{"allow-list engine/door engine/postgres"},
	},
	{
		"the bottom imports more than Go", bottomIsStandard,
		[]file{{"engine/a.go", `package engine; import _ "golang.org/x/sync/errgroup"`}},
		[]string{"standard-only engine/a.go golang.org/x/sync/errgroup"},
	},
	{
		"environment", onlyCommandReadsEnvironment,
		[]file{{"stock/a.go", `package stock; import "os"; var x = os.Getenv("X")`}},
		[]string{"environment stock/a.go Getenv"},
	},
	{
		"foreign table", foreignTables,
		[]file{
			{"engine/orders/migrations/00001_orders.sql", "CREATE TABLE orders (id text);"},
			{"payment/a.go", "package payment; const q = `SELECT id FROM orders`"},
		},
		[]string{"foreign-table payment/a.go orders"},
	},
	{
		"foreign key", foreignKeys,
		[]file{{"engine/relay/a.go", `package relay; var k = "s:{" + "sale}"`}},
		[]string{"foreign-key engine/relay/a.go s:{"},
	},
	{
		"something at the root", topLevelIsFixed,
		[]file{{"scripts/a.sh", "#!/bin/sh\n"}},
		[]string{"top-level scripts/a.sh"},
	},
	{
		"long function", functionsAreShort,
		[]file{{"stock/a.go", "package stock\nfunc (s *Store[T]) Long() {\n" + strings.Repeat("_ = 1\n", maxFunctionLines-1) + "}\n"}},
		[]string{"function-lines stock/a.go Store.Long"},
	},
	{
		"many parameters", parametersAreFew,
		[]file{{"stock/a.go", "package stock\nfunc Many(ctx context.Context, a, b int, c string, d, e bool) {}\ntype I interface{ Many(a, b, c, d, e int) }\n"}},
		[]string{"parameters stock/a.go Many", "parameters stock/a.go Many"},
	},
	{
		"long files", filesAreShort,
		[]file{
			{"stock/a.go", "package stock\n" + strings.Repeat("\n", maxFileLines)},
			{"engine/console/a.js", strings.Repeat("\n", maxFileLines+1)},
			{"stock/a.lua", strings.Repeat("\n", maxFileLines+1)},
		},
		[]string{"file-lines engine/console/a.js", "file-lines stock/a.go", "file-lines stock/a.lua"},
	},
	{
		"package without a comment", packagesAreExplained,
		[]file{{"stock/a.go", "package stock"}, {"stock/a_test.go", explained + "package stock_test"}},
		[]string{"package-comment stock"},
	},
	{
		"empty names", namesSaySomething,
		[]file{{"stock/util/a.go", "package util"}, {"stock/helpers_test.go", "package stock_test"}, {"stock/b.go", "package types"}},
		[]string{"name stock/b.go types", "name stock/helpers_test.go helpers", "name stock/util/a.go util"},
	},
	{
		"path of one machine", nothingOfOneMachine,
		[]file{{"docs/a.md", "see `/wo" + "rk/main/go.mod`"}, {"tools/a.sh", "cd /ho" + "me/anna/src"}},
		[]string{"machine-path docs/a.md `/wo" + "rk/", "machine-path tools/a.sh /ho" + "me/anna/"},
	},
	{
		"host that packages come from", nothingOfOneMachine,
		[]file{{"docs/package.json", `{"resolved": "https://regi` + `stry.example.org/x.tgz"}`}},
		[]string{"registry docs/package.json https://regi" + "stry."},
	},
	{
		"loose end", nothingLeftLoose,
		[]file{{"stock/a.go", "package stock\n// TO" + "DO: later\n// TO" + "DO(#12): later\n"}},
		[]string{"loose-end stock/a.go TO" + "DO"},
	},
	{
		"script without a header", scriptsAreHeaded,
		[]file{{"stock/a.lua", "#!lua\n-- PURPOSE: x\n-- KEYS: 1\n-- ARGV: 1\n-- RETURNS: 1\nreturn redis.call('TIME')\n"}},
		[]string{"script-header stock/a.lua TIME"},
	},
	{
		"long script", scriptsAreHeaded,
		[]file{{"stock/a.lua", "-- PURPOSE\n-- KEYS\n-- ARGV\n-- RETURNS\n-- TIME\n" + strings.Repeat("\n", maxScriptLines)}},
		[]string{"script-lines stock/a.lua"},
	},
}

func TestRulesFindBreaches(t *testing.T) {
	t.Parallel()
	for _, b := range breaches {
		t.Run(b.name, func(t *testing.T) {
			t.Parallel()
			var got []string
			for _, f := range b.rule(sources(t, b.files)) {
				got = append(got, f.key())
			}
			slices.Sort(got)
			if !slices.Equal(got, b.want) {
				t.Errorf("found %q, want %q", got, b.want)
			}
		})
	}
}

// TestRulesAllowWhatIsRight runs every rule over a small tree that keeps them
// all, some of it only just.
func TestRulesAllowWhatIsRight(t *testing.T) {
	t.Parallel()
	all := sources(t, []file{
		{"engine/a.go", explained + "package engine\n\nimport \"fmt\"\n\nvar _ = fmt.Sprint\n"},
		{"engine/a_test.go", "package engine_test\n\nimport (\n\t\"os\"\n\t_ \"" + modulePath + "/cmd/doorbuster\"\n)\n\nvar _ = os.Getenv\n"},
		{"engine/door/a.go", explained + "package door\n\nimport (\n\t_ \"" + modulePath + "/engine\"\n\t_ \"" + modulePath + "/stock\"\n)\n"},
		{"engine/orders/migrations/00001_x.sql", "CREATE TABLE orders (id text);"},
		{"engine/orders/a.go", explained + "package orders\n\nconst q = `SELECT id FROM orders`\n"},
		{"engine/audit/a.go", explained + "package audit\n\nconst q = `SELECT id FROM orders`\n"},
		{"payment/a.go", explained + "package payment\n\nconst said = `news from orders`\n"},
		{"engine/backing/backingtest/a.go", explained + "package backingtest\n\nimport \"os\"\n\nvar _ = os.Getenv\n"},
		{"cmd/doorbuster/a.go", explained + "package main\n\nimport (\n\t\"os\"\n\t_ \"" + modulePath + "/engine/door\"\n)\n\nvar _ = os.Getenv\n"},
		{
			"stock/keys.go",
			explained + "package stock\n\nconst k = \"s:{\"\n\nfunc f(ctx context.Context, a, b, c, d int) {\n" + strings.Repeat("\t_ = 1\n", maxFunctionLines-2) + "}\n",
		},
		{"stock/b.go", "package stock\n" + strings.Repeat("\n", maxFileLines-1)},
		{"stock/gen.go", "// Code generated by hand. DO NOT EDIT.\n\npackage stock\n" + strings.Repeat("\n", maxFileLines)},
		{"stock/reserve.lua", "#!lua\n-- PURPOSE: x\n-- KEYS: 1\n-- ARGV: 1\n-- RETURNS: 1\n-- TIME: 1\n" + strings.Repeat("\n", maxReserveLines-6)},
		{"docs/a.md", "Mount it at /srv/doorbuster; see https://prometheus.io/docs and the network/work/flow."},
	})
	rules := append([]rule{importsPointDown, bottomIsStandard, onlyCommandReadsEnvironment, foreignTables, foreignKeys, topLevelIsFixed}, tidyRules...)
	for _, f := range apply(all, rules...) {
		t.Error(f)
	}
}

func TestExceptionsAreNeededAndExplained(t *testing.T) {
	t.Parallel()
	found := []finding{{"file-lines", "stock/a.go", "", "has 501 lines"}}
	for _, c := range []struct {
		name       string
		findings   []finding
		exceptions map[string]string
		complaints int
	}{
		{"none", found, nil, 1},
		{"explained", found, map[string]string{"file-lines stock/a.go": "a table of 480 rows"}, 0},
		{"without a reason", found, map[string]string{"file-lines stock/a.go": ""}, 1},
		{"stale", nil, map[string]string{"file-lines stock/a.go": "a table of 480 rows"}, 1},
		{"of another file", found, map[string]string{"file-lines stock/b.go": "a table of 480 rows"}, 2},
	} {
		if got := judge(c.findings, c.exceptions); len(got) != c.complaints {
			t.Errorf("%s: complaints %q, want %d", c.name, got, c.complaints)
		}
	}
}
