package recovery

import (
	"context"
	"time"

	"github.com/doorbuster/doorbuster/engine/orders"
)

const (
	// askEvery is how often PostgreSQL is asked about a sale of which nothing is new.
	askEvery = 20 * time.Second

	// toldMost is how old a round may be to speak for PostgreSQL: as long as the lead
	// that it renewed stands.
	toldMost = orders.LeadFor
)

// told is what the last round told of a sale.
type told struct {
	fence orders.Fence // without AcceptedAt
	now   time.Time    // PostgreSQL's clock
	at    interval     // when it was asked
}

func (k *keeper) hear(t told) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.told = t
}

func (k *keeper) heard() told {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.told
}

// says tells whether the round says what the sale was found to be.
func (t *told) says(v *view) bool {
	return t.fence.Epoch == v.fence.Epoch && !t.fence.Frozen && t.fence.State == v.def.State && t.fence.Version == v.def.Version
}

// glance is a probe that asks Redis alone: the rounds speak for PostgreSQL, in one
// statement for all sales. False if something is not as it was when PostgreSQL was
// last asked, or if that is long ago; then nothing is decided, and it is asked.
// So a sale is only ever rebuilt after a full probe, and one whose orders are on their
// way to PostgreSQL is always probed fully.
func (p *prober) glance(ctx context.Context) (view, bool, error) {
	k := p.k
	v, t := k.view(), k.heard()
	if now := k.r.now(); !v.sound() || !now.Before(p.askAt) || now.Sub(t.at.asked) > toldMost || !t.says(&v) {
		return v, false, nil
	}
	ctx, cancel := p.k.r.within(ctx, callTime)
	defer cancel()
	n := notes{fence: v.fence, formerly: p.formerly}
	n.fence.Seq = max(n.fence.Seq, t.fence.Seq) // one epoch: see says
	watched, err := p.look(ctx, &n)
	if err != nil {
		return v, false, err
	}
	if diagnose(&n) != Sound || !p.lagger.caughtUp(n.fence.Epoch, n.watch.Seq) ||
		p.proved != proofOf(&n.watch) || n.watch.Version != v.def.Version || n.watch.State != stateInSlot(v.def.State) {
		return v, false, nil
	}
	v.watch, v.server, v.asOf = n.watch, n.server, t.now
	v.skew = measureSkew(t.at, t.now, watched, n.watch.Now)
	return v, true, nil
}
