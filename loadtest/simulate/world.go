package simulate

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/doorbuster/doorbuster/engine"
)

// The sales that are simulated.
const (
	saleID        = engine.SaleID("sim") // the first
	currency      = "EUR"
	limit         = 2 // units of a buyer
	identityLimit = 3 // units of all who share an identity
)

// How long a story is, in virtual time.
const (
	troubleFor = 22 * time.Second  // things fail
	restBy     = 240 * time.Second // all must be at rest
	maxSteps   = 200_000           // turns of actors in a story
)

var dawn = time.Unix(1_700_000_000, 0).UTC()

// world is one story.
type world struct {
	rng    *rand.Rand
	now    int64 // virtual nanoseconds since dawn
	events events
	ctx    context.Context //nolint:containedctx // of who is no process
	cur    *actor
	steps  int
	next   int64 // when to look again whether all is at rest
	healed bool  // nothing fails any more
	jumped bool  // a clock did

	deadlines int // of the stage's, how many are of this story

	rushed, replayed bool // see more

	actors    []*actor
	processes []*process

	redis  *redis
	db     *database
	broker *broker
	bank   *bank
	shops  []*shop
	plan   plan
	crowd  crowd
	stage  *stage

	laws   laws
	faults map[string]int
	story  *story
}

func newWorld(seed uint64, s *story, st *stage) *world {
	w := &world{rng: rand.New(rand.NewPCG(seed, 0x5eed)), faults: map[string]int{}, story: s, stage: st, ctx: context.Background()}
	w.events, st.events = st.events, nil
	w.plan = w.planned()
	w.db = newDatabase(w)
	for i := range w.plan.sales {
		w.shops = append(w.shops, w.newShop(i))
	}
	w.redis = newRedis(w)
	w.broker = newBroker(w)
	w.bank = newBank(w)
	w.laws.begin(w)
	w.crowd.begin(w)
	w.house()
	w.nemesis()
	w.after(troubleFor, w.heal)
	return w
}

// run tells the story to its end, and returns what was found wrong.
func (w *world) run() []string {
	defer w.close()
	w.next = int64(troubleFor)
	for w.step() && len(w.laws.broken) == 0 {
		if !w.looks(w.now, w.steps) {
			continue
		}
		if w.now >= w.next && w.healed {
			w.next = w.now + int64(time.Second)
			if w.laws.atRest() && !w.more() {
				w.laws.verdict()
				return w.laws.broken
			}
		}
		if w.now > int64(restBy) || w.steps > maxSteps {
			w.laws.breaks("not at rest: %s", w.laws.unrest())
		}
	}
	return w.laws.broken
}

// looks tells whether a story must be looked at as a whole when it has come that far.
func (w *world) looks(now int64, steps int) bool {
	return now >= w.next && w.healed || now > int64(restBy) || steps > maxSteps || len(w.laws.broken) > 0
}

// heal ends all trouble.
func (w *world) heal() {
	w.healed = true
	w.tell("no more trouble")
	for _, s := range []*service{&w.redis.service, &w.db.service, &w.broker.service, &w.bank.service} {
		s.down = 0
	}
	w.broker.held, w.broker.missing = 0, 0
	w.redis.careless = 0
	w.db.latest = max(w.db.latest, w.db.time().UnixNano())
	if w.rng.IntN(3) > 0 {
		w.redis.skew, w.db.skew = 0, 0
	}
	for _, p := range w.processes {
		p.stopped = 0
	}
}

// time is the true time.
func (w *world) time() time.Time { return dawn.Add(time.Duration(w.now)) }

// chance is true with that probability while things fail.
func (w *world) chance(p float64) bool { return !w.healed && w.rng.Float64() < p }

// between is a time between two.
func (w *world) between(a, b time.Duration) time.Duration {
	return a + time.Duration(w.rng.Int64N(int64(b-a)+1))
}

// jitter makes d up to a half shorter.
func (w *world) jitter(d time.Duration) time.Duration { return w.between(d/2, d) }

func (w *world) count(fault string) { w.faults[fault]++ }

// tell adds a line to the story.
func (w *world) tell(format string, args ...any) {
	if w.story == nil {
		return
	}
	who := "·"
	if w.cur != nil {
		who = w.cur.name
	}
	w.story.add(fmt.Sprintf("%9.3fs %-14s %s", time.Duration(w.now).Seconds(), who, fmt.Sprintf(format, args...)))
}
