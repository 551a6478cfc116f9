package recovery

import (
	"context"
	"fmt"
	"time"

	"github.com/doorbuster/doorbuster/engine"
	"github.com/doorbuster/doorbuster/engine/orders"
)

const (
	skewAlarm = 250 * time.Millisecond
	skewPause = time.Second
	skewTimes = 3 // measurements in a row before the sale is paused
)

// interval is when a question was asked and answered, by the local clock.
type interval struct{ asked, answered time.Time }

func (i interval) middle() time.Time   { return i.asked.Add(i.answered.Sub(i.asked) / 2) }
func (i interval) half() time.Duration { return i.answered.Sub(i.asked) / 2 }

// skew is how far Redis' clock is before PostgreSQL's, and by how much that
// measurement may be wrong.
type skew struct{ by, unsure time.Duration }

// measureSkew compares two clocks that were read one after the other. Each was
// read at some moment of its interval; the local clock tells how far apart.
func measureSkew(p interval, postgres time.Time, r interval, redisMS int64) skew {
	if postgres.IsZero() || redisMS == 0 {
		return skew{}
	}
	between := r.middle().Sub(p.middle())
	return skew{
		by:     time.UnixMilli(redisMS).Sub(postgres) - between,
		unsure: p.half() + r.half() + time.Millisecond, // Redis' time is told in milliseconds
	}
}

// least is the smallest difference that the measurement allows.
func (s skew) least() time.Duration { return max(0, s.by.Abs()-s.unsure) }

// clock watches that the window, which Redis' clock decides, and the deadlines,
// which PostgreSQL's decides, are of one time. More than skewAlarm apart is an
// alarm (the metric; a log line once), more than skewPause pauses the sale. It is
// resumed by hand.
type clock struct {
	k     *keeper
	apart bool
	far   int
}

// runOnce judges one measurement. It returns whether it paused the sale.
func (c *clock) runOnce(ctx context.Context, v *view) (bool, error) {
	k, least := c.k, v.skew.least()
	k.meter.skew.Set(v.skew.by.Seconds())
	if apart := least > skewAlarm; apart != c.apart {
		c.apart = apart
		k.log.Warn("clocks of Redis and PostgreSQL", "apart", apart, "redis_ahead_by", v.skew.by, "unsure", v.skew.unsure)
	}
	if least <= skewPause {
		c.far = 0
		return false, nil
	}
	c.far = min(c.far+1, skewTimes)
	if !c.tooFar() || v.def.State == engine.SalePaused && v.watch.State == engine.SalePaused ||
		v.def.State == engine.SaleClosed || v.def.State == engine.SaleSettled {
		return false, nil
	}
	// Tightening goes to Redis first. If PostgreSQL does not follow, the next
	// measurement tries again; the follower, which would open Redis, stands back.
	if v.watch.State == engine.SaleOpen {
		if err := k.r.cfg.Stock.SetState(ctx, k.sale, v.watch.Grip, engine.SalePaused); err != nil {
			return false, fmt.Errorf("pause for the clocks: %w", err)
		}
	}
	note := orders.Note{Who: "recovery", Why: fmt.Sprintf("the clock of Redis is %v before that of PostgreSQL", v.skew.by.Round(time.Millisecond))}
	if err := k.orders.SetSaleState(ctx, k.sale, engine.SalePaused, note); err != nil {
		return true, fmt.Errorf("pause for the clocks: %w", err)
	}
	k.log.Error("sale paused: the clocks of Redis and PostgreSQL are too far apart", "redis_ahead_by", v.skew.by)
	return true, nil
}

// tooFar tells whether the clocks are so far apart that the sale must stay paused.
func (c *clock) tooFar() bool { return c.far >= skewTimes }
