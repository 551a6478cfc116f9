package ledger_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"go.uber.org/goleak"

	"github.com/doorbuster/doorbuster/engine"
	"github.com/doorbuster/doorbuster/engine/backing/backingtest"
	"github.com/doorbuster/doorbuster/engine/postgres"
	"github.com/doorbuster/doorbuster/payment/ledger"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type bundle struct {
	*ledger.Store
	pool *pgxpool.Pool
	book ledger.Book
}

func setup(t *testing.T) *bundle {
	t.Helper()
	url := backingtest.Database(t)
	for range 2 { // safe to call again
		must(t, ledger.Migrate(t.Context(), url))
	}
	pool, err := postgres.Open(t.Context(), url, postgres.Options{})
	must(t, err)
	t.Cleanup(pool.Close)
	b := &bundle{Store: ledger.New(pool), pool: pool}
	b.book, err = b.Book(t.Context(), "drop", "p", "KRW")
	must(t, err)
	return b
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func charges(from, n int) (cs []ledger.Charge) {
	for i := range n {
		id := []byte(strings.Repeat("a", engine.OrderIDLen))
		for at, m := len(id)-1, from+i; m > 0; at-- {
			id[at] = "abcdefghijklmnopqrstuvwxyz234567"[m%32]
			m /= 32
		}
		cs = append(cs, ledger.Charge{Order: engine.OrderID(id), Attempt: 1, Amount: 700})
	}
	return cs
}

func (b *bundle) authorise(t *testing.T, cs []ledger.Charge, lease time.Duration) ledger.Task {
	t.Helper()
	var task ledger.Task
	must(t, postgres.InTx(t.Context(), b.pool, func(tx pgx.Tx) (err error) {
		task, err = b.Authorise(t.Context(), tx, b.book, cs, lease)
		return err
	}))
	return task
}

// books reads everything: charges by state, postings, their sum, and what is owed.
func (b *bundle) books(t *testing.T) (states map[ledger.State]int, postings, sum, owed int64) {
	t.Helper()
	states = map[ledger.State]int{}
	rows, err := b.pool.Query(t.Context(), `SELECT state, count(*) FROM charges GROUP BY state`)
	must(t, err)
	var st ledger.State
	var n int
	_, err = pgx.ForEachRow(rows, []any{&st, &n}, func() error { states[st] = n; return nil })
	must(t, err)
	must(t, b.pool.QueryRow(t.Context(), `SELECT count(*), coalesce(sum(amount), 0)::bigint FROM postings`).Scan(&postings, &sum))
	captures, voids, err := b.Owed(t.Context())
	must(t, err)
	return states, postings, sum, captures + voids
}

func TestCaptureOnceHoweverOften(t *testing.T) {
	t.Parallel()
	b := setup(t)
	task := b.authorise(t, charges(1, 300), time.Minute)
	if states, postings, _, owed := b.books(t); states[ledger.Authorised] != 300 || postings != 0 || owed != 300 {
		t.Fatalf("%v, %d postings, %d owed", states, postings, owed)
	}
	total := 0
	var mu sync.Mutex
	var calls sync.WaitGroup
	for range 4 {
		calls.Go(func() {
			n, err := b.Finish(t.Context(), []ledger.Result{{Task: task, Done: task.Charges}})
			if err != nil {
				t.Error(err)
			}
			mu.Lock()
			total += n
			mu.Unlock()
		})
	}
	calls.Wait()
	states, postings, sum, owed := b.books(t)
	if total != 300 || states[ledger.Captured] != 300 || postings != 600 || sum != 0 || owed != 0 {
		t.Errorf("captured %d, %v, %d postings of sum %d, %d owed", total, states, postings, sum, owed)
	}
	bs, err := b.TrialBalance(t.Context())
	must(t, err)
	if len(bs) != 2 || bs[0] != (ledger.Balance{Account: "provider:p", Currency: "KRW", Amount: 210_000}) ||
		bs[1] != (ledger.Balance{Account: "sale:drop", Currency: "KRW", Amount: -210_000}) {
		t.Errorf("trial balance %+v", bs)
	}
}

func TestFinishSplitsATask(t *testing.T) {
	t.Parallel()
	b := setup(t)
	task := b.authorise(t, charges(1, 10), time.Minute)
	cs := task.Charges
	n, err := b.Finish(t.Context(), []ledger.Result{{Task: task, Done: cs[:6], Refused: cs[6:8], Later: cs[8:]}})
	must(t, err)
	states, postings, _, owed := b.books(t)
	if n != 6 || states[ledger.Captured] != 6 || states[ledger.Refused] != 2 || states[ledger.Authorised] != 2 || postings != 12 || owed != 2 {
		t.Fatalf("%d captured, %v, %d postings, %d owed", n, states, postings, owed)
	}
	_, err = b.Finish(t.Context(), []ledger.Result{{Task: task, Done: cs[:6], Refused: cs[6:8], Later: cs[8:]}}) // an answer was lost
	must(t, err)
	if _, _, _, owed = b.books(t); owed != 2 {
		t.Fatalf("%d owed after the same again, want 2", owed)
	}
	// Another call, under way at the same time, hears that one of the refused is taken;
	// and a third, late, that one of the taken is refused.
	n, err = b.Finish(t.Context(), []ledger.Result{{Task: task, Done: cs[6:7], Refused: cs[:1]}})
	must(t, err)
	if states, postings, _, _ = b.books(t); n != 1 || states[ledger.Captured] != 7 || states[ledger.Refused] != 1 || postings != 14 {
		t.Fatalf("%d captured, %v, %d postings", n, states, postings)
	}
	due, err := b.Due(t.Context(), 10, time.Minute)
	must(t, err)
	if len(due) != 1 || len(due[0].Charges) != 2 || due[0].Tries != 1 || due[0].Book != b.book || due[0].Kind != ledger.Capture ||
		due[0].Charges[0] != cs[8] || due[0].Charges[1] != cs[9] {
		t.Fatalf("%+v", due)
	}
	if again, err := b.Due(t.Context(), 10, time.Minute); err != nil || len(again) != 0 {
		t.Errorf("leased twice: %+v, %v", again, err)
	}
}

// An order that has its charge cannot be confirmed a second time: the transaction
// that tries it ends.
func TestOneChargePerAttempt(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.authorise(t, charges(1, 5), time.Minute)
	err := postgres.InTx(t.Context(), b.pool, func(tx pgx.Tx) error {
		_, err := b.Authorise(t.Context(), tx, b.book, charges(5, 3), time.Minute)
		return err
	})
	if !postgres.OfTheData(err) {
		t.Errorf("second charge of an attempt: %v", err)
	}
	if states, _, _, owed := b.books(t); states[ledger.Authorised] != 5 || owed != 5 {
		t.Errorf("%v, %d owed", states, owed)
	}
}

// What is written in a transaction that fails is not there.
func TestAuthoriseGoesWithItsTransaction(t *testing.T) {
	t.Parallel()
	b := setup(t)
	back := errors.New("lost the compare-and-set")
	err := postgres.InTx(t.Context(), b.pool, func(tx pgx.Tx) error {
		if _, err := b.Authorise(t.Context(), tx, b.book, charges(1, 5), 0); err != nil {
			return err
		}
		return back
	})
	if !errors.Is(err, back) {
		t.Fatal(err)
	}
	if states, _, _, owed := b.books(t); len(states) != 0 || owed != 0 {
		t.Errorf("%v, %d owed", states, owed)
	}
}

func TestVoidsAreOwedAndPostNothing(t *testing.T) {
	t.Parallel()
	b := setup(t)
	must(t, b.OweVoid(t.Context(), b.book, charges(1, 3), 0))
	if captures, voids, err := b.Owed(t.Context()); err != nil || captures != 0 || voids != 3 {
		t.Fatalf("%d, %d, %v", captures, voids, err)
	}
	due, err := b.Due(t.Context(), 1, time.Minute)
	must(t, err)
	if len(due) != 1 || due[0].Kind != ledger.Void {
		t.Fatalf("%+v", due)
	}
	_, err = b.Finish(t.Context(), []ledger.Result{{Task: due[0], Done: due[0].Charges}})
	must(t, err)
	if states, postings, _, owed := b.books(t); len(states) != 0 || postings != 0 || owed != 0 {
		t.Errorf("%v, %d postings, %d owed", states, postings, owed)
	}
}

func TestPostingsAreFinal(t *testing.T) {
	t.Parallel()
	b := setup(t)
	task := b.authorise(t, charges(1, 1), time.Minute)
	_, err := b.Finish(t.Context(), []ledger.Result{{Task: task, Done: task.Charges}})
	must(t, err)
	for _, sql := range []string{"UPDATE postings SET amount = 1", "DELETE FROM postings", "TRUNCATE postings"} {
		if _, err := b.pool.Exec(t.Context(), sql); err == nil {
			t.Errorf("%s: no error", sql)
		}
	}
}

func TestBookIsOneForAll(t *testing.T) {
	t.Parallel()
	b := setup(t)
	var calls sync.WaitGroup
	for range 6 {
		calls.Go(func() {
			got, err := ledger.New(b.pool).Book(context.WithoutCancel(t.Context()), "drop", "p", "KRW")
			if err != nil || got != b.book {
				t.Errorf("%+v, %v; want %+v", got, err, b.book)
			}
		})
	}
	calls.Wait()
	other, err := b.Book(t.Context(), "drop", "p", "USD")
	must(t, err)
	if other.No == b.book.No {
		t.Error("two currencies, one book")
	}
	if _, err := b.Book(t.Context(), "drop", "p", "us"); err == nil {
		t.Error("no currency, and no error")
	}
}
