package door_test

import (
	"context"
	"runtime"
	"strconv"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/valyala/fasthttp"

	"github.com/doorbuster/doorbuster/engine"
	"github.com/doorbuster/doorbuster/engine/door"
	"github.com/doorbuster/doorbuster/stock"
)

// yes accepts everything and writes nothing down: what is left is the door.
type yes struct {
	*fakeStock
	seq atomic.Int64
}

func (y *yes) Reserve(_ context.Context, _ engine.SaleID, g stock.Grip, baskets []engine.Basket, d *stock.Decision) error {
	n := int64(len(baskets))
	d.At, d.First, d.Verdicts = time.Now().UnixMilli(), y.seq.Add(n)-n+1, d.Verdicts[:0]
	for i := range baskets {
		d.Verdicts = append(d.Verdicts, stock.Verdict{Outcome: engine.Accepted, Hold: engine.Hold{Epoch: g.Epoch, Seq: d.First + int64(i)}, LimitBuyer: 10})
	}
	runtime.Gosched() // as the wait for Redis does
	return nil
}

func (y *yes) Mark(context.Context, engine.SaleID, int64, []int64) error { return nil }

type yesPublisher struct{}

func (yesPublisher) Blocked() bool { return false }
func (yesPublisher) Publish(context.Context, engine.SaleID, []byte) error {
	runtime.Gosched()
	return nil
}

// processor is the processor time of this process: on a machine that others use
// too, it says more than the clock.
func processor() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkHandler is the door without a network: one op is one request through
// guard and handler. "fixed" is the same requests with a fixed reply.
func BenchmarkHandler(b *testing.B) {
	for name, c := range map[string]struct {
		units int64
		yes   bool
		want  int
	}{"fixed": {}, "sold-out": {want: 409}, "accepted": {units: 1, yes: true, want: 202}} {
		b.Run(name, func(b *testing.B) {
			s := setup(b, units(c.units), func(cfg *door.Config, _ *engine.Sale) {
				if c.yes {
					cfg.Stock, cfg.Publisher = &yes{fakeStock: cfg.Stock.(*fakeStock)}, yesPublisher{}
				}
			})
			if c.want == 0 {
				s.serve = func(ctx *fasthttp.RequestCtx) { ctx.SetBodyString("fixed") }
			} else {
				s.buy("warm", "k")
				s.watched()
			}
			const contexts = 256
			ctxs := make(chan *fasthttp.RequestCtx, contexts)
			for i := range contexts {
				ctxs <- s.context(ask{ticket: s.ticket("buyer" + strconv.Itoa(i)), key: "k", body: oneMug}.bytes())
			}
			b.ReportAllocs()
			b.SetParallelism(contexts / runtime.GOMAXPROCS(0))
			b.ResetTimer()
			began := processor()
			b.RunParallel(func(pb *testing.PB) {
				ctx := <-ctxs
				for pb.Next() {
					ctx.Response.Reset()
					s.serve(ctx)
					if got := ctx.Response.StatusCode(); c.want != 0 && got != c.want {
						b.Errorf("%d %s", got, ctx.Response.Body())
						return
					}
				}
				ctxs <- ctx
			})
			b.ReportMetric(float64(processor()-began)/float64(b.N), "cpu-ns/op")
		})
	}
}
