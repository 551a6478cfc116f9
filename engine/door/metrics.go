package door

import (
	"errors"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// The door's routes, as labels.
const (
	routeOrder = iota
	routeShow
	numRoutes
)

var routeNames = [numRoutes]string{"order", "sale"}

// metrics are resolved once: no label is looked up while a request is served.
type metrics struct {
	answers [numRoutes][numAnswers]prometheus.Counter

	wait, script, confirm, accept prometheus.Observer
	groupSize                     prometheus.Histogram

	watchFailures, scriptFailures, publishFailures, markFailures, unsafe prometheus.Counter
	archiveFailures, stale, fenced                                       prometheus.Counter
}

// stageBuckets are seconds, from a call on the same machine to the time-outs.
var stageBuckets = []float64{.0002, .0005, .001, .002, .005, .01, .015, .025, .05, .1, .25, .5, 1, 2.5}

const nativeFactor = 1.1

func newMetrics(d *Door, reg prometheus.Registerer) (*metrics, error) {
	requests := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "doorbuster_door_requests_total", Help: "Requests by route and what they heard.",
	}, []string{"route", "outcome", "code"})
	stages := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "doorbuster_door_stage_seconds",
		Help: "Time of a group in each stage: wait of its first member, script, confirm.", Buckets: stageBuckets,
		NativeHistogramBucketFactor: nativeFactor,
	}, []string{"stage"})
	accept := prometheus.NewHistogram(prometheus.HistogramOpts{
		Name: "doorbuster_door_accept_seconds", Help: "Time from joining a group to a 202.",
		Buckets: stageBuckets, NativeHistogramBucketFactor: nativeFactor,
	})
	size := prometheus.NewHistogram(prometheus.HistogramOpts{
		Name: "doorbuster_door_group_orders", Help: "Requests decided by one script call.",
		Buckets: []float64{1, 2, 4, 8, 16, 32, 64, 128, 256}, NativeHistogramBucketFactor: nativeFactor,
	})
	failures := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "doorbuster_door_failures_total", Help: "Calls of the door that failed, by what was called.",
	}, []string{"call"})
	ends := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "doorbuster_door_refused_calls_total", Help: "Script calls that were refused whole: another definition, or fenced.",
	}, []string{"why"})
	m := &metrics{
		wait: stages.WithLabelValues("wait"), script: stages.WithLabelValues("script"),
		confirm: stages.WithLabelValues("confirm"), accept: accept, groupSize: size,
		watchFailures: failures.WithLabelValues("watch"), scriptFailures: failures.WithLabelValues("script"),
		publishFailures: failures.WithLabelValues("publish"), markFailures: failures.WithLabelValues("mark"),
		unsafe: failures.WithLabelValues("sync"), archiveFailures: failures.WithLabelValues("archive"),
		stale: ends.WithLabelValues("stale"), fenced: ends.WithLabelValues("fenced"),
	}
	for route := range m.answers {
		for a := range m.answers[route] {
			m.answers[route][a] = requests.WithLabelValues(routeNames[route], outcomeName(answer(a)), codeOf(answer(a)))
		}
	}
	var errs error
	for _, c := range []prometheus.Collector{requests, stages, accept, size, failures, ends, newSaleCollector(d)} {
		errs = errors.Join(errs, reg.Register(c))
	}
	return m, errs
}

// outcomeName is the label of an answer: the slug of its type, or what it is of
// HTTP.
func outcomeName(a answer) string {
	switch {
	case a == unanswered:
		return "shown"
	case problems[a].slug != "":
		return problems[a].slug
	}
	return "http"
}

func codeOf(a answer) string {
	if a == unanswered {
		return "200"
	}
	return strconv.Itoa(problems[a].status)
}

func secondsOf(nanoseconds int64) float64 { return time.Duration(nanoseconds).Seconds() }

// saleCollector reports the sales in use, as they are when it is asked; a sale
// out of use is not reported.
type saleCollector struct {
	door *Door

	units, gateLimit, gateUsed, lease, epoch, heartbeat, lag, flags, waiting, inUse *prometheus.Desc
}

func newSaleCollector(d *Door) *saleCollector {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("doorbuster_door_"+name, help, labels, nil)
	}
	return &saleCollector{
		door:      d,
		units:     desc("stock_units", "Units by SKU and where they are, as the watch saw them.", "sale", "sku", "where"),
		gateLimit: desc("gate_limit_requests", "Requests of a sale that may be in flight.", "sale"),
		gateUsed:  desc("gate_used_requests", "Requests of a sale in flight.", "sale"),
		lease:     desc("lease_left_seconds", "How long the door may yet say 202.", "sale"),
		epoch:     desc("epoch_number", "Epoch of the keys in use.", "sale"),
		heartbeat: desc("heartbeat_number", "Number recovery raises while it leads.", "sale"),
		lag:       desc("ingest_lag_seconds", "How far the ingest is behind, as recovery told.", "sale"),
		flags:     desc("flag_state", "1 while the door refuses by this flag.", "sale", "flag"),
		waiting:   desc("groups_in_flight_groups", "Groups of a sale between script and confirm.", "sale"),
		inUse:     desc("sales_in_use_sales", "Sales that the door watches."),
	}
}

// Describe tells nothing: what is reported depends on the sales in use.
func (c *saleCollector) Describe(chan<- *prometheus.Desc) {}

// Collect reports every sale in use.
func (c *saleCollector) Collect(ch chan<- prometheus.Metric) {
	sales := c.door.sales.all()
	gauge(ch, c.inUse, float64(len(sales)))
	now := c.door.clock()
	for _, s := range sales {
		if v := s.view.Load(); v != nil && !v.missing {
			c.sale(ch, s, v, now)
		}
	}
}

func (c *saleCollector) sale(ch chan<- prometheus.Metric, s *sale, v *view, now int64) {
	id := string(s.id)
	gauge(ch, c.gateLimit, float64(s.gate.limit.Load()), id)
	gauge(ch, c.gateUsed, float64(s.gate.used.Load()), id)
	gauge(ch, c.lease, secondsOf(s.lease.left(now)), id)
	gauge(ch, c.epoch, float64(v.Epoch), id)
	gauge(ch, c.heartbeat, float64(v.Heartbeat), id)
	gauge(ch, c.lag, float64(v.Lag)/1000, id)
	gauge(ch, c.waiting, float64(s.lane.inFlight()), id)
	refusal := v.refusal(now)
	for flag, set := range map[string]bool{
		"not_open": refusal == notOpen, "closed": refusal == saleClosed, "paused": refusal == salePaused,
		"frozen": v.Frozen, "sold_out": len(v.Items) > 0 && v.soldOut == 1<<uint(len(v.Items))-1,
		"blocked": c.door.cfg.Publisher.Blocked(),
	} {
		n := 0.0
		if set {
			n = 1
		}
		gauge(ch, c.flags, n, id, flag)
	}
	for i := range v.Items {
		it := &v.Items[i]
		gauge(ch, c.units, float64(it.Available), id, string(it.SKU), "available")
		gauge(ch, c.units, float64(it.Held), id, string(it.SKU), "held")
		gauge(ch, c.units, float64(it.Sold), id, string(it.SKU), "sold")
	}
}

func gauge(ch chan<- prometheus.Metric, desc *prometheus.Desc, value float64, labels ...string) {
	ch <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, value, labels...)
}
