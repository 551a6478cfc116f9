package recovery

import (
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/doorbuster/doorbuster/engine"
)

// meter holds the metrics of all sales.
type meter struct {
	perSale  []*prometheus.GaugeVec
	leading  *prometheus.GaugeVec
	epoch    *prometheus.GaugeVec
	beats    *prometheus.GaugeVec
	backlog  *prometheus.GaugeVec
	lag      *prometheus.GaugeVec
	skew     *prometheus.GaugeVec
	phases   *prometheus.GaugeVec
	steps    map[Phase]prometheus.Observer
	rebuilds *prometheus.CounterVec
	took     prometheus.Observer
	moves    map[engine.MoveOp]prometheus.Counter
	rows     prometheus.Counter
	badRows  prometheus.Counter
	sweeps   prometheus.Observer
	swept    prometheus.Counter
	dropped  prometheus.Counter
	pruned   prometheus.Counter
}

func newMeter(r prometheus.Registerer) *meter {
	m := &meter{}
	gauge := func(name, help string) *prometheus.GaugeVec {
		g := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "doorbuster_recovery_" + name, Help: help}, []string{"sale"})
		r.MustRegister(g)
		m.perSale = append(m.perSale, g)
		return g
	}
	counter := func(name, help string) prometheus.Counter {
		c := prometheus.NewCounter(prometheus.CounterOpts{Name: "doorbuster_recovery_" + name, Help: help})
		r.MustRegister(c)
		return c
	}
	histogram := func(name, help string, buckets []float64) prometheus.Histogram {
		h := prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "doorbuster_recovery_" + name, Help: help, Buckets: buckets, NativeHistogramBucketFactor: 1.1,
		})
		r.MustRegister(h)
		return h
	}
	m.leading = gauge("leading_sales", "1 while this process leads the sale.")
	m.epoch = gauge("sale_epoch", "The epoch in which the sale was last found sound.")
	m.beats = gauge("heartbeat_age_seconds", "Since this process last raised the sale's heartbeat.")
	m.backlog = gauge("applier_pending_moves", "Moves that waited at the last look, up to the applier's batch.")
	m.lag = gauge("ingest_lag_seconds", "Age of the oldest accept that PostgreSQL has not received.")
	m.skew = gauge("clock_skew_seconds", "How far Redis' clock is before PostgreSQL's.")
	m.phases = gauge("rebuild_phase", "Of the rebuild under way: 0 none, 1 freezing, 2 waiting, 3 draining, 4 queued, 5 cutting, 6 building, 7 loading.")
	steps := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "doorbuster_recovery_step_seconds", Help: "Time of a rebuild in each of its steps.",
		Buckets: []float64{.01, .05, .1, .25, .5, 1, 2, 3, 5, 10, 30}, NativeHistogramBucketFactor: 1.1,
	}, []string{"step"})
	r.MustRegister(steps)
	m.steps = map[Phase]prometheus.Observer{}
	for _, p := range phases[1:] {
		m.steps[p] = steps.WithLabelValues(string(p))
	}
	m.rebuilds = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "doorbuster_recovery_rebuilds_total", Help: "Rebuilds that were completed, by what set them off; new is the load of a new sale.",
	}, []string{"trigger"})
	r.MustRegister(m.rebuilds)
	for _, t := range triggers {
		m.rebuilds.WithLabelValues(string(t))
	}
	m.took = histogram("rebuild_seconds", "From the freeze until the scripts were loaded.", []float64{.1, .25, .5, 1, 2, 3, 4, 5, 7.5, 10, 20, 60})
	ops := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "doorbuster_recovery_moves_total", Help: "Moves applied to Redis, by operation.",
	}, []string{"op"})
	r.MustRegister(ops)
	m.moves = map[engine.MoveOp]prometheus.Counter{}
	for op := engine.Settle; op <= engine.Withdraw; op++ {
		m.moves[op] = ops.WithLabelValues(op.String())
	}
	m.rows = counter("rows_marked_total", "Release rows marked as done.")
	m.badRows = counter("rows_bad_total", "Times that the stock could not follow a release row.")
	m.sweeps = histogram("sweep_seconds", "Duration of a sweep of one sale.", []float64{.001, .01, .1, .5, 1, 5, 10, 30})
	m.swept = counter("swept_orders_total", "Orders that the sweep published again.")
	m.dropped = counter("epochs_dropped_total", "Old epochs whose keys were deleted.")
	m.pruned = counter("pruned_tombstones_total", "Tombstones deleted after the replay window.")
	return m
}

// of resolves the children of one sale.
func (m *meter) of(sale engine.SaleID) *saleMeter {
	s := string(sale)
	m.leading.WithLabelValues(s).Set(1)
	return &saleMeter{
		meter: m, epochNow: m.epoch.WithLabelValues(s), beatNow: m.beats.WithLabelValues(s),
		backlogNow: m.backlog.WithLabelValues(s), lag: m.lag.WithLabelValues(s), skew: m.skew.WithLabelValues(s),
		phaseNow: m.phases.WithLabelValues(s),
	}
}

// forget drops the series of a sale that is no longer led here.
func (m *meter) forget(sale engine.SaleID) {
	for _, g := range m.perSale {
		g.DeleteLabelValues(string(sale))
	}
}

// saleMeter holds the metrics of one sale.
type saleMeter struct {
	*meter
	epochNow, beatNow, backlogNow, lag, skew, phaseNow prometheus.Gauge
}

func (s *saleMeter) phase(p Phase)                    { s.phaseNow.Set(float64(slices.Index(phases, p))) }
func (s *saleMeter) step(p Phase, took time.Duration) { s.steps[p].Observe(took.Seconds()) }

func (s *saleMeter) sound(epoch int64)         { s.epochNow.Set(float64(epoch)) }
func (s *saleMeter) beatAge(age time.Duration) { s.beatNow.Set(age.Seconds()) }
func (s *saleMeter) pending(moves int)         { s.backlogNow.Set(float64(moves)) }

func (s *saleMeter) rebuilt(why Trigger, took time.Duration) {
	s.rebuilds.WithLabelValues(string(why)).Inc()
	s.took.Observe(took.Seconds())
}

func (s *saleMeter) applied(moves []engine.Move, rows int) {
	var n [engine.Withdraw + 1]int
	for i := range moves {
		if op := moves[i].Op; op > 0 && op <= engine.Withdraw {
			n[op]++
		}
	}
	for op, count := range n {
		if count > 0 {
			s.moves[engine.MoveOp(op)].Add(float64(count))
		}
	}
	s.rows.Add(float64(rows))
}

func (s *saleMeter) swept(c SweepCounts, took time.Duration) {
	s.sweeps.Observe(took.Seconds())
	s.meter.swept.Add(float64(c.Published))
	s.dropped.Add(float64(c.Dropped))
}
