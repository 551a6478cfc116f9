package main

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/doorbuster/doorbuster/engine/audit"
	"github.com/doorbuster/doorbuster/engine/backing"
	"github.com/doorbuster/doorbuster/engine/control"
	"github.com/doorbuster/doorbuster/engine/recovery"
	"github.com/doorbuster/doorbuster/loadtest"
)

const operatorLimit = 2 * time.Minute

// TestOperator walks through what an operator does, command by command, each of
// them a process, on real servers.
func TestOperator(t *testing.T) {
	g := onEstate(t)
	ctx, cancel := context.WithTimeout(t.Context(), operatorLimit)
	defer cancel()
	dir := t.TempDir()
	o := &operator{g: g, sale: "operated", tickets: filepath.Join(dir, "tickets"), log: filepath.Join(dir, "answers")}
	t.Run("status", o.status)
	t.Run("migrate", o.migrate)
	_, o.at = serve(t, g, "operated")
	_ = t.Run("sale create", func(t *testing.T) { o.create(ctx, t) }) && // each needs the one before
		t.Run("ticket mint", o.mint) &&
		t.Run("load", o.load) &&
		t.Run("sale pause, resume, restock, withdraw, close", func(t *testing.T) { o.act(ctx, t) }) &&
		t.Run("audit", o.audit) &&
		t.Run("token mint", o.token)
	t.Run("sandbox", o.sandbox)
}

type operator struct {
	g       *Globals
	sale    string
	at      servingAt
	tickets string // file
	log     string // file
}

// refused runs a command that has to fail, saying each of the words.
func refused(t *testing.T, g *Globals, words []string, args ...string) {
	t.Helper()
	s := command(t, g, args...)
	if s.code != exitFailed || s.out != "" {
		t.Errorf("%v: exit status %d, printed %q", args, s.code, s.out)
	}
	for _, w := range words {
		if !strings.Contains(s.err, w) {
			t.Errorf("%v: said %q, want %q in it", args, s.err, w)
		}
	}
}

func parse(t *testing.T, text string, into any) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), into); err != nil {
		t.Fatalf("%q: %v", text, err)
	}
}

func (o *operator) status(t *testing.T) {
	var list []backing.ServiceStatus
	parse(t, must(t, o.g, "status", "--json"), &list)
	if len(list) != 3 || slices.ContainsFunc(list, func(s backing.ServiceStatus) bool { return !s.Up || s.PID == 0 }) {
		t.Errorf("%+v", list)
	}
	if out := must(t, o.g, "status"); strings.Count(out, "\n") != 3 || strings.Count(out, " up\n") != 3 {
		t.Errorf("printed %q", out)
	}
	if out := must(t, o.g, "up", "--env"); strings.Count(out, "export ") != 3 {
		t.Errorf("a second up printed %q", out)
	}
	refused(t, &Globals{Dir: t.TempDir()}, []string{"never brought up", "doorbuster up"}, "status")
}

func (o *operator) migrate(t *testing.T) {
	b, err := o.g.backends()
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("DATABASE_URL", newDatabase(t, b.Postgres, "bare"))
	refused(t, o.g, []string{"no tables", "doorbuster migrate"}, "sale", "show", "--sale", o.sale)
	for range 2 { // twice is harmless
		var done struct{ Migrated bool }
		if parse(t, must(t, o.g, "migrate", "--json"), &done); !done.Migrated {
			t.Error("not migrated")
		}
	}
	refused(t, o.g, []string{"no such sale"}, "sale", "show", "--sale", o.sale)
	t.Setenv("DATABASE_URL", "postgres://127.0.0.1:1/nobody")
	refused(t, o.g, []string{"does not answer", "DATABASE_URL"}, "migrate")
}

// newDatabase makes an empty database on the test's own server and returns its URL. It
// goes with the server.
func newDatabase(t *testing.T, server, name string) string {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), server)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(t.Context())) }()
	if _, err := conn.Exec(t.Context(), "CREATE DATABASE "+pgx.Identifier{name}.Sanitize()); err != nil {
		t.Fatal(err)
	}
	database, err := url.Parse(server)
	if err != nil {
		t.Fatal(err)
	}
	database.Path = "/" + name
	return database.String()
}

