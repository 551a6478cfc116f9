package orders

import (
	"context"
	"errors"
	"sync"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/doorbuster/doorbuster/engine"
)

// Refusals of this package. They come wrapped with the ids they are about.
var (
	ErrNoSale      = errors.New("no such sale")
	ErrNoSKU       = errors.New("no such item in the sale")
	ErrNoOrder     = errors.New("no such order")
	ErrSaleExists  = errors.New("sale exists already")
	ErrState       = errors.New("not possible in the present state")
	ErrEpochMoved  = errors.New("the sale's epoch has moved")
	ErrNotWritable = errors.New("cannot be written to PostgreSQL")
	ErrDeposed     = errors.New("another process leads the sale now")
)

// Where a statement finds orders by id it tests their sale as `sale_no + 0`: no
// index knows that expression. Written plainly, and with a plan made while the
// table was empty, PostgreSQL looked a batch of 256 up by walking the whole
// sale's part of an index once per order (measured: 42 ms a batch, now 4).

// MaxBatch is the most orders of one transaction.
const MaxBatch = 16 * engine.MaxGroup

// Store runs the transactions. It is safe for use by many goroutines.
type Store struct {
	pool *pgxpool.Pool
	lead Lead // of whom every transaction is: zero is anybody
	*memory
}

// memory is what stores on one pool remember together.
type memory struct {
	infos sync.Map // engine.SaleID → saleInfo
	// knownUntil says until when the orders of a sale are better not taken for
	// new: engine.SaleID → time.Time.
	knownUntil sync.Map
}

// New returns a store on the pool, which stays the caller's to close. The pool
// must be one for the sale path (postgres.Options without Analytical).
func New(pool *pgxpool.Pool) *Store { return &Store{pool: pool, memory: &memory{}} }

// Note says on whose word something was done by hand, for the trail.
type Note struct {
	Who string // account, or the name of the part of the engine
	Why string
}

// Ping tells whether PostgreSQL answers.
func (s *Store) Ping(ctx context.Context) error { return s.pool.Ping(ctx) }
