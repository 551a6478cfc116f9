package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/doorbuster/doorbuster/engine"
	"github.com/doorbuster/doorbuster/engine/audit"
	"github.com/doorbuster/doorbuster/engine/control"
	"github.com/doorbuster/doorbuster/engine/failpoint"
	"github.com/doorbuster/doorbuster/engine/queue"
	"github.com/doorbuster/doorbuster/loadtest"
	"github.com/doorbuster/doorbuster/loadtest/history"
	"github.com/doorbuster/doorbuster/payment/provider"
)

const (
	crashStacks   = 4 // points at once: most of a point's time is waiting for a lease to end
	crashUnits    = 400
	crashBuyers   = 900
	crashMark     = 100                     // accepted orders after which Redis loses the sale, units come, a role comes back
	crashPace     = 2500 * time.Microsecond // between two answers
	crashRestock  = 40
	crashHold     = 2 * time.Second // of the checkout sale, whose buyers never pay
	crashLimit    = 2 * time.Minute // of one point
	crashRest     = time.Minute     // for the sale to end by itself
	crashQuiet    = 30 * time.Second
	crashHitLimit = 30 * time.Second // for the last point to be hit, after the crowd
)

// crashPoint is a point of engine/failpoint and the sale in which its process dies.
type crashPoint struct {
	point string
	hit   int // at which

	before   string // a point at which the door dies first
	late     bool   // the role is away until the mark, and then begins with a backlog
	loss     bool   // Redis loses the sale at the mark
	restock  bool   // units come at the mark
	checkout bool   // nobody pays, every order runs out
	short    bool   // part of `make test`
}

// outboxLeft leaves entries in the outbox: some unpublished, some unmarked.
const outboxLeft = "door/after-reserve"

var crashPoints = []crashPoint{
	{point: "door/before-reserve", hit: 40},
	{point: "door/after-reserve", hit: 40, short: true},
	{point: "door/after-publish", hit: 40},
	{point: "door/after-confirm", hit: 40},
	{point: "door/after-lease", hit: 40},
	{point: "door/before-reply", hit: 40},
	{point: "door/before-mark", hit: 4},

	{point: "relay/before-publish", hit: 1, before: outboxLeft},
	{point: "relay/after-confirm", hit: 1, before: outboxLeft, short: true},
	{point: "relay/after-mark", hit: 1, before: outboxLeft},

	{point: "ingest/before-commit", hit: 3},
	{point: "ingest/after-commit", hit: 3, short: true},
	{point: "ingest/after-ack", hit: 3},

	{point: "pay/before-claim", hit: 3, late: true},
	{point: "pay/after-claim", hit: 1},
	{point: "pay/before-authorise", hit: 3},
	{point: "pay/after-authorise", hit: 3, short: true},
	{point: "pay/after-settle", hit: 3},
	{point: "pay/after-capture", hit: 2},
	{point: "pay/after-finish", hit: 2},

	{point: "expiry/after-commit", hit: 1, checkout: true},

	{point: "applier/after-apply", hit: 3, restock: true, short: true},
	{point: "applier/after-mark", hit: 3, restock: true},

	{point: "recovery/after-freeze", hit: 1, loss: true},
	{point: "recovery/after-drain", hit: 1, loss: true},
	{point: "recovery/after-cut", hit: 1, loss: true, short: true},
	{point: "recovery/after-keys", hit: 1, loss: true},
	{point: "recovery/before-unfreeze", hit: 1, loss: true},
	{point: "recovery/after-unfreeze", hit: 1, loss: true},
}

func (c *crashPoint) role() string {
	i := slices.IndexFunc(failpoint.Points, func(p failpoint.Point) bool { return p.Name == c.point })
	return failpoint.Points[i].Role
}

func (c *crashPoint) sale() engine.SaleID {
	return engine.SaleID("crash-" + strings.ReplaceAll(c.point, "/", "-"))
}

// chosen are the points to try: those of the short form, or those that
// DOORBUSTER_CRASH_POINTS names by patterns ("*/*", "ingest/*,pay/after-claim").
func chosen(t *testing.T) []crashPoint {
	t.Helper()
	patterns := os.Getenv("DOORBUSTER_CRASH_POINTS")
	var out []crashPoint
	for _, c := range crashPoints {
		named := patterns == "" && c.short
		for pattern := range strings.SplitSeq(patterns, ",") {
			ok, err := path.Match(pattern, c.point)
			if err != nil {
				t.Fatal(err)
			}
			named = named || ok
		}
		if named {
			out = append(out, c)
		}
	}
	if len(out) == 0 {
		t.Fatalf("DOORBUSTER_CRASH_POINTS=%s names no point", patterns)
	}
	return out
}

// TestEveryCrashPointIsTried holds the table against the list.
func TestEveryCrashPointIsTried(t *testing.T) {
	t.Parallel()
	for _, p := range failpoint.Points {
		if !slices.ContainsFunc(crashPoints, func(c crashPoint) bool { return c.point == p.Name }) {
			t.Errorf("%s is tried by no test", p.Name)
		}
	}
}

