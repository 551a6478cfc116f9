package backing

import (
	"context"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

const (
	prometheusConfig = "prometheus.yml"
	retention        = "7d"
	configDir        = "config"
)

// scrapeItself is the configuration where Config.Dashboards is nil.
const scrapeItself = `scrape_configs:
  - job_name: prometheus
    static_configs:
      - targets: ["%s"]
`

var prometheusKind = kind{
	name:     Prometheus,
	accounts: []string{"prometheus"},
	programs: []string{"prometheus"},
	ports:    []string{portMain},
	quit:     syscall.SIGTERM,
	boot:     60 * time.Second,
	prepare:  preparePrometheus,
	commands: func(s site) []command {
		return []command{{role: roleServer, path: s.programs["prometheus"], env: s.environment(), dir: s.dir, args: []string{
			"--config.file=" + filepath.Join(s.dir, configDir, prometheusConfig),
			"--storage.tsdb.path=" + s.dataDir(),
			"--storage.tsdb.retention.time=" + retention,
			"--web.listen-address=" + s.address(),
			"--web.enable-lifecycle",
		}}}
	},
	url:    prometheusURL,
	ping:   pingPrometheus,
	settle: settlePrometheus,
}

func prometheusURL(s site) string { return "http://" + s.address() }

// preparePrometheus copies the dashboards' files: Prometheus runs under another
// account, which may not be able to read the checkout.
func preparePrometheus(_ context.Context, s site) error {
	config := filepath.Join(s.dir, configDir)
	if _, err := os.Stat(filepath.Join(config, prometheusConfig)); err == nil && s.boards == nil {
		return nil // started again by someone who does not have the files: keep them
	}
	if err := os.RemoveAll(config); err != nil {
		return err
	}
	for _, dir := range []string{s.dataDir(), config} {
		if err := s.who.makeDir(dir); err != nil {
			return err
		}
	}
	if s.boards == nil {
		return s.who.writeFile(filepath.Join(config, prometheusConfig), fmt.Appendf(nil, scrapeItself, s.address()))
	}
	return fs.WalkDir(s.boards, ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		to := filepath.Join(config, filepath.FromSlash(path))
		if d.IsDir() {
			return s.who.makeDir(to)
		}
		content, err := fs.ReadFile(s.boards, path)
		if err != nil {
			return err
		}
		return s.who.writeFile(to, content)
	})
}

// pingPrometheus asks whether it is ready to answer queries.
func pingPrometheus(ctx context.Context, rawURL string) error {
	return askPrometheus(ctx, http.MethodGet, rawURL+"/-/ready")
}

// settlePrometheus lets one that was running already read the files anew.
func settlePrometheus(ctx context.Context, s site) error {
	return askPrometheus(ctx, http.MethodPost, prometheusURL(s)+"/-/reload")
}

func askPrometheus(ctx context.Context, method, url string) error {
	req, err := http.NewRequestWithContext(ctx, method, url, nil)
	if err != nil {
		return err
	}
	req.Close = true // an idle connection would outlive the call
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", url, resp.Status)
	}
	return nil
}
