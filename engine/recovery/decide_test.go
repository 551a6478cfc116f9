package recovery_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/doorbuster/doorbuster/engine"
	"github.com/doorbuster/doorbuster/engine/orders"
	"github.com/doorbuster/doorbuster/engine/recovery"
	"github.com/doorbuster/doorbuster/stock"
)

func TestDiagnose(t *testing.T) {
	t.Parallel()
	sound := recovery.Notes{
		Fence: orders.Fence{Epoch: 3, Seq: 10}, Loaded: true,
		Watch:  stock.Watch{Grip: stock.Grip{Epoch: 3}, Seq: 10},
		Server: stock.Server{RunID: "r", ReplID: "p"}, Formerly: stock.Server{RunID: "r", ReplID: "p"},
	}
	for name, c := range map[string]struct {
		change func(*recovery.Notes)
		want   recovery.Trigger
	}{
		"sound":                     {func(*recovery.Notes) {}, recovery.Sound},
		"ingest behind":             {func(n *recovery.Notes) { n.Fence.Seq = 4 }, recovery.Sound},
		"a leader that just began":  {func(n *recovery.Notes) { n.Formerly = stock.Server{} }, recovery.Sound},
		"not loaded yet":            {func(n *recovery.Notes) { n.Fence.Epoch = 0 }, recovery.TriggerNew},
		"frozen in PostgreSQL":      {func(n *recovery.Notes) { n.Fence.Frozen = true }, recovery.TriggerFrozen},
		"frozen in Redis":           {func(n *recovery.Notes) { n.Watch.Frozen = true }, recovery.TriggerFrozen},
		"no state":                  {func(n *recovery.Notes) { n.Missing = true }, recovery.TriggerMissing},
		"older epoch":               {func(n *recovery.Notes) { n.Watch.Epoch = 2 }, recovery.TriggerMissing},
		"newer epoch":               {func(n *recovery.Notes) { n.Watch.Epoch = 4 }, recovery.TriggerMissing},
		"no scripts":                {func(n *recovery.Notes) { n.Loaded = false }, recovery.TriggerNoScript},
		"restarted":                 {func(n *recovery.Notes) { n.Server.RunID = "s" }, recovery.TriggerRunID},
		"failed over":               {func(n *recovery.Notes) { n.Server.ReplID = "q" }, recovery.TriggerReplID},
		"built for another server":  {func(n *recovery.Notes) { n.Formerly, n.Stranger = stock.Server{}, true }, recovery.TriggerReplID},
		"a hold that Redis forgot":  {func(n *recovery.Notes) { n.Fence.Seq = 11 }, recovery.TriggerBehind},
		"scripts of another sort":   {func(n *recovery.Notes) { n.Refused = true }, recovery.TriggerOther},
		"new before everything":     {func(n *recovery.Notes) { n.Fence.Epoch, n.Missing = 0, true }, recovery.TriggerNew},
		"no scripts after restart":  {func(n *recovery.Notes) { n.Loaded, n.Server.RunID = false, "s" }, recovery.TriggerNoScript},
		"frozen before other signs": {func(n *recovery.Notes) { n.Fence.Frozen, n.Loaded = true, false }, recovery.TriggerFrozen},
	} {
		n := sound
		c.change(&n)
		if got := recovery.Diagnose(n); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

func TestLag(t *testing.T) {
	t.Parallel()
	depth, depthErr := 0, error(nil)
	l := recovery.NewLagger(func(context.Context, int) (int, error) { return depth, depthErr })
	sec := func(n int64) int64 { return 1_000_000 + n*1000 }
	step := func(at, given, known int64, want time.Duration) {
		t.Helper()
		if got := l.Measure(1, given, known, sec(at)); got != want {
			t.Errorf("at %d s, %d given and %d known: lag %v, want %v", at, given, known, got, want)
		}
	}
	step(0, 0, 0, 0)
	step(1, 100, 0, 0) // given out since the last look
	step(2, 200, 0, time.Second)
	step(3, 300, 99, 2*time.Second)
	step(4, 300, 100, 2*time.Second) // the first it lacks was given out at 2
	step(5, 300, 250, 2*time.Second)
	step(6, 300, 300, 0)
	step(60, 300, 300, 0)
	// One that never arrives counts until the ingest stood still for long enough
	// and its queue is empty.
	step(61, 301, 300, 0)
	depth = 1
	step(111, 301, 300, 50*time.Second)
	step(112, 301, 300, 51*time.Second)
	depth, depthErr = 0, errors.New("no broker")
	step(113, 301, 300, 52*time.Second)
	depthErr = nil
	step(114, 301, 300, 0)
	step(115, 302, 300, 0)
	step(116, 302, 300, time.Second)
	step(117, 302, 302, 0)
	if got := l.Measure(2, 5, 0, sec(118)); got != 0 { // another epoch begins anew
		t.Errorf("new epoch: %v", got)
	}
}

// A write that was given up may come after a later one: what the slot says is what is
// judged, not what was written last.
func TestLagThatComesLateIsWrittenOver(t *testing.T) {
	t.Parallel()
	p := &pauses{}
	c := recovery.NewErrands(pausedStock{pauses: p}, pausedOrders{pauses: p})
	seen := recovery.Seen{Redis: engine.SaleOpen, Postgres: engine.SaleOpen}
	for _, s := range []struct{ is, slot time.Duration }{
		{3 * time.Second, 0},
		{0, 3 * time.Second},
		{0, 0},
		{0, 3 * time.Second}, // the first write came once more
		{0, 0},
	} {
		seen.Lag, seen.RedisLag = s.is, s.slot
		c.Run(t.Context(), seen)
	}
	if want := []string{"lag 3000", "lag 0", "lag 0"}; !slices.Equal(p.got, want) {
		t.Errorf("%q, want %q", p.got, want)
	}
}

func TestLagIsBounded(t *testing.T) {
	t.Parallel()
	l := recovery.NewLagger(func(context.Context, int) (int, error) { return 1, nil })
	var got time.Duration
	for i := range int64(2000) {
		got = l.Measure(1, i, 0, i*1000)
	}
	if got < 598*time.Second || got > 601*time.Second {
		t.Errorf("after 2,000 s: %v, want the ten minutes it remembers", got)
	}
}

func TestSkew(t *testing.T) {
	t.Parallel()
	t0 := time.Unix(1_700_000_000, 0)
	at := func(ms int) time.Time { return t0.Add(time.Duration(ms) * time.Millisecond) }
	// Asked at 0, answered at 10, Redis' answer at 30: middles 5 and 20.
	by, least := recovery.Skew(recovery.Readings{at(0), at(10), at(30), at(5), at(20)})
	if by != 0 || least != 0 {
		t.Errorf("clocks alike: %v, at least %v", by, least)
	}
	by, least = recovery.Skew(recovery.Readings{at(0), at(10), at(30), at(5), at(1020)})
	if by != time.Second || least != time.Second-16*time.Millisecond {
		t.Errorf("a second ahead: %v, at least %v", by, least)
	}
	by, _ = recovery.Skew(recovery.Readings{at(0), at(10), at(30), at(5005), at(20)})
	if by != -5*time.Second {
		t.Errorf("five seconds behind: %v", by)
	}
	if _, least = recovery.Skew(recovery.Readings{at(0), at(4000), at(4010), at(3000), at(4005)}); least != 0 {
		t.Errorf("an answer that took 4 s proves at least %v", least)
	}
}

// pauses notes who was paused, in which order.
type pauses struct{ got []string }

type pausedStock struct {
	recovery.Stock
	*pauses
}

func (p pausedStock) SetState(_ context.Context, _ engine.SaleID, _ stock.Grip, s engine.SaleState) error {
	p.got = append(p.got, "redis "+string(s))
	return nil
}

func (p pausedStock) SetLag(_ context.Context, _ engine.SaleID, _ stock.Grip, ms int64) error {
	p.got = append(p.got, fmt.Sprint("lag ", ms))
	return nil
}

type pausedOrders struct {
	recovery.Orders
	*pauses
}

func (p pausedOrders) SetSaleState(_ context.Context, _ engine.SaleID, s engine.SaleState, _ orders.Note) error {
	p.got = append(p.got, "postgres "+string(s))
	return nil
}

func (p pausedOrders) AdvanceSale(_ context.Context, _ engine.Sale, s engine.SaleState, _ orders.Note) error {
	p.got = append(p.got, "postgres "+string(s))
	return nil
}

func TestClockPausesTheSale(t *testing.T) {
	t.Parallel()
	p := &pauses{}
	c := recovery.NewClock(pausedStock{pauses: p}, pausedOrders{pauses: p})
	for i, s := range []struct {
		by, unsure time.Duration
		want       bool
	}{
		{2 * time.Second, 0, false},
		{-2 * time.Second, 0, false},
		{1200 * time.Millisecond, 300 * time.Millisecond, false}, // may be less: begins anew
		{2 * time.Second, 0, false},
		{2 * time.Second, 0, false},
		{2 * time.Second, 0, true}, // the third in a row
	} {
		if got, err := c.Judge(t.Context(), s.by, s.unsure); err != nil || got != s.want {
			t.Errorf("measurement %d: paused %v, %v; want %v", i, got, err, s.want)
		}
	}
	if len(p.got) != 2 || p.got[0] != "redis paused" || p.got[1] != "postgres paused" {
		t.Errorf("%q: tightening goes to Redis first", p.got)
	}
}

func TestPruneBefore(t *testing.T) {
	t.Parallel()
	closes := time.Unix(1_700_000_000, 0)
	def := engine.Sale{Closes: closes, ReplayWindow: time.Hour}
	if _, some := recovery.PruneBefore(&def, closes.Add(time.Hour).UnixMilli()); some {
		t.Error("pruned within the replay window")
	}
	late := closes.Add(time.Hour + time.Second)
	if before, some := recovery.PruneBefore(&def, late.UnixMilli()); !some || before <= late.Unix() {
		t.Errorf("after the window: %v, %d", some, before)
	}
	def.ReplayWindow = 0
	if _, some := recovery.PruneBefore(&def, late.UnixMilli()); some {
		t.Error("no window given: pruned before a day had passed")
	}
	def.Closes = time.Time{}
	if before, some := recovery.PruneBefore(&def, late.UnixMilli()); !some || before != late.Unix()-7*24*3600 {
		t.Errorf("a standing sale: %v, %d", some, before)
	}
}

func TestBitset(t *testing.T) {
	t.Parallel()
	var b recovery.Bitset
	for _, n := range []int64{0, 1, 63, 64, 1000, 65_537} {
		if b.Has(n) {
			t.Errorf("%d before it was added", n)
		}
		b.Add(n)
		if !b.Has(n) || b.Has(n+2) || b.Has(-1) {
			t.Errorf("after adding %d: %v %v %v", n, b.Has(n), b.Has(n+2), b.Has(-1))
		}
	}
}