func (o *operator) create(ctx context.Context, t *testing.T) {
	t.Helper()
	good := []string{
		"id: " + o.sale, "provider: instant", "currency: KRW", "opens: +0s", "closes: +1h", "limit_per_buyer: 1",
		"items:", "  - {sku: MUG, price: 1500, units: 20}",
	}
	for _, c := range []struct{ old, new, says string }{
		{"closes: +1h", "closes: -1h", "sale.yaml:5: closes: "},
		{"currency: KRW", "name: x", "sale.yaml:8: currency: "},
		{", units: 20", "", "sale.yaml:8: items[0].units: "},
		{"price: 1500", "price: 15.5", "sale.yaml:8: items[0].price: "},
		{"provider: instant", "provider: [", "sale.yaml:"},
		{"limit_per_buyer: 1", "limit: 1", "sale.yaml:6: limit: "},
	} {
		file := saleFile(t, strings.Replace(strings.Join(good, "\n"), c.old, c.new, 1))
		refused(t, o.g, []string{c.says}, "sale", "create", "-f", file)
	}
	file := saleFile(t, good...)
	if out := must(t, o.g, "sale", "create", "-f", file); !strings.Contains(out, "sale "+o.sale+" created") {
		t.Errorf("printed %q", out)
	}
	refused(t, o.g, []string{"exists already"}, "sale", "create", "-f", file)
	until(ctx, t, "the sale is loaded", func() bool { return o.show(t).Redis != nil })
	if out := must(t, o.g, "sale", "show", "--sale", o.sale); !strings.Contains(out, ", epoch 1,") || !strings.Contains(out, "MUG  1500 KRW") {
		t.Errorf("printed %q", out)
	}
	refused(t, o.g, []string{"no such sale", "DATABASE_URL"}, "sale", "show", "--sale", "nope")
	durable := saleFile(t, append([]string{"mode: durable"}, good...)...)
	refused(t, o.g, []string{"appendfsync everysec", "CONFIG SET", "up --fsync always"}, "sale", "create", "-f", durable)
	o.recovery(ctx, t)
}

// recovery asks how the sale is kept.
func (o *operator) recovery(ctx context.Context, t *testing.T) {
	t.Helper()
	var all []recovery.Report
	until(ctx, t, "the load is noted", func() bool {
		all = nil
		parse(t, must(t, o.g, "recovery", "status", "--sale", o.sale, "--json"), &all)
		return len(all) == 1 && all[0].Rebuild != nil && !all[0].Rebuild.Running
	})
	if r := all[0]; r.Leader == nil || r.Leader.LeftMS <= 0 || r.Heartbeat == nil || !r.Heartbeat.Rising || r.Rebuild.Why != "new" || len(r.Rebuild.Steps) == 0 {
		t.Errorf("%+v", r)
	}
	out := must(t, o.g, "recovery", "status")
	for _, want := range []string{"sale " + o.sale + ": ", "led by ", "last rebuilt ", "(new): freezing ", "heartbeat ", ", rises, ", "release rows pending 0"} {
		if !strings.Contains(out, want) {
			t.Errorf("printed %q, without %q", out, want)
		}
	}
	refused(t, o.g, []string{"no such sale"}, "recovery", "status", "--sale", "nope")
}

func (o *operator) show(t *testing.T) control.View {
	t.Helper()
	var v control.View
	parse(t, must(t, o.g, "sale", "show", "--sale", o.sale, "--json"), &v)
	return v
}

