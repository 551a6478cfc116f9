package queue

import (
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

var publishBuckets = []float64{.0005, .001, .002, .004, .008, .015, .025, .05, .1, .25, .5, 1, 1.5, 3}

type publishMeter struct {
	seconds   prometheus.Observer
	results   map[string]prometheus.Counter
	connected prometheus.Gauge
	blocked   prometheus.Gauge
}

func newPublishMeter(r prometheus.Registerer) *publishMeter {
	results := register(r, prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "doorbuster_queue_publish_total", Help: "Messages given to Publish, by what became of them.",
	}, []string{"result"}))
	m := &publishMeter{
		seconds: register(r, prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "doorbuster_queue_publish_seconds", Help: "From Publish to the broker's confirm; confirmed messages only.",
			Buckets: publishBuckets, NativeHistogramBucketFactor: 1.1,
		})),
		connected: register(r, prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "doorbuster_queue_publisher_connected", Help: "1 while the publisher has a connection.",
		})),
		blocked: register(r, prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "doorbuster_queue_publisher_blocked", Help: "1 while the broker blocks publishers.",
		})),
		results: map[string]prometheus.Counter{},
	}
	for _, result := range []string{"confirmed", "down", "blocked", "unroutable", "refused", "lost", "timeout", "invalid"} {
		m.results[result] = results.WithLabelValues(result)
	}
	return m
}

func (m *publishMeter) observe(start time.Time, err error) {
	if err == nil {
		m.seconds.Observe(time.Since(start).Seconds())
	}
	m.results[resultOf(err)].Inc()
}

type consumeMeter struct {
	consumers             prometheus.Gauge
	batch                 prometheus.Observer
	acked, requeued, dead prometheus.Counter
}

func newConsumeMeter(r prometheus.Registerer) *consumeMeter {
	ends := register(r, prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "doorbuster_queue_deliveries_total", Help: "Deliveries, by how they ended: ack, requeue or dead letter.",
	}, []string{"end"}))
	return &consumeMeter{
		consumers: register(r, prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "doorbuster_queue_consumers", Help: "Consumers that are connected.",
		})),
		batch: register(r, prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "doorbuster_queue_batch_messages", Help: "Messages handed over at once.",
			Buckets: []float64{1, 2, 3, 4, 6, 8, 16, 32}, NativeHistogramBucketFactor: 1.1,
		})),
		acked: ends.WithLabelValues("ack"), requeued: ends.WithLabelValues("requeue"), dead: ends.WithLabelValues("dead"),
	}
}

type depthMeter struct {
	ready, waiting *prometheus.GaugeVec
	dead           *prometheus.GaugeVec
}

func newDepthMeter(r prometheus.Registerer) *depthMeter {
	return &depthMeter{
		ready: register(r, prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "doorbuster_queue_ready_messages", Help: "Messages that wait in an ingest queue; those in a worker's hands are not counted.",
		}, []string{"queue"})),
		waiting: register(r, prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "doorbuster_queue_waiting_seconds", Help: "How long an ingest queue has not been seen empty.",
		}, []string{"queue"})),
		dead: register(r, prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "doorbuster_queue_dead_messages", Help: "Messages in the dead-letter queue: each holds orders that were told 202.",
		}, nil)),
	}
}

// unknown takes the figures away: an old one would be taken for the truth.
func (m *depthMeter) unknown() {
	m.ready.Reset()
	m.waiting.Reset()
	m.dead.Reset()
}

// register lets the publisher and every consumer of a process share metrics.
func register[C prometheus.Collector](r prometheus.Registerer, c C) C {
	err := r.Register(c)
	var have prometheus.AlreadyRegisteredError
	if errors.As(err, &have) {
		if same, ok := have.ExistingCollector.(C); ok {
			return same
		}
	}
	return c
}
