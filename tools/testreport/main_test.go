package main

import (
	"bytes"
	"strings"
	"testing"
)

func TestReport(t *testing.T) {
	const pass = `{"Action":"pass","Package":"p","Test":"TestA","Elapsed":0.1}` + "\n" +
		`{"Action":"output","Package":"p","Output":"ok  \tp\t0.1s\n"}` + "\n" + `{"Action":"pass","Package":"p"}` + "\n"
	for _, c := range []struct {
		name, in, says string
		well           bool
	}{
		{"passed", pass, "ok  \tp\t0.1s\n", true},
		{"no test at all", "", "0 tests passed in 0 packages", false},
		{"skipped", pass + `{"Action":"skip","Package":"p","Test":"TestB"}`, "SKIPPED, which is not allowed here: p/TestB", false},
		{"package without tests", pass + `{"Action":"skip","Package":"q"}`, "1 tests passed in 1 packages, 0 failed, 0 skipped", true},
		{
			"failed", pass + `{"Action":"output","Package":"p","Test":"TestC","Output":"c_test.go:7: wrong\n"}` + "\n" +
				`{"Action":"fail","Package":"p","Test":"TestC"}`,
			"c_test.go:7: wrong", false,
		},
		{
			"not built", pass + `{"Action":"build-output","ImportPath":"q","Output":"q.go:1: undefined\n"}` + "\n" +
				`{"Action":"build-fail","ImportPath":"q"}`,
			"q.go:1: undefined", false,
		},
		{"panic", pass + `{"Action":"run","Package":"p","Test":"TestD"}` + "\n" + `{"Action":"output","Package":"p","Test":"TestD","Output":"panic: boom\n"}`, "panic: boom", false},
		{"no event", pass + "go: downloading x", "go: downloading x", true},
	} {
		var out bytes.Buffer
		r := newReport(&out)
		if err := r.read(strings.NewReader(c.in)); err != nil {
			t.Fatal(err)
		}
		if well := r.close(); well != c.well || !strings.Contains(out.String(), c.says) {
			t.Errorf("%s: well %v, want %v, said %q, want %q", c.name, well, c.well, out.String(), c.says)
		}
	}
}
