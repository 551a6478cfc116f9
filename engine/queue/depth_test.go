package queue_test

import (
	"context"
	"strconv"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/doorbuster/doorbuster/engine/backing/backingtest"
	"github.com/doorbuster/doorbuster/engine/queue"
)

// gauges reads a metric by its label, "" if it has none.
func gauges(t testing.TB, reg *prometheus.Registry, name string) map[string]float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]float64{}
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			label := ""
			if len(m.GetLabel()) > 0 {
				label = m.GetLabel()[0].GetValue()
			}
			out[label] = m.GetGauge().GetValue()
		}
	}
	return out
}

func TestMeasure(t *testing.T) {
	t.Parallel()
	b := setup(t)
	reg := prometheus.NewRegistry()
	cfg := b.cfg
	cfg.Registerer = reg
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := queue.Measure(ctx, cfg); err != nil {
			t.Error(err)
		}
	})
	defer wg.Wait()
	defer cancel()
	const ready, waiting, dead = "doorbuster_queue_ready_messages", "doorbuster_queue_waiting_seconds", "doorbuster_queue_dead_messages"
	of := strconv.Itoa(queue.IngestQueue(sale))
	backingtest.Eventually(t, "every queue is measured", func() bool {
		return len(gauges(t, reg, ready)) == queue.Queues && len(gauges(t, reg, dead)) == 1
	})
	if n := gauges(t, reg, waiting)[of]; n != 0 {
		t.Errorf("an empty queue waits for %v s", n)
	}
	p := b.publisher(t, b.direct)
	for i := range 3 {
		if err := p.Publish(t.Context(), sale, []byte(strconv.Itoa(i))); err != nil {
			t.Fatal(err)
		}
	}
	backingtest.Eventually(t, "3 messages are ready, and wait", func() bool {
		return gauges(t, reg, ready)[of] == 3 && gauges(t, reg, waiting)[of] > 0
	})
	kill(t, b.direct, 1)
	backingtest.Eventually(t, "one is a dead letter", func() bool {
		return gauges(t, reg, dead)[""] == 1 && gauges(t, reg, ready)[of] == 2
	})
	b.proxy.setRefuse(true)
	b.proxy.cut()
	backingtest.Eventually(t, "no figure while the broker is away", func() bool { return len(gauges(t, reg, ready))+len(gauges(t, reg, dead)) == 0 })
	b.proxy.setRefuse(false)
	backingtest.Eventually(t, "the age counts on", func() bool { return gauges(t, reg, waiting)[of] > queue.MeasureEvery.Seconds() })
	collect(t, b.direct, 2)
	backingtest.Eventually(t, "empty again", func() bool {
		waits, ok := gauges(t, reg, waiting)[of]
		return ok && waits == 0 && gauges(t, reg, ready)[of] == 0
	})
}

// kill sends n messages to the dead-letter queue.
func kill(t testing.TB, cfg queue.Config, n int) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	err := queue.Consume(ctx, cfg, queue.IngestQueue(sale), queue.ConsumeOptions{Prefetch: 1, MaxBatch: 1}, func(_ context.Context, batch []*queue.Delivery) {
		if err := batch[0].Nack(false); err != nil {
			t.Error(err)
		}
		if n--; n == 0 {
			cancel()
		}
	})
	if err != nil {
		t.Fatal(err)
	}
}