func (o *operator) mint(t *testing.T) {
	if out := must(t, o.g, "ticket", "mint", "--sale", o.sale, "--count", "60", "--out", o.tickets); !strings.Contains(out, "60 tickets") {
		t.Errorf("printed %q", out)
	}
	b, err := os.ReadFile(o.tickets)
	if err != nil || strings.Count(string(b), "\n") != 60 {
		t.Fatalf("%d lines: %v", strings.Count(string(b), "\n"), err)
	}
	tickets, err := readTickets(o.tickets)
	buyers := map[string]bool{}
	for _, k := range tickets {
		buyers[string(k.Buyer)] = true
	}
	if err != nil || len(buyers) != 60 {
		t.Errorf("%d buyers: %v", len(buyers), err)
	}
	refused(t, o.g, []string{"no such file or directory"}, "ticket", "mint", "--sale", o.sale, "--count", "1", "--out", "/nowhere/tickets")
}

func (o *operator) load(t *testing.T) {
	base := []string{"load", "--sale", o.sale, "--tickets", o.tickets, "--url", o.at.URL}
	var r loadtest.PressResult
	parse(t, must(t, o.g, append(base, "--mode", "closed", "--duration", "1s", "--connections", "4", "--client-log", o.log, "--json")...), &r)
	if r.Requests != 60 || r.Errors != 0 || r.Outcomes["accepted"].Count != 20 {
		t.Errorf("%+v", r)
	}
	if out := must(t, o.g, append(base, "--mode", "open", "--rate", "100", "--duration", "300ms", "--connections", "2")...); !strings.Contains(out, "requests in") || !strings.Contains(out, "sold-out") {
		t.Errorf("printed %q", out)
	}
	if out := must(t, o.g, append(base, "--rate", "20", "--duration", "100ms", "--connections", "4", "--judge")...); !strings.Contains(out, "spike") || !strings.Contains(out, "laws: pass") {
		t.Errorf("printed %q", out)
	}
	refused(t, o.g, []string{"no item", "CUP"}, append(base, "--sku", "CUP")...)
	refused(t, o.g, []string{"--quantity"}, append(base, "--quantity", "0")...)
	refused(t, o.g, []string{"no door answers", "--url"}, "load", "--sale", o.sale, "--tickets", o.tickets, "--url", "http://127.0.0.1:1")
	refused(t, o.g, []string{"There is no sale"}, "load", "--sale", "nope", "--tickets", o.tickets, "--url", o.at.URL)
	refused(t, o.g, []string{"ticket mint"}, "load", "--sale", o.sale, "--url", o.at.URL, "--tickets", saleFile(t, "id: x"))
}

// act does to the sale what an operator may; the page of the door must follow.
func (o *operator) act(ctx context.Context, t *testing.T) {
	t.Helper()
	say := func(act string, more ...string) string {
		return must(t, o.g, append([]string{"sale", act, "--sale", o.sale, "--why", "a test"}, more...)...)
	}
	if out := say("pause"); !strings.Contains(out, "paused") || o.show(t).State != "paused" {
		t.Errorf("printed %q, state %s", out, o.show(t).State)
	}
	end := time.Now().UTC().Add(-time.Second).Truncate(time.Second)
	say("change", "--closes", end.Format(time.RFC3339))
	refused(t, o.g, []string{"its window ended", "sale change --closes"}, "sale", "resume", "--sale", o.sale)
	refused(t, o.g, []string{"--closes"}, "sale", "change", "--sale", o.sale)
	if out := say("change", "--closes", end.Add(time.Hour).Format(time.RFC3339)); !strings.Contains(out, "new window") {
		t.Errorf("printed %q", out)
	}
	if out := say("resume"); !strings.Contains(out, "resumed") || o.show(t).State != "open" {
		t.Errorf("printed %q, state %s", out, o.show(t).State)
	}
	say("restock", "--sku", "MUG", "--units", "10")
	until(ctx, t, "the restock", func() bool { i := o.show(t).Items[0]; return i.Units == 30 && i.Available != nil && *i.Available == 10 })
	say("withdraw", "--sku", "MUG", "--units", "100")
	until(ctx, t, "the withdrawal", func() bool { i := o.show(t).Items[0]; return i.Units == 20 && i.Available != nil && *i.Available == 0 })
	units := []string{"--sku", "MUG", "--units"}
	refused(t, o.g, []string{"no such item"}, "sale", "restock", "--sale", o.sale, "--sku", "CUP", "--units", "1")
	refused(t, o.g, []string{"--units"}, append([]string{"sale", "restock", "--sale", o.sale}, append(units, "0")...)...)
	refused(t, o.g, []string{"no such sale"}, "sale", "pause", "--sale", "nope")
	say("close")
	refused(t, o.g, []string{"it is closed"}, "sale", "resume", "--sale", o.sale)
	refused(t, o.g, []string{"it is closed"}, append([]string{"sale", "withdraw", "--sale", o.sale}, append(units, "1")...)...)
	v := o.show(t)
	if v.State != "closed" || len(v.Trail) < 6 || !strings.HasPrefix(v.Trail[0].Who, "cli:") || v.Trail[0].Why != "a test" {
		t.Errorf("state %s, trail %+v", v.State, v.Trail)
	}
}

