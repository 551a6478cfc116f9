package ledger

import (
	"cmp"
	"context"
	"embed"
	"fmt"
	"io/fs"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/doorbuster/doorbuster/engine"
	"github.com/doorbuster/doorbuster/engine/postgres"
)

//go:embed migrations/*.sql
var migrations embed.FS

// State is where a charge stands. Numbers are stored; never renumber.
type State int16

// The states of a charge.
const (
	Authorised State = 1
	Captured   State = 2
	Voided     State = 3
	Refunded   State = 4
	Refused    State = 5 // the provider would not capture: an operator looks at it
)

// Kind is what a task asks for. Numbers are stored; never renumber.
type Kind int16

// The kinds of tasks.
const (
	Capture Kind = 1
	Void    Kind = 2 // of an attempt whose order was cancelled: it has no charge here
)

// MaxTask is the most charges of one task.
const MaxTask = 4096

// Book is a sale's money at one provider in one currency.
type Book struct {
	No       int32
	Sale     engine.SaleID
	Provider string
	Currency string
}

// Charge is one authorisation.
type Charge struct {
	Order   engine.OrderID
	Attempt int
	Amount  int64 // minor units of the book's currency
}

// Task is what is to be done at the provider with some charges of one book.
type Task struct {
	ID      int64
	Kind    Kind
	Book    Book
	Tries   int // how often it came due
	Charges []Charge
}

// Store reads and writes the books.
type Store struct {
	pool  *pgxpool.Pool
	books sync.Map // Book without No → int32
}

// New returns a store on the pool, which stays the caller's to close.
func New(pool *pgxpool.Pool) *Store { return &Store{pool: pool} }

// Migrate brings the tables to this version. It is safe to call again, and by
// several processes at once.
func Migrate(ctx context.Context, url string) error {
	files, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return err
	}
	return postgres.Migrate(ctx, url, "ledger", files)
}

// Book returns the book of that sale, provider and currency, and makes it at the
// first call. Its number never changes.
func (s *Store) Book(ctx context.Context, sale engine.SaleID, provider, currency string) (Book, error) {
	b := Book{Sale: sale, Provider: provider, Currency: currency}
	if no, ok := s.books.Load(b); ok {
		b.No = no.(int32)
		return b, nil
	}
	if _, err := s.pool.Exec(ctx, `INSERT INTO books (sale, provider, currency) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING`,
		sale, provider, currency); err != nil {
		return Book{}, fmt.Errorf("book of sale %s: %w", sale, err)
	}
	err := s.pool.QueryRow(ctx, `SELECT no FROM books WHERE sale = $1 AND provider = $2 AND currency = $3`,
		sale, provider, currency).Scan(&b.No)
	if err != nil {
		return Book{}, fmt.Errorf("book of sale %s: %w", sale, err)
	}
	key := b
	key.No = 0
	s.books.Store(key, b.No)
	return b, nil
}

// Authorise writes the charges of orders that the transaction confirms, and the
// task to capture them, which is the caller's for the time of the lease. The
// error of an order that has a charge of that attempt already ends the
// transaction: no order is confirmed twice.
func (s *Store) Authorise(ctx context.Context, tx pgx.Tx, book Book, charges []Charge, lease time.Duration) (Task, error) {
	if len(charges) > MaxTask {
		return Task{}, fmt.Errorf("authorise in sale %s: %d charges, at most %d", book.Sale, len(charges), MaxTask)
	}
	charges = sorted(charges)
	orders, attempts, amounts := columns(charges)
	t := Task{Kind: Capture, Book: book, Charges: charges}
	var b pgx.Batch
	b.Queue(`INSERT INTO charges (book, order_id, attempt, amount)
		SELECT $1, u.* FROM unnest($2::text[], $3::smallint[], $4::bigint[]) AS u`, book.No, orders, attempts, amounts)
	b.Queue(insertTask, Capture, book.No, lease, 0, orders, attempts, amounts).QueryRow(func(row pgx.Row) error { return row.Scan(&t.ID) })
	if err := tx.SendBatch(ctx, &b).Close(); err != nil {
		return Task{}, fmt.Errorf("authorise %d charges in sale %s: %w", len(charges), book.Sale, err)
	}
	return t, nil
}

