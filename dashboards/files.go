package dashboards

import (
	"embed"
	"fmt"
	"io/fs"
	"strings"
)

//go:embed files
var embedded embed.FS

// FS holds prometheus.yml, alerts.yml and overview.json at its root.
var FS = func() fs.FS {
	sub, err := fs.Sub(embedded, "files")
	if err != nil {
		panic("dashboards: the folder of the embed directive above is missing: " + err.Error()) // cannot be: it is compiled in
	}
	return sub
}()

// DefaultTargets are where `doorbuster serve` and `doorbuster audit --watch` say
// their metrics unless told otherwise.
var DefaultTargets = []string{"127.0.0.1:9090", "127.0.0.1:9091"}

// ScrapeConfig returns a prometheus.yml that scrapes the targets (host:port) and
// loads alerts.yml from beside it. prometheus.yml in FS is the one of
// DefaultTargets.
func ScrapeConfig(targets ...string) []byte {
	quoted := make([]string, len(targets))
	for i, t := range targets {
		quoted[i] = fmt.Sprintf("%q", t)
	}
	return fmt.Appendf(nil, `# What Prometheus scrapes of Doorbuster. A sale is over in seconds, so it looks
# every second.
global:
  scrape_interval: 1s
  scrape_timeout: 900ms
  evaluation_interval: 1s

rule_files:
  - alerts.yml

scrape_configs:
  - job_name: doorbuster
    static_configs:
      - targets: [%s]
`, strings.Join(quoted, ", "))
}
