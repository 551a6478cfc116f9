package loadtest_test

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/doorbuster/doorbuster/dashboards"
	"github.com/doorbuster/doorbuster/engine/audit"
	"github.com/doorbuster/doorbuster/engine/backing/backingtest"
	"github.com/doorbuster/doorbuster/loadtest"
)

const boardTimeout = 90 * time.Second

// Every expression of the board must have data once a sale has run: a metric that
// was renamed leaves an empty panel, which nobody notices until the night of the
// sale.
func TestBoardShowsARealSale(t *testing.T) {
	t.Parallel()
	path, err := exec.LookPath("prometheus")
	if err != nil {
		if os.Getenv("DOORBUSTER_REQUIRE_SERVERS") != "" {
			t.Fatal("prometheus is not installed, and DOORBUSTER_REQUIRE_SERVERS is set")
		}
		t.Skip("prometheus is not installed")
	}
	h := newHouse(t)
	ctx, cancel := context.WithTimeout(t.Context(), boardTimeout)
	defer cancel()
	prom := startPrometheus(t, path, h.metrics)
	h.create(t, 100_000, time.Now())
	tickets := h.tickets(t, 20_000)
	backingtest.Eventually(t, "the door sells", func() bool { return h.open(ctx, t) }) // a press asks once, and a 503 before would count as demand
	var log bytes.Buffer
	w := audit.NewLogWriter(&log)
	selling, stop := context.WithCancel(ctx)
	sold := make(chan loadtest.PressResult, 1)
	go func() { // buyers come all the while: rates need something to happen between two scrapes
		res, err := loadtest.RunOpen(selling, loadtest.PressConfig{
			URLs: []string{h.url}, Sale: h.sale, Basket: loadtest.Single("MUG", 1, 1500, "KRW"), Tickets: tickets,
			Connections: 16, Duration: boardTimeout, Rate: 50, Log: w,
		})
		if err != nil {
			t.Error(err)
		}
		sold <- res
	}()

	board := dashboards.Overview()
	left := board.Expressions()
	for len(left) > 0 {
		var empty []string
		for _, expr := range left {
			if why := ask(ctx, t, prom, grafana(expr, string(h.sale))); why != "" {
				empty = append(empty, expr+"\n\t"+why)
			}
		}
		if ctx.Err() != nil {
			t.Fatalf("no data for %d of %d expressions:\n%s", len(empty), len(board.Expressions()), strings.Join(empty, "\n"))
		}
		left = nil
		for _, e := range empty {
			left = append(left, strings.Split(e, "\n\t")[0])
		}
		wait(ctx, 500*time.Millisecond)
		look(ctx, t, h, tickets[0])
	}
	stop()
	if res := <-sold; res.Outcomes.Count(loadtest.Accepted) == 0 {
		t.Errorf("nothing was sold: %v", res.Outcomes)
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	if waiting, err := h.auditor.WaitForRest(ctx, h.sale); waiting != "" || err != nil {
		t.Errorf("not at rest: %s, %v", waiting, err)
	}
	report, err := h.auditor.AtRest(ctx, h.sale, bytes.NewReader(log.Bytes()))
	if err != nil || len(report.Broken()) > 0 {
		t.Errorf("laws broken after the sale: %v, %v\n%+v", report.Broken(), err, report.Laws)
	}
}

func wait(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// look asks for a buyer's orders, and checks the laws as `audit --watch` does.
func look(ctx context.Context, t *testing.T, h *house, buyer loadtest.Ticket) {
	t.Helper()
	if ctx.Err() != nil {
		return
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, h.url+"/v1/sales/"+string(h.sale)+"/mine", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Ticket "+buyer.Token)
	req.Close = true
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Errorf("GET …/mine: %s", resp.Status)
	}
	report, err := h.auditor.Live(ctx, h.sale)
	if err != nil && ctx.Err() == nil {
		t.Fatal(err)
	}
	h.meter.Observe(&report)
}

// grafana replaces its variables as it would.
func grafana(expr, sale string) string {
	return strings.NewReplacer("$__rate_interval", "60s", "$sale", sale).Replace(expr)
}

// ask evaluates an expression and says why it shows nothing, "" if it does.
func ask(ctx context.Context, t *testing.T, prom, expr string) string {
	t.Helper()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, prom+"/api/v1/query?query="+url.QueryEscape(expr), nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Close = true
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err.Error()
	}
	defer func() { _ = resp.Body.Close() }()
	var answer struct {
		Error string
		Data  struct {
			Result []struct{ Value [2]any }
		}
	}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		return err.Error()
	}
	for _, r := range answer.Data.Result {
		if r.Value[1] != "NaN" {
			return ""
		}
	}
	if answer.Error != "" {
		return answer.Error
	}
	if len(answer.Data.Result) > 0 {
		return "nothing but NaN"
	}
	return "no data"
}

// startPrometheus scrapes the target with the configuration and rules of the
// board, on a port and directory of its own.
func startPrometheus(t *testing.T, path, target string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.CopyFS(filepath.Join(dir, "config"), dashboards.FS); err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(dir, "config", "prometheus.yml")
	if err := os.Remove(config); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(config, dashboards.ScrapeConfig(target), 0o600); err != nil {
		t.Fatal(err)
	}
	ln := listen(t)
	addr := ln.Addr().String()
	_ = ln.Close() // Prometheus takes no listener; nobody else asks for this port in between, or the test fails
	var out bytes.Buffer
	cmd := exec.Command(path, "--config.file="+config, "--storage.tsdb.path="+filepath.Join(dir, "data"), "--web.listen-address="+addr)
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			t.Log(out.String())
		}
	})
	return "http://" + addr
}