const insertTask = `INSERT INTO tasks (kind, book, due_at, tries, orders, attempts, amounts)
	VALUES ($1, $2, now() + $3::interval, $4, $5, $6, $7) RETURNING id`

// OweVoid notes that these attempts, whose orders were cancelled, must be voided at
// the provider.
func (s *Store) OweVoid(ctx context.Context, book Book, charges []Charge, due time.Duration) error {
	orders, attempts, amounts := columns(charges)
	if _, err := s.pool.Exec(ctx, insertTask, Void, book.No, due, 0, orders, attempts, amounts); err != nil {
		return fmt.Errorf("owe %d voids in sale %s: %w", len(charges), book.Sale, err)
	}
	return nil
}

// Due takes tasks whose time has come, oldest first, at most limit, and leases
// them: nobody else gets them before the lease ends.
func (s *Store) Due(ctx context.Context, limit int, lease time.Duration) ([]Task, error) {
	rows, err := s.pool.Query(ctx, `UPDATE tasks t SET due_at = now() + $2::interval, tries = t.tries + 1
		FROM (SELECT id FROM tasks WHERE due_at <= now() ORDER BY due_at LIMIT $1 FOR UPDATE SKIP LOCKED) AS d, books b
		WHERE t.id = d.id AND b.no = t.book
		RETURNING t.id, t.kind, t.tries, b.no, b.sale, b.provider, b.currency, t.orders, t.attempts, t.amounts`, limit, lease)
	if err != nil {
		return nil, fmt.Errorf("take due tasks: %w", err)
	}
	tasks, err := pgx.CollectRows(rows, scanTask)
	if err != nil {
		return nil, fmt.Errorf("take due tasks: %w", err)
	}
	return tasks, nil
}

func scanTask(row pgx.CollectableRow) (Task, error) {
	var t Task
	var orders []string
	var attempts []int16
	var amounts []int64
	err := row.Scan(&t.ID, &t.Kind, &t.Tries, &t.Book.No, &t.Book.Sale, &t.Book.Provider, &t.Book.Currency, &orders, &attempts, &amounts)
	if err != nil {
		return Task{}, err
	}
	if len(attempts) != len(orders) || len(amounts) != len(orders) {
		return Task{}, fmt.Errorf("task %d: %d orders, %d attempts, %d amounts", t.ID, len(orders), len(attempts), len(amounts))
	}
	t.Charges = make([]Charge, len(orders))
	for i := range orders {
		t.Charges[i] = Charge{Order: engine.OrderID(orders[i]), Attempt: int(attempts[i]), Amount: amounts[i]}
	}
	return t, nil
}

// Result is what became of the charges of a task.
type Result struct {
	Task    Task
	Done    []Charge      // captured or voided at the provider
	Refused []Charge      // the provider will not
	Later   []Charge      // unknown or not tried: they stay in a task
	Next    time.Duration // when Later is due
}

// Finish writes results in one transaction: charges captured (with their postings) or
// refused, their tasks taken away, a new task for what is left. It returns
// how many charges this call captured. A charge that is taken stays so, whatever
// another call heard, and one that ended otherwise is left alone: calling again
// changes nothing.
func (s *Store) Finish(ctx context.Context, results []Result) (captured int, err error) {
	var ids []int64
	var done, refused []Charge
	for _, r := range results {
		if len(r.Later) == 0 {
			ids = append(ids, r.Task.ID)
		}
		if r.Task.Kind == Capture {
			done, refused = append(done, r.Done...), append(refused, r.Refused...)
		}
	}
	done, refused = sorted(done), sorted(refused)
	slices.Sort(ids)
	err = postgres.InTx(ctx, s.pool, func(tx pgx.Tx) error {
		captured = 0
		var b pgx.Batch
		b.Queue(`DELETE FROM tasks WHERE id = ANY($1)`, ids)
		if len(done) > 0 {
			orders, attempts, amounts := columns(done)
			b.Queue(capture, orders, attempts, amounts, Captured, Authorised, Refused).Exec(func(tag pgconn.CommandTag) error {
				captured = int(tag.RowsAffected()) / postingsPerMovement
				return nil
			})
		}
		if len(refused) > 0 {
			orders, attempts, _ := columns(refused)
			b.Queue(`UPDATE charges c SET state = $3 FROM unnest($1::text[], $2::smallint[]) AS u(id, attempt)
				WHERE c.order_id = u.id AND c.attempt = u.attempt AND c.state = $4`, orders, attempts, Refused, Authorised)
		}
		for _, r := range results {
			if len(r.Later) > 0 {
				orders, attempts, amounts := columns(r.Later)
				b.Queue(leaveTask, r.Task.Kind, r.Task.Book.No, r.Next, r.Task.Tries, orders, attempts, amounts, r.Task.ID)
			}
		}
		return tx.SendBatch(ctx, &b).Close()
	})
	if err != nil {
		return 0, fmt.Errorf("finish %d tasks: %w", len(results), err)
	}
	return captured, nil
}