func (o *operator) audit(t *testing.T) {
	if out := must(t, o.g, "audit", "--sale", o.sale); !strings.Contains(out, "law  2  holds") || !strings.Contains(out, "verdict: pass") {
		t.Errorf("printed %q", out)
	}
	var r audit.Report
	parse(t, must(t, o.g, "audit", "--sale", o.sale, "--client-log", o.log, "--json"), &r)
	if r.Verdict != audit.Pass || r.Requests == nil || *r.Requests != 60 || r.UnitsConfirmed != 20 {
		t.Errorf("%+v", r)
	}
	refused(t, o.g, []string{"no such sale"}, "audit", "--sale", "nope")

	// A log in which one more buyer heard 202 than there are orders.
	b, err := os.ReadFile(o.log)
	if err != nil {
		t.Fatal(err)
	}
	lost := strings.Replace(string(b), " sold-out ", " accepted ", 1)
	i := strings.Index(lost, " accepted -")
	if i < 0 {
		t.Fatal("nobody heard sold-out")
	}
	lost = lost[:i] + " accepted " + strings.Repeat("a", 26) + lost[i+len(" accepted -"):]
	lost = strings.Replace(lost, " 409 accepted", " 202 accepted", 1)
	lying := filepath.Join(t.TempDir(), "lying")
	if err := os.WriteFile(lying, []byte(lost), 0o600); err != nil {
		t.Fatal(err)
	}
	s := command(t, o.g, "audit", "--sale", o.sale, "--client-log", lying)
	if s.code != exitFailed || !strings.Contains(s.out, "law  8  BROKEN") || !strings.Contains(s.out, "verdict: fail") {
		t.Errorf("exit status %d, printed %q %q", s.code, s.out, s.err)
	}
	s = command(t, o.g, "audit", "--sale", o.sale, "--client-log", lying, "--json")
	if parse(t, s.out, &r); s.code != exitFailed || r.Verdict == audit.Pass || len(r.Broken()) == 0 {
		t.Errorf("exit status %d, %+v", s.code, r)
	}
}

func (o *operator) token(t *testing.T) {
	token := strings.TrimSpace(must(t, o.g, "token", "mint", "--buyer", "buyer-1"))
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, o.at.URL+"/v1/sales/"+o.sale+"/mine", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		t.Errorf("the token opens nothing: status %d", resp.StatusCode)
	}
}

func (o *operator) sandbox(t *testing.T) {
	var at servingAt
	ledger := filepath.Join(t.TempDir(), "ledger")
	start(t, o.g, spec{name: "sandbox", ready: &at, args: []string{"sandbox", "--listen", "127.0.0.1:0", "--ledger", ledger}})
	resp, err := http.Get(at.URL + "/healthz")
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if _, err := os.Stat(ledger); err != nil || resp.StatusCode >= 300 {
		t.Errorf("status %d, ledger: %v", resp.StatusCode, err)
	}
	refused(t, o.g, []string{"--ledger"}, "sandbox", "--listen", "127.0.0.1:0", "--ledger", "/nowhere/ledger")
	refused(t, o.g, []string{"declines"}, "sandbox", "--listen", "127.0.0.1:0", "--ledger", ledger, "--declines", "1001")
}
