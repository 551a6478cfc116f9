package payment

import (
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/doorbuster/doorbuster/engine"
	"github.com/doorbuster/doorbuster/engine/orders"
)

// metrics are the worker's figures; children are resolved once.
type metrics struct {
	provider       *prometheus.HistogramVec // provider, call
	providerFailed *prometheus.CounterVec   // provider, call

	reserved, cancelled, repeatedMsg, foreign, fork prometheus.Counter
	retaken, retakeRefused, rejected, dead, acked   prometheus.Counter
	parked                                          prometheus.Counter
	paid                                            [orders.Voided + 1]prometheus.Counter
	unknown, repeated, lost, contradicted, overdue  prometheus.Counter
	captured, refused, voided, putOff, expired      prometheus.Counter
	inHand, lag, owedCaptures, owedVoids, parkedNow prometheus.Gauge
	held                                            prometheus.Counter

	errors struct{ ingest, claim, settle, capture, expire prometheus.Counter }
	took   struct{ ingest, claim, settle, capture, expire prometheus.Observer }
}

func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		provider: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "doorbuster_payment_provider_seconds", Help: "Duration of a call to a provider; one per batch where it takes batches.",
			Buckets: []float64{.0001, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5},
		}, []string{"provider", "call"}),
		providerFailed: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "doorbuster_payment_provider_errors_total", Help: "Calls to a provider that ended without an outcome, or with a refusal.",
		}, []string{"provider", "call"}),
		inHand: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "doorbuster_payment_in_hand_orders", Help: "Orders with a payer of this process.",
		}),
		lag: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "doorbuster_payment_ingest_lag_seconds", Help: "Age of the oldest order of the latest batch when its ingest began.",
		}),
		held: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "doorbuster_payment_held_back_seconds_total", Help: "Time ingest waited because a sale stormed (serve --give-way).",
		}),
		acked: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "doorbuster_payment_messages_total", Help: "Messages acknowledged.",
		}),
	}
	owed := prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "doorbuster_payment_owed_charges", Help: "Charges that are still to be captured, attempts that are still to be voided.",
	}, []string{"kind"})
	m.owedCaptures, m.owedVoids = owed.WithLabelValues("capture"), owed.WithLabelValues("void")
	errs := []error{m.registerOrders(reg), m.registerStages(reg)}
	for _, c := range []prometheus.Collector{m.provider, m.providerFailed, m.inHand, m.lag, m.acked, m.held, owed} {
		errs = append(errs, reg.Register(c))
	}
	return m, errors.Join(errs...)
}

func (m *metrics) registerOrders(reg prometheus.Registerer) error {
	ended := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "doorbuster_payment_orders_total", Help: "Orders by stage and what became of them there.",
	}, []string{"stage", "result"})
	for _, c := range []struct {
		to            *prometheus.Counter
		stage, result string
	}{
		{&m.reserved, "ingest", "new"},
		{&m.cancelled, "ingest", "cancelled"},
		{&m.repeatedMsg, "ingest", "repeated"},
		{&m.foreign, "ingest", "foreign"},
		{&m.fork, "ingest", "fork"},
		{&m.retaken, "ingest", "retaken"},
		{&m.retakeRefused, "ingest", "retake_refused"},
		{&m.parked, "ingest", "parked"},
		{&m.rejected, "ingest", "rejected"},
		{&m.dead, "ingest", "dead"},
		{&m.paid[orders.Confirmed], "pay", "confirmed"},
		{&m.paid[orders.Declined], "pay", "declined"},
		{&m.paid[orders.Voided], "pay", "voided"},
		{&m.unknown, "pay", "unknown"},
		{&m.overdue, "pay", "overdue"},
		{&m.repeated, "pay", "repeated"},
		{&m.lost, "pay", "lost"},
		{&m.contradicted, "pay", "contradicted"},
		{&m.captured, "capture", "captured"},
		{&m.refused, "capture", "refused"},
		{&m.voided, "capture", "voided"},
		{&m.putOff, "capture", "later"},
		{&m.expired, "expire", "expired"},
	} {
		*c.to = ended.WithLabelValues(c.stage, c.result)
	}
	m.parkedNow = prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "doorbuster_payment_parked_orders", Help: "Orders of an older epoch that wait until their sale can take them again.",
	})
	return errors.Join(reg.Register(ended), reg.Register(m.parkedNow))
}

func (m *metrics) registerStages(reg prometheus.Registerer) error {
	failed := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "doorbuster_payment_errors_total", Help: "Steps that failed, by stage; they are tried again.",
	}, []string{"stage"})
	took := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "doorbuster_payment_step_seconds", Help: "Duration of a step (one batch), by stage.",
		Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10},
	}, []string{"stage"})
	for _, s := range []struct {
		stage string
		err   *prometheus.Counter
		took  *prometheus.Observer
	}{
		{"ingest", &m.errors.ingest, &m.took.ingest},
		{"claim", &m.errors.claim, &m.took.claim},
		{"settle", &m.errors.settle, &m.took.settle},
		{"capture", &m.errors.capture, &m.took.capture},
		{"expire", &m.errors.expire, &m.took.expire},
	} {
		*s.err, *s.took = failed.WithLabelValues(s.stage), took.WithLabelValues(s.stage)
	}
	return errors.Join(reg.Register(failed), reg.Register(took))
}

// stage begins to measure a step; the function it returns ends that.
func (m *metrics) stage(name string) func(error) {
	began := time.Now()
	return func(err error) {
		took, failed := m.of(name)
		took.Observe(time.Since(began).Seconds())
		if err != nil {
			failed.Inc()
		}
	}
}

func (m *metrics) of(stage string) (prometheus.Observer, prometheus.Counter) {
	switch stage {
	case "ingest":
		return m.took.ingest, m.errors.ingest
	case "claim":
		return m.took.claim, m.errors.claim
	case "settle":
		return m.took.settle, m.errors.settle
	case "capture":
		return m.took.capture, m.errors.capture
	}
	return m.took.expire, m.errors.expire
}

func (m *metrics) ingested(r *orders.IngestReport) {
	m.reserved.Add(float64(len(r.Reserved) + len(r.Claimed)))
	m.cancelled.Add(float64(r.Cancelled))
	m.repeatedMsg.Add(float64(r.Repeated))
	m.foreign.Add(float64(r.Foreign))
	m.fork.Add(float64(r.Forks))
}

func (m *metrics) ingestLag(now time.Time, os []engine.Order) {
	if len(os) == 0 {
		return
	}
	oldest := os[0].AcceptedAt
	for i := range os {
		oldest = min(oldest, os[i].AcceptedAt)
	}
	m.lag.Set(max(0, now.Sub(time.UnixMilli(oldest)).Seconds()))
}