const postingsPerMovement = 2

// leaveTask replaces a task by one of what is left of it, unless it was finished before:
// then whoever did that has left what there was.
const leaveTask = `WITH gone AS (DELETE FROM tasks WHERE id = $8 RETURNING id)
	INSERT INTO tasks (kind, book, due_at, tries, orders, attempts, amounts)
	SELECT $1::smallint, $2::int, now() + $3::interval, $4::int, $5::text[], $6::smallint[], $7::bigint[] FROM gone`

// capture is one statement, so that a charge changes its state exactly with its
// postings. Account 1 is what the provider owes us, 2 what the sale earned.
const capture = `WITH taken AS (
		UPDATE charges c SET state = $4, captured = u.amount, captured_at = now()
		FROM unnest($1::text[], $2::smallint[], $3::bigint[]) AS u(id, attempt, amount)
		WHERE c.order_id = u.id AND c.attempt = u.attempt AND c.state IN ($5, $6)
		RETURNING c.no, c.book, u.amount)
	INSERT INTO postings (charge, book, kind, account, amount)
	SELECT t.no, t.book, 1, a.account, a.sign * t.amount FROM taken t, (VALUES (1::smallint, 1), (2::smallint, -1)) AS a(account, sign)`

// Owed counts the charges that stand in tasks, by kind.
func (s *Store) Owed(ctx context.Context) (captures, voids int64, err error) {
	err = s.pool.QueryRow(ctx, `SELECT coalesce(sum(cardinality(orders)) FILTER (WHERE kind = 1), 0)::bigint,
		coalesce(sum(cardinality(orders)) FILTER (WHERE kind = 2), 0)::bigint FROM tasks`).Scan(&captures, &voids)
	if err != nil {
		return 0, 0, fmt.Errorf("count what is owed to providers: %w", err)
	}
	return captures, voids, nil
}

// Balance is one line of the trial balance. Amount is in minor units; debits are
// positive.
type Balance struct {
	Account  string // provider:NAME, what it owes us; sale:ID, what it earned
	Currency string
	Amount   int64
}

// TrialBalance sums the postings by account and currency. Per currency the
// amounts add up to 0.
func (s *Store) TrialBalance(ctx context.Context) ([]Balance, error) {
	rows, err := s.pool.Query(ctx, `SELECT CASE p.account WHEN 1 THEN 'provider:' || b.provider ELSE 'sale:' || b.sale END AS account,
			b.currency, sum(p.amount)::bigint
		FROM (SELECT book, account, sum(amount) AS amount FROM postings GROUP BY book, account) AS p JOIN books b ON b.no = p.book
		GROUP BY 1, 2 ORDER BY 2, 1`)
	if err != nil {
		return nil, fmt.Errorf("trial balance: %w", err)
	}
	bs, err := pgx.CollectRows(rows, pgx.RowToStructByPos[Balance])
	if err != nil {
		return nil, fmt.Errorf("trial balance: %w", err)
	}
	return bs, nil
}

// sorted returns the charges in lock order.
func sorted(cs []Charge) []Charge {
	cs = slices.Clone(cs)
	slices.SortFunc(cs, func(a, b Charge) int {
		return cmp.Or(cmp.Compare(a.Order, b.Order), cmp.Compare(a.Attempt, b.Attempt))
	})
	return cs
}

// columns turns charges by 90 degrees, as unnest wants them.
func columns(cs []Charge) (orders []string, attempts []int16, amounts []int64) {
	orders, attempts, amounts = make([]string, len(cs)), make([]int16, len(cs)), make([]int64, len(cs))
	for i, c := range cs {
		orders[i], attempts[i], amounts[i] = string(c.Order), int16(c.Attempt), c.Amount
	}
	return orders, attempts, amounts
}
