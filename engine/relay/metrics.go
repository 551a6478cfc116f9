package relay

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/doorbuster/doorbuster/engine"
)

type meter struct {
	published prometheus.Counter
	entries   *prometheus.GaugeVec
	age       *prometheus.GaugeVec
}

func newMeter(r prometheus.Registerer) *meter {
	m := &meter{
		published: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "doorbuster_relay_published_total", Help: "Outbox entries that the relay published and marked.",
		}),
		entries: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "doorbuster_relay_outbox_entries", Help: "Entries in a sale's outboxes that are not marked.",
		}, []string{"sale"}),
		age: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "doorbuster_relay_outbox_age_seconds", Help: "Age of the oldest entry in a sale's outboxes.",
		}, []string{"sale"}),
	}
	r.MustRegister(m.published, m.entries, m.age)
	return m
}

// observe is called a few times a second per sale, so it need not keep children.
func (m *meter) observe(sale engine.SaleID, entries int64, age time.Duration) {
	m.entries.WithLabelValues(string(sale)).Set(float64(entries))
	m.age.WithLabelValues(string(sale)).Set(age.Seconds())
}

// forget drops the series of a sale no longer in use.
func (m *meter) forget(sale engine.SaleID) {
	m.entries.DeleteLabelValues(string(sale))
	m.age.DeleteLabelValues(string(sale))
}