// TestFailpointsNeedTheirBuild: a binary that sells cannot be told to fail, and one
// that can says what it does not understand.
func TestFailpointsNeedTheirBuild(t *testing.T) {
	g := onEstate(t)
	t.Setenv("DOORBUSTER_FAILPOINTS", "door/after-reserve=kill")
	refused(t, g, []string{"-tags failpoint"}, "serve", "--listen", "127.0.0.1:0", "--metrics=")
}

// TestCrashPoints kills a process at each of the points, in a small sale of its own,
// and starts it again. The sale ends by itself, the laws hold, and nobody was told
// what could not be. Some points are tried at once, each on its own stack.
func TestCrashPoints(t *testing.T) {
	g := onEstate(t)
	cases, exe := chosen(t), buildFailpoints(t)
	next := make(chan crashPoint, len(cases))
	for _, c := range slices.Backward(cases) { // the slow ones first
		next <- c
	}
	close(next)
	var all sync.WaitGroup
	defer all.Wait()
	for i := range min(crashStacks, len(cases)) {
		s := &crashStack{g: g, name: fmt.Sprintf("crash_%d", i), exe: exe}
		s.open(t)
		all.Go(func() {
			for c := range next {
				t.Run(c.point, func(t *testing.T) { s.try(t, &c) })
			}
		})
	}
}

// try is one point.
func (s *crashStack) try(t *testing.T, c *crashPoint) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), crashLimit)
	defer cancel()
	since := s.started
	defer func() { s.logs(t, since) }()
	s.whole(ctx, t)
	began := time.Now()
	s.create(ctx, t, c)
	x := &crash{s: s, c: c, mark: make(chan struct{})}
	file := x.run(ctx, t)
	r := s.judge(ctx, t, c, file)
	t.Logf("%d accepted, %d cancelled, %.1f s", r.Accepted, r.Cancelled, time.Since(began).Seconds())
}

// create creates the sale and waits until the door shows it.
func (s *crashStack) create(ctx context.Context, t *testing.T, c *crashPoint) {
	t.Helper()
	now := time.Now().UTC().Truncate(time.Millisecond)
	sale := engine.Sale{
		ID: c.sale(), Name: "crash", KeyNumber: 1, Mode: engine.ModeStandard, Payment: engine.PayAtOrder, Provider: sandboxProvider,
		Currency: demoCurrency, Opens: now.Add(time.Second), Closes: now.Add(time.Hour), LimitPerBuyer: 1,
		HoldFor: engine.DefaultHoldFor, ReplayWindow: engine.DefaultReplay,
		Items: []engine.Item{{SKU: demoSKU, Name: "Mug", Price: demoPrice, Units: crashUnits}},
	}
	if c.checkout {
		sale.Payment, sale.HoldFor = engine.PayCheckout, crashHold
	}
	err := s.control(ctx, func(ctl *control.Control) error {
		return ctl.Create(ctx, sale, control.Note{Who: "test", Why: "a crash"})
	})
	if err != nil {
		t.Fatal(err)
	}
	until(ctx, t, "the sale is loaded", func() bool {
		var v control.View
		err := s.control(ctx, func(ctl *control.Control) (err error) { v, err = ctl.Show(ctx, sale.ID); return err })
		return err == nil && v.Redis != nil
	})
}

// crash is a sale in which a process dies.
type crash struct {
	s    *crashStack
	c    *crashPoint
	mark chan struct{} // closed when so many orders are accepted
}

// run arms, lets the crowd in, sees the process die and come back, and returns the
// file of what the crowd heard.
func (x *crash) run(ctx context.Context, t *testing.T) (file string) {
	t.Helper()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var deeds sync.WaitGroup
	errs := make(chan error, 4)
	do := func(deed func(context.Context) error) { deeds.Go(func() { errs <- deed(ctx) }) }
	if x.c.before != "" {
		do(x.kill(ctx, t, roleDoor, x.c.before, 40))
	}
	if x.c.late {
		if err := x.s.procs[indexOfRole(x.c.role())].c.stop(); err != nil {
			t.Fatal(err)
		}
		do(func(ctx context.Context) error { return x.killLate(ctx, t) })
	} else {
		do(x.kill(ctx, t, x.c.role(), x.c.point, x.c.hit))
	}
	if x.c.loss {
		do(x.atMark(func(ctx context.Context) error { return x.s.lose(ctx, x.c.sale()) }))
	}
	if x.c.restock {
		do(x.atMark(x.units))
	}
	file = x.crowd(ctx, t)
	timeout := time.AfterFunc(crashHitLimit, cancel)
	defer timeout.Stop()
	deeds.Wait()
	close(errs)
	for err := range errs {
		if err != nil {
			t.Error(err)
		}
	}
	return file
}

