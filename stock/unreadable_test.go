package stock_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"github.com/doorbuster/doorbuster/engine"
	"github.com/doorbuster/doorbuster/stock"
)

// One thing in each key of the sale cannot be read: it is left out and told, with its
// id, and all the others come.
func TestUnreadableIsLeftOutAndTold(t *testing.T) {
	t.Parallel()
	w := shared(t)
	b := w.open(t, nil)
	ctx, id := t.Context(), b.def.ID
	key := func(part string) string { return fmt.Sprintf("s:{%s}:1:%s", id, part) }
	b.reserve(with(basket(1, "ann", "MUG"), 1))
	b.reserve(basket(2, "bob", "MUG"))
	for part, field := range map[string]string{"o": "zoe", "b": "zoe", "i": "short"} {
		must(t, w.rdb.HSet(ctx, key(part), field, "?").Err())
	}
	var told []stock.Unreadable
	w.store.OnUnreadable(func(u stock.Unreadable) { told = append(told, u) })
	recs, _, err := w.store.Records(ctx, id, 1, 0)
	if err != nil || len(recs) != 2 {
		t.Errorf("records: %d, %v", len(recs), err)
	}
	held, _, err := w.store.HeldOf(ctx, id, stock.Slice{Epoch: 1}, func(engine.BuyerID) bool { return true })
	if err != nil || len(held) != 2 {
		t.Errorf("held: %d, %v", len(held), err)
	}
	buyers, _, err := w.store.BuyerCounters(ctx, id, 1, 0)
	if err != nil || len(buyers) != 2 {
		t.Errorf("buyers: %d, %v", len(buyers), err)
	}
	identities, _, err := w.store.IdentityCounters(ctx, id, 1, 0)
	if err != nil || len(identities) != 1 {
		t.Errorf("identities: %d, %v", len(identities), err)
	}
	want := []string{"record zoe", "record zoe", "counter zoe", "counter short"}
	for i, u := range told {
		if i >= len(want) || u.What+" "+u.ID != want[i] || u.Sale != id || u.Epoch != 1 || u.Cause == nil || u.Bytes != "?" {
			t.Errorf("told %+v", u)
		}
	}
	if len(told) != len(want) {
		t.Errorf("told %d times, want %d", len(told), len(want))
	}
}

// An envelope that cannot be read is handed over, as old as its neighbour: a worker
// puts it aside. What the script did not write is passed over, and hides nothing that
// lies behind it.
func TestUnreadableEntries(t *testing.T) {
	t.Parallel()
	w := shared(t)
	b := w.open(t, nil)
	ctx, id := t.Context(), b.def.ID
	key := fmt.Sprintf("s:{%s}:1:ob", id)
	add := func(id string, values ...any) {
		must(t, w.rdb.XAdd(ctx, &redis.XAddArgs{Stream: key, ID: id, Values: values}).Err())
	}
	for i := range 5 {
		add(fmt.Sprintf("0-%d", i+1), "x", "y") // as many as are read at once
	}
	var d stock.Decision
	must(t, w.store.Reserve(ctx, id, b.grip, []engine.Basket{basket(1, "ann", "MUG")}, &d)) // entry 1
	add("70-0", "e", "9E|what is this")
	add("71-0", "other", "field")
	told := map[string]int{}
	w.store.OnUnreadable(func(u stock.Unreadable) { told[u.ID]++ })
	got, n, err := w.store.Outbox(ctx, id, 1, 5)
	if err != nil || n != 8 || len(got) != 3 {
		t.Fatalf("%d entries of %d, %v", len(got), n, err)
	}
	if got[0].ID != 1 || got[0].At == 0 || got[1].ID != 70 || got[1].At != got[0].At || string(got[1].Body) != "9E|what is this" || got[2].ID != 71 {
		t.Errorf("%+v", got)
	}
	if len(told) != 7 || told["70-0"] != 1 || told["0-1"] != 1 || told["71-0"] != 1 {
		t.Errorf("told %v", told)
	}
	must(t, w.store.Mark(ctx, id, 1, []int64{70, 71}))
	if got, _, err := w.store.Outbox(ctx, id, 1, 5); err != nil || len(got) != 1 {
		t.Errorf("after the mark: %+v, %v", got, err)
	}
}

func TestReportUnreadableLogsOnceAndCounts(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	reg := prometheus.NewRegistry()
	report, err := stock.ReportUnreadable(slog.New(slog.NewTextHandler(&out, nil)), reg)
	must(t, err)
	for range 3 {
		report(stock.Unreadable{Sale: "drop", Epoch: 2, What: "record", ID: "abc", Bytes: "9X|", Cause: engine.ErrFormat})
	}
	if n := strings.Count(out.String(), "abc"); n != 1 || !strings.Contains(out.String(), "9X|") {
		t.Errorf("logged %d times: %s", n, out.String())
	}
	families, err := reg.Gather()
	must(t, err)
	var n float64
	for _, m := range families[0].GetMetric() {
		n += m.GetCounter().GetValue()
	}
	if n != 3 {
		t.Errorf("counted %v", n)
	}
	if _, err := stock.ReportUnreadable(slog.Default(), reg); err == nil {
		t.Error("registered twice")
	}
}
