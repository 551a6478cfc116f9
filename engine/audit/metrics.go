package audit

import (
	"errors"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/doorbuster/doorbuster/engine"
)

// Meter tells Prometheus what reports found: doorbuster_audit_law_broken{sale,law}
// is 1 or 0 for each law that was checked, doorbuster_audit_look_age_seconds{sale}
// the age of the last report. A law that was broken once stays 1 as long as the
// meter lives: the alert must not go away because nobody looked again. Safe for
// use by many goroutines.
type Meter struct {
	now    func() time.Time
	broken *prometheus.GaugeVec
	age    *prometheus.Desc

	mu    sync.Mutex
	seen  map[engine.SaleID]time.Time
	found map[string]bool // sale and law that were broken
}

// NewMeter registers the metrics; now is nil for time.Now.
func NewMeter(reg prometheus.Registerer, now func() time.Time) (*Meter, error) {
	if now == nil {
		now = time.Now
	}
	m := &Meter{
		now: now, seen: map[engine.SaleID]time.Time{}, found: map[string]bool{},
		broken: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "doorbuster_audit_law_broken", Help: "1 if the law was ever found broken, 0 if it held when checked.",
		}, []string{"sale", "law"}),
		age: prometheus.NewDesc("doorbuster_audit_look_age_seconds", "Age of the last report on the sale.", []string{"sale"}, nil),
	}
	return m, errors.Join(reg.Register(m.broken), reg.Register(m))
}

// Observe takes in a report.
func (m *Meter) Observe(r *Report) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.seen[r.Sale] = m.now()
	for i := range r.Laws {
		l := &r.Laws[i]
		if l.Holds == Unchecked {
			continue
		}
		law := strconv.Itoa(l.Number)
		key := string(r.Sale) + " " + law
		m.found[key] = m.found[key] || l.Holds == Broken
		value := 0.0
		if m.found[key] {
			value = 1
		}
		m.broken.WithLabelValues(string(r.Sale), law).Set(value)
	}
}

// Describe tells nothing: what is reported depends on the sales that were looked at.
func (m *Meter) Describe(chan<- *prometheus.Desc) {}

// Collect reports how old the last look at each sale is.
func (m *Meter) Collect(ch chan<- prometheus.Metric) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for sale, at := range m.seen {
		ch <- prometheus.MustNewConstMetric(m.age, prometheus.GaugeValue, m.now().Sub(at).Seconds(), string(sale))
	}
}
