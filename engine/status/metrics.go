package status

import (
	"github.com/prometheus/client_golang/prometheus"
)

// metrics has its label children resolved once.
type metrics struct {
	requests       [numRoutes][6]prometheus.Counter // by hundreds of the HTTP status
	streams        prometheus.Gauge
	streamsRefused prometheus.Counter
	busy, failed   prometheus.Counter
	poll, search   prometheus.Histogram
}

var statusClasses = [6]string{"other", "1xx", "2xx", "3xx", "4xx", "5xx"}

var secondsBuckets = []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5}

func newMetrics(reg prometheus.Registerer) *metrics {
	requests := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "doorbuster_status_requests_total", Help: "Requests answered, by route and class of HTTP status.",
	}, []string{"route", "class"})
	m := &metrics{
		streams: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "doorbuster_status_streams", Help: "Live streams open now.",
		}),
		streamsRefused: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "doorbuster_status_streams_refused_total", Help: "Live streams refused, because there were too many.",
		}),
		busy: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "doorbuster_status_busy_total", Help: "Questions that got no turn at PostgreSQL or Redis in time.",
		}),
		failed: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "doorbuster_status_failures_total", Help: "Questions that PostgreSQL or Redis did not answer.",
		}),
		poll: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "doorbuster_status_poll_seconds", Help: "Time to ask for all watched orders once.",
			Buckets: secondsBuckets,
		}),
		search: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "doorbuster_status_search_seconds", Help: "Time of one pass over a sale's records, for orders not yet ingested.",
			Buckets: secondsBuckets,
		}),
	}
	for r := one; r < numRoutes; r++ {
		for c, class := range statusClasses {
			m.requests[r][c] = requests.WithLabelValues(routeNames[r], class)
		}
	}
	reg.MustRegister(requests, m.streams, m.streamsRefused, m.busy, m.failed, m.poll, m.search)
	return m
}

func (m *metrics) answered(r routeID, status int) {
	class := status / 100
	if class < 1 || class > 5 {
		class = 0
	}
	m.requests[r][class].Inc()
}
