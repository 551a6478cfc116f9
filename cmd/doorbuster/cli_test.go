package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/doorbuster/doorbuster/engine/ticket"
)

// cli runs a command line with a state directory of its own.
func cli(t *testing.T, dir string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	code = run(t.Context(), append([]string{"--dir", dir}, args...), &Globals{Stdout: &out, Stderr: &errs})
	return code, out.String(), errs.String()
}

func TestWrongCommandLinesAreTold(t *testing.T) {
	dir := t.TempDir()
	bad := filepath.Join(dir, "sale.yaml")
	write := func(content string) {
		if err := os.WriteFile(bad, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	head := "id: x\nname: X\ncurrency: KRW\nopens: +1s\ncloses: +1h\nitems:\n  - {sku: MUG, name: Mug, price: 1, units: 1}\n"
	for name, c := range map[string]struct {
		file string
		args []string
		code int
		says string
	}{
		"unknown command":      {"", []string{"sell"}, exitUsage, "sell"},
		"missing flag":         {"", []string{"audit"}, exitUsage, "--sale"},
		"unknown role":         {"", []string{"serve", "--roles", "doorman"}, exitFailed, "doorman"},
		"no tickets":           {"", []string{"ticket", "mint", "--sale", "x", "--count", "0", "--out", "-"}, exitFailed, "--count"},
		"bad sale id":          {"", []string{"ticket", "mint", "--sale", "X", "--count", "1", "--out", "-"}, exitFailed, "sale id"},
		"bad buyer":            {"", []string{"token", "mint", "--buyer", "a b"}, exitFailed, "buyer"},
		"no servers":           {"", []string{"sale", "show", "--sale", "x"}, exitFailed, "doorbuster up"},
		"sale without units":   {strings.Replace(head, ", units: 1", "", 1), []string{"sale", "create", "-f", bad}, exitFailed, "units"},
		"provider nobody has":  {head + "provider: cash\n", []string{"sale", "create", "-f", bad}, exitFailed, "cash"},
		"payment nobody takes": {head + "provider: sandbox\npayment: checkout\n", []string{"sale", "create", "-f", bad}, exitFailed, "checkout"},
		"demo without buyers":  {"", []string{"demo", "--buyers", "0"}, exitFailed, "--buyers"},
	} {
		t.Run(name, func(t *testing.T) {
			for _, v := range []string{"REDIS_URL", "AMQP_URL", "DATABASE_URL"} {
				t.Setenv(v, "")
			}
			write(c.file)
			code, _, said := cli(t, dir, c.args...)
			if code != c.code || !strings.Contains(said, c.says) {
				t.Errorf("exit %d, want %d; said %q, want %q in it", code, c.code, said, c.says)
			}
		})
	}
}

func TestTicketsAndTokensAreMinted(t *testing.T) {
	dir := t.TempDir()
	code, out, said := cli(t, dir, "ticket", "mint", "--sale", "drop", "--count", "3", "--out", "-", "--max", "2")
	tokens := strings.Fields(out)
	if code != 0 || len(tokens) != 3 {
		t.Fatalf("exit %d, %d tickets: %s", code, len(tokens), said)
	}
	keys, err := (&Globals{Dir: dir}).ticketKeys() // the secrets that the first command made
	if err != nil {
		t.Fatal(err)
	}
	buyers := map[string]bool{}
	for _, token := range tokens {
		var c ticket.Claims
		if err := keys.Verify(&c, []byte(token)); err != nil || string(c.Sale) != "drop" || c.Max != 2 {
			t.Errorf("%s: %v, %+v", token, err, c.Ticket())
		}
		buyers[string(c.Buyer)] = true
	}
	if len(buyers) != 3 {
		t.Errorf("buyers %v, want three", buyers)
	}
	code, out, said = cli(t, dir, "token", "mint", "--buyer", "ann", "--json")
	var token struct{ Token string }
	if err := json.Unmarshal([]byte(out), &token); code != 0 || err != nil || strings.Count(token.Token, ".") != 2 {
		t.Errorf("exit %d, %q, %v: %s", code, out, err, said)
	}
	if info, err := os.Stat(filepath.Join(dir, "secrets.json")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("secrets: %v, %v", info, err)
	}
}
