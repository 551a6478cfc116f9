package stock_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/doorbuster/doorbuster/engine"
	"github.com/doorbuster/doorbuster/stock"
)

// TestScriptsKeepTheRules reads every script: header, size, no floats, EVALSHA
// only, one file per operation.
func TestScriptsKeepTheRules(t *testing.T) {
	t.Parallel()
	const reserveLines, otherLines = 150, 60
	files, err := filepath.Glob("*.lua")
	must(t, err)
	if len(files) != int(stock.NumOps) {
		t.Errorf("%d scripts for %d operations", len(files), stock.NumOps)
	}
	float := regexp.MustCompile(`\d\.\d|\d[eE][+-]?\d|math\.(sqrt|pow|floor|random)`)
	for op := range stock.NumOps {
		b, err := os.ReadFile(op.String() + ".lua")
		must(t, err)
		text := string(b)
		most := otherLines
		if op == stock.OpReserve {
			most = reserveLines
		}
		if n := strings.Count(text, "\n"); n > most {
			t.Errorf("%s: %d lines, at most %d", op, n, most)
		}
		if !strings.HasPrefix(text, "#!lua\n-- PURPOSE ") {
			t.Errorf("%s: begins with %q", op, text[:20])
		}
		at := 0
		for _, head := range []string{"-- PURPOSE", "-- KEYS", "-- ARGV", "-- RETURNS", "-- TIME", "local INC = '0'\n"} {
			i := strings.Index(text[at:], "\n"+head)
			if i < 0 {
				t.Errorf("%s: no line %q after the one before", op, head)
				break
			}
			at += i
		}
		for i, line := range strings.Split(text, "\n") {
			code, _, _ := strings.Cut(line, "--")
			if float.MatchString(code) {
				t.Errorf("%s:%d: a float: %s", op, i+1, line)
			}
		}
		if s := stock.Text(op, 77); strings.Count(s, "'77'") != 1 || strings.Contains(s, "INC = '0'") {
			t.Errorf("%s: the incarnation is not in its text", op)
		}
		if stock.ScriptSHAs(1)[op] == stock.ScriptSHAs(2)[op] {
			t.Errorf("%s: two incarnations, one SHA", op)
		}
	}
	b, err := os.ReadFile("reserve.lua")
	must(t, err)
	if !strings.Contains(string(b), "MAX_ORDERS = "+strconv.Itoa(engine.MaxOrdersPerBuyer)+" ") {
		t.Error("reserve.lua has another limit of orders than package engine")
	}
}

// TestNoFallbackToText finds what would defeat the fence.
func TestNoFallbackToText(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("*.go")
	must(t, err)
	for _, f := range files {
		if strings.HasSuffix(f, "_test.go") {
			continue
		}
		b, err := os.ReadFile(f)
		must(t, err)
		for _, bad := range []string{"NewScript", ".Eval(", ".Run(ctx, s", `"eval"`} {
			if strings.Contains(string(b), bad) {
				t.Errorf("%s calls %s", f, bad)
			}
		}
	}
}

func TestSHAsRoundTrip(t *testing.T) {
	t.Parallel()
	if got := stock.Op(99).String(); got != "unknown" {
		t.Errorf("operation 99 is %q", got)
	}
	w := shared(t)
	b := w.open(t, nil)
	if b.grip.SHA != stock.ScriptSHAs(incarnation) {
		t.Errorf("read %v", b.grip.SHA)
	}
	// A state that another version wrote: an operation of which this one knows
	// nothing, one that it misses, another order.
	key := "s:{" + string(b.def.ID) + "}:1:st"
	sha := b.grip.SHA
	must(t, w.rdb.HSet(t.Context(), key, "sha", "lag="+sha[stock.OpLag]+",teleport=1234,reserve="+sha[stock.OpReserve]).Err())
	got, err := w.store.Watch(t.Context(), b.def.ID, 1)
	must(t, err)
	want := stock.SHAs{stock.OpLag: sha[stock.OpLag], stock.OpReserve: sha[stock.OpReserve]}
	if got.SHA != want {
		t.Errorf("read %v", got.SHA)
	}
}

func TestOpen(t *testing.T) {
	t.Parallel()
	for _, url := range []string{"redis://h:1/0", "redis://:pw@a:1,b:2", "redis://a:1,redis://b:2", "rediss://u:p@a:1/3"} {
		c, err := stock.Open(url)
		if err != nil {
			t.Errorf("%s: %v", url, err)
			continue
		}
		must(t, c.Close())
	}
	for _, url := range []string{"", "http://h:1", "redis://a:1,http://b"} {
		if _, err := stock.Open(url); err == nil {
			t.Errorf("%q: no error", url)
		}
	}
}