// kill arms a role's process now, and returns the waiting for its death.
func (x *crash) kill(ctx context.Context, t *testing.T, role, point string, hit int) func(context.Context) error {
	t.Helper()
	armed, err := x.s.put(ctx, role, fmt.Sprintf("%s=kill@%d", point, hit))
	if err != nil {
		t.Fatal(err)
	}
	return func(ctx context.Context) error { return x.seen(t, armed, x.s.dies(ctx, armed, role, point)) }
}

// seen tells of a process that was killed, if it was.
func (x *crash) seen(t *testing.T, armed *child, err error) error {
	t.Helper()
	if err == nil {
		t.Logf("%s: process %d killed", armed.name, armed.cmd.Process.Pid)
	}
	return err
}

// killLate starts the role, armed, at the mark.
func (x *crash) killLate(ctx context.Context, t *testing.T) error {
	t.Helper()
	return x.atMark(func(ctx context.Context) error {
		armed, err := x.s.put(ctx, x.c.role(), fmt.Sprintf("%s=kill@%d", x.c.point, x.c.hit))
		if err != nil {
			return err
		}
		return x.seen(t, armed, x.s.dies(ctx, armed, x.c.role(), x.c.point))
	})(ctx)
}

func (x *crash) atMark(deed func(context.Context) error) func(context.Context) error {
	return func(ctx context.Context) error {
		select {
		case <-x.mark:
			return deed(ctx)
		case <-ctx.Done():
			return errors.New("the mark was never reached")
		}
	}
}

// units brings more of them.
func (x *crash) units(ctx context.Context) error {
	return x.s.control(ctx, func(ctl *control.Control) error {
		return ctl.Restock(ctx, x.c.sale(), demoSKU, crashRestock, control.Note{Who: "test", Why: "a crash"})
	})
}

// paced lets so many answers through in a second, over all connections: whoever
// writes one waits.
type paced struct {
	hookLog
	turn <-chan time.Time
}

// Write is loadtest.Log's.
func (p *paced) Write(a *audit.Answer) error {
	<-p.turn
	return p.hookLog.Write(a)
}

// crowd lets the buyers in at a pace that lasts some seconds.
func (x *crash) crowd(ctx context.Context, t *testing.T) (file string) {
	t.Helper()
	file = filepath.Join(t.TempDir(), "answers")
	f, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	pace := time.NewTicker(crashPace)
	defer pace.Stop()
	log := audit.NewLogWriter(f)
	r, err := loadtest.RunCrowd(ctx, loadtest.CrowdConfig{
		URLs: []string{"http://" + x.s.listen}, Sale: x.c.sale(), Basket: loadtest.Single(demoSKU, 1, demoPrice, demoCurrency),
		Tickets:     mint(t, x.s.g, TicketMintCmd{Sale: string(x.c.sale()), Prefix: "crash-", Count: crashBuyers}),
		Connections: 16, RepeatPerMille: 50, ChangePerMille: 20, Quiet: crashQuiet, Longest: crashLimit,
		Log: &paced{hookLog: hookLog{Log: log, at: crashMark, do: func() { close(x.mark) }}, turn: pace.C},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := log.Flush(); err != nil {
		t.Fatal(err)
	}
	t.Logf("crowd: %s after %v, %d accepted, %d unknown", r.End, r.Took.Round(time.Millisecond), r.Accepted, r.Unknown)
	return file
}

// judge waits until the sale has ended, and holds the laws and the histories.
func (s *crashStack) judge(ctx context.Context, t *testing.T, c *crashPoint, file string) *audit.Report {
	t.Helper()
	a, err := audit.Open(audit.Config{
		DatabaseURL: s.b.Postgres, RedisURL: s.b.Redis, Queue: queue.Config{URL: s.b.AMQP, Prefix: s.prefix()},
		Ledgers: map[string]audit.Ledger{sandboxProvider: provider.NewHTTP(s.sandbox)},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	rest, cancel := context.WithTimeout(ctx, crashRest)
	waiting, err := a.WaitForRest(rest, c.sale())
	cancel()
	if err != nil || waiting != "" {
		t.Errorf("not at rest after %s: %s: %v", crashRest, waiting, err)
	}
	answers, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = answers.Close() }()
	r, err := a.AtRest(ctx, c.sale(), answers)
	if err != nil {
		t.Fatal(err)
	}
	if c.checkout {
		mustHold(t, &r)
		if r.UnitsConfirmed != 0 || r.Cancelled == 0 {
			t.Errorf("%d units confirmed, %d orders cancelled; want every order to run out", r.UnitsConfirmed, r.Cancelled)
		}
	} else {
		mustPass(t, &r)
	}
	if _, err := answers.Seek(0, 0); err != nil {
		t.Fatal(err)
	}
	ops, err := history.FromLog(c.sale(), answers)
	if err != nil {
		t.Fatal(err)
	}
	found, err := history.Check(history.Rules{Limit: 1, Ends: true, Lossy: c.loss}, ops)
	if err != nil || found.Orders == 0 {
		t.Errorf("%d orders: %v", found.Orders, err)
	}
	return &r
}
