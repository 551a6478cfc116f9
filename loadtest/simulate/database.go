package simulate

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/doorbuster/doorbuster/engine"
	"github.com/doorbuster/doorbuster/engine/orders"
	"github.com/doorbuster/doorbuster/engine/recovery"
	"github.com/doorbuster/doorbuster/payment/ledger"
)

// database is the simulated PostgreSQL: orders.Model, and the tables beside it (leads,
// parked envelopes, the ledger). A transaction is one step.
type database struct {
	service
	m      *orders.Model
	skew   time.Duration        // of its clock
	latest int64                // that its clock ever showed before it jumped
	until  map[string]time.Time // of leaders
	parked []*parked
	serial int64
	books  map[ledger.Charge]ledger.State
	tasks  []*task
}

type parked struct {
	orders.Parked
	due time.Time
}

type task struct {
	ledger.Task
	due time.Time
}

func newDatabase(w *world) *database {
	db := &database{
		service: service{w: w, name: "db", odds: odds{.005, .01, .005, .01}},
		until:   map[string]time.Time{}, books: map[ledger.Charge]ledger.State{},
	}
	db.m = orders.NewModel(db.time)
	return db
}

// time is PostgreSQL's.
func (db *database) time() time.Time { return db.w.time().Add(db.skew) }

func (db *database) knows(id engine.OrderID) bool {
	_, err := db.m.Order(context.Background(), id)
	return err == nil
}

// conn is a client of the database, of everybody or under a lead.
type conn struct {
	*database
	under orders.Lead
}

// Under returns the same under that lead.
func (c conn) Under(lead orders.Lead) recovery.Orders { return conn{c.database, lead} }

// tx is a transaction that changes orders or what a sale has. It is refused to who no
// longer leads.
func (c conn) tx(ctx context.Context, op string, do func() error) error {
	db, under := c.database, c.under // what is not captured need not be allocated
	return db.call(ctx, op, writes, func() error {
		if db.deposed(under) {
			return orders.ErrDeposed
		}
		err := do()
		db.w.laws.books()
		return err
	})
}

// put is a transaction that changes something else.
func (c conn) put(ctx context.Context, op string, do func() error) error {
	if c.under.Number == 0 {
		return c.call(ctx, op, writes, do)
	}
	db, under := c.database, c.under
	return db.call(ctx, op, writes, func() error {
		if db.deposed(under) {
			return orders.ErrDeposed
		}
		return do()
	})
}

// deposed tells whether another leads now.
func (db *database) deposed(l orders.Lead) bool {
	return l.Number != 0 && db.w.shop(l.Sale).lead.Number != l.Number
}

func (c conn) ask(ctx context.Context, op string, do func() error) error {
	return c.call(ctx, op, reads, do)
}

// leader takes and keeps leads for one process.
type leader struct {
	*database
	name string
}

func (l leader) Round(ctx context.Context) (led []orders.Led, err error) {
	var out []orders.Led
	err = l.call(ctx, "round", reads, func() error {
		now := l.time()
		l.until[l.name] = now.Add(orders.LeadFor)
		for _, id := range l.m.Wanted() {
			s := l.w.shop(id)
			if until := l.until[s.leader]; until.Before(now) || until.After(now.Add(2*orders.LeadFor)) {
				s.leader, s.lead = l.name, orders.Lead{Sale: id, Number: s.lead.Number + 1}
				l.w.tell("%s leads %s, number %d", l.name, id, s.lead.Number)
			}
			if s.leader == l.name {
				f, err := l.m.Fence(ctx, id)
				if err != nil {
					return err
				}
				f.AcceptedAt = 0
				out = append(out, orders.Led{Lead: s.lead, Fence: f, Now: now})
			}
		}
		return nil
	})
	return forget(out, err)
}

func (l leader) Resign(ctx context.Context) error {
	return l.call(ctx, "resign", writes, func() error { delete(l.until, l.name); return nil })
}

func (c conn) Ingest(ctx context.Context, sale engine.SaleID, arrivals []orders.Arrival) (orders.IngestReport, error) {
	var rep orders.IngestReport
	arrivals = slices.Clone(arrivals)
	err := c.tx(ctx, "ingest", func() (err error) { rep, err = c.m.Ingest(ctx, sale, arrivals); return err })
	return forget(rep, err)
}

func (c conn) IngestAndClaim(ctx context.Context, sale engine.SaleID, arrivals []orders.Arrival, lease time.Duration) (orders.IngestReport, error) {
	var rep orders.IngestReport
	arrivals = slices.Clone(arrivals)
	err := c.tx(ctx, "ingest", func() (err error) {
		rep, err = c.m.IngestAndClaim(ctx, sale, arrivals, lease)
		return err
	})
	return forget(rep, err)
}

// forget is what a caller has who heard an error.
func forget[T any](v T, err error) (T, error) {
	if err != nil {
		var none T
		return none, err
	}
	return v, nil
}

func (c conn) Reject(ctx context.Context, sale engine.SaleID, r orders.Rejected) error {
	c.w.laws.breaks("law 9: order %s rejected: %s", r.Order, r.Cause)
	return c.tx(ctx, "reject", func() error { return c.m.Reject(ctx, sale, r) })
}

func (c conn) Claim(ctx context.Context, opt orders.ClaimOptions) ([]orders.Payable, error) {
	var out []orders.Payable
	first := c.w.rng.IntN(len(c.w.shops))
	err := c.put(ctx, "claim", func() (err error) { // a batch is of one sale
		for i := range c.w.shops {
			opt.Sale = c.w.shops[(first+i)%len(c.w.shops)].id
			if out, err = c.m.Claim(ctx, opt); err != nil || len(out) > 0 {
				break
			}
		}
		return err
	})
	return forget(out, err)
}

func (c conn) Settle(ctx context.Context, sale engine.SaleID, payments []orders.Payment,
	also func(ctx context.Context, tx pgx.Tx, confirmed []orders.Payable) error,
) ([]orders.Settled, error) {
	var out []orders.Settled
	err := c.tx(ctx, "settle", func() (err error) { out, err = c.m.Settle(ctx, sale, payments, also); return err })
	return forget(out, err)
}

func (c conn) Defer(ctx context.Context, sale engine.SaleID, ids []engine.OrderID, next time.Duration) error {
	return c.put(ctx, "defer", func() error { return c.m.Defer(ctx, sale, ids, next) })
}

func (c conn) Expire(ctx context.Context, most int) (n int, err error) {
	err = c.tx(ctx, "expire", func() (err error) { n, err = c.m.Expire(ctx, most); return err })
	return n, err
}

func (c conn) MarkMarker(ctx context.Context, nonce string) error {
	return c.put(ctx, "marker", func() error { return c.m.MarkMarker(ctx, nonce) })
}

func (c conn) SeenMarker(ctx context.Context, nonce string) (seen bool, err error) {
	err = c.ask(ctx, "seen marker", func() (err error) { seen, err = c.m.SeenMarker(ctx, nonce); return err })
	return seen, err
}

// Park is orders.Store.Park.
func (c conn) Park(ctx context.Context, sale engine.SaleID, stale []engine.Order) error {
	body := engine.AppendEnvelope(nil, &engine.Envelope{Sale: sale, Orders: stale})
	return c.put(ctx, "park", func() error {
		c.serial++
		p := &parked{Parked: orders.Parked{ID: c.serial, Sale: sale, Body: body}, due: c.time()}
		c.database.parked = append(c.database.parked, p)
		return nil
	})
}

// Parked is orders.Store.Parked.
func (c conn) Parked(ctx context.Context, lease time.Duration, except []engine.SaleID) (orders.Parked, bool, error) {
	var got orders.Parked
	found := false
	err := c.put(ctx, "parked", func() error {
		for _, p := range c.database.parked {
			f, err := c.m.Fence(ctx, p.Sale)
			if err != nil {
				return err
			}
			if !f.Frozen && !found && !p.due.After(c.time()) && !slices.Contains(except, p.Sale) {
				got, found, p.due = p.Parked, true, c.time().Add(lease)
				c.m.Wake(p.Sale)
			}
		}
		return nil
	})
	return got, found && err == nil, err
}

// Unpark is orders.Store.Unpark.
func (c conn) Unpark(ctx context.Context, id int64) error {
	return c.put(ctx, "unpark", func() error {
		c.database.parked = slices.DeleteFunc(c.database.parked, func(p *parked) bool { return p.ID == id })
		return nil
	})
}

func (c conn) ParkedOrders(context.Context) (int64, error) { return int64(len(c.database.parked)), nil }

func (c conn) Fence(ctx context.Context, sale engine.SaleID) (f orders.Fence, err error) {
	err = c.ask(ctx, "fence", func() (err error) { f, err = c.m.Fence(ctx, sale); return err })
	return f, err
}

func (c conn) Sale(ctx context.Context, id engine.SaleID) (s engine.Sale, st orders.Status, err error) {
	err = c.ask(ctx, "sale", func() (err error) { s, st, err = c.m.Sale(ctx, id); return err })
	return s, st, err
}

func (c conn) SetSaleState(ctx context.Context, sale engine.SaleID, to engine.SaleState, note orders.Note) error {
	return c.tx(ctx, "set state", func() error { return c.m.SetSaleState(ctx, sale, to, note) })
}

func (c conn) ResumeSale(ctx context.Context, sale engine.SaleID, since time.Time, note orders.Note) error {
	return c.tx(ctx, "resume", func() error { return c.m.ResumeSale(ctx, sale, since, note) })
}

func (c conn) AdvanceSale(ctx context.Context, seen engine.Sale, to engine.SaleState, note orders.Note) error {
	return c.tx(ctx, "advance", func() error {
		err := c.m.AdvanceSale(ctx, seen, to, note)
		if err == nil {
			c.w.laws.advanced(&seen, to)
		}
		return err
	})
}

// SettleSale is orders.Store.SettleSale. There a lock keeps everybody away while also
// runs; here it may become untrue meanwhile, and then it fails, as a commit may.
func (c conn) SettleSale(ctx context.Context, sale engine.SaleID, epoch int64, note orders.Note, also func(context.Context) error) (bool, error) {
	settles := func(also func(context.Context) error) (ok bool, err error) {
		if slices.ContainsFunc(c.database.parked, func(p *parked) bool { return p.Sale == sale }) {
			return false, nil
		}
		return c.m.SettleSale(ctx, sale, epoch, note, also)
	}
	ok := false
	err := c.ask(ctx, "may settle", func() error {
		_, err := settles(func(context.Context) error { ok = true; return errAsked })
		if err == errAsked { //nolint:errorlint // it is returned bare
			return nil
		}
		return err
	})
	if err != nil || !ok {
		return false, err
	}
	c.w.shop(sale).life = c.w.redis.life // for who does not tell the slot
	if err := also(ctx); err != nil {
		return false, err
	}
	err = c.tx(ctx, "settle sale", func() (err error) {
		if ok, err = settles(nil); ok {
			c.w.count("sale settled")
			s := c.w.shop(sale)
			s.lead, s.leader = orders.Lead{}, "" // its row goes
		}
		return err
	})
	return ok && err == nil, err
}

var errAsked = errors.New("only asked")

// PruneSettled finds nothing.
func (c conn) PruneSettled(context.Context, time.Duration, int) (int, error) { return 0, nil }

// SalesWithMoves is never asked for: the jobs of a story poll.
func (c conn) SalesWithMoves(ctx context.Context) ([]engine.SaleID, error) {
	return c.m.SalesWithMoves(ctx)
}

func (c conn) PendingMoves(ctx context.Context, sale engine.SaleID, most int) (out []engine.Move, err error) {
	err = c.ask(ctx, "pending moves", func() (err error) { out, err = c.m.PendingMoves(ctx, sale, most); return err })
	return forget(out, err)
}

func (c conn) MarkMoved(ctx context.Context, sale engine.SaleID, epoch int64, rows []orders.Moved) (n int, moved bool, err error) {
	err = c.tx(ctx, "mark rows", func() (err error) { n, moved, err = c.m.MarkMoved(ctx, sale, epoch, rows); return err })
	return n, moved, err
}

func (c conn) Unknown(ctx context.Context, sale engine.SaleID, holds []orders.HoldOf) (out []orders.HoldOf, err error) {
	err = c.ask(ctx, "unknown", func() (err error) { out, err = c.m.Unknown(ctx, sale, holds); return err })
	return forget(out, err)
}

func (c conn) Freeze(ctx context.Context, sale engine.SaleID, epoch int64) (ok bool, err error) {
	err = c.put(ctx, "freeze", func() (err error) { ok, err = c.m.Freeze(ctx, sale, epoch); return err })
	return ok && err == nil, err
}

// Survey is never asked for: the sales of a story are small.
func (c conn) Survey(context.Context, engine.SaleID) (*orders.Survey, error) { return nil, nil } //nolint:nilnil // none is one that says nothing

func (c conn) CutAfter(ctx context.Context, sale engine.SaleID, epoch int64, _ *orders.Survey) (img orders.Image, err error) {
	err = c.tx(ctx, "cut", func() (err error) { img, err = c.m.Cut(ctx, sale, epoch); return err })
	return forget(img, err)
}

func (c conn) Unfreeze(ctx context.Context, sale engine.SaleID, epoch int64) (ok bool, err error) {
	err = c.put(ctx, "unfreeze", func() (err error) { ok, err = c.m.Unfreeze(ctx, sale, epoch); return err })
	return ok && err == nil, err
}

func (c conn) Incarnation(ctx context.Context, server string) (n int64, err error) {
	err = c.put(ctx, "incarnation", func() (err error) { n, err = c.m.Incarnation(ctx, server); return err })
	return n, err
}

func (c conn) HadIncarnation(ctx context.Context, server string, n int64) (had bool, err error) {
	err = c.ask(ctx, "had incarnation", func() (err error) { had, err = c.m.HadIncarnation(ctx, server, n); return err })
	return had && err == nil, err
}

func (c conn) RaiseIncarnation(ctx context.Context, server string, from int64) (n int64, err error) {
	err = c.put(ctx, "raise incarnation", func() (err error) { n, err = c.m.RaiseIncarnation(ctx, server, from); return err })
	return n, err
}

func (c conn) Cancel(ctx context.Context, buyer engine.BuyerID, id engine.OrderID) (out orders.CancelOutcome, err error) {
	err = c.tx(ctx, "cancel", func() (err error) { out, err = c.m.Cancel(ctx, buyer, id); return err })
	return out, err
}

// What an operator and a buyer ask for besides.

func (c conn) CreateSale(context.Context, engine.Sale, orders.Note) error {
	return orders.ErrSaleExists
}

func (c conn) Redefine(ctx context.Context, def engine.Sale, note orders.Note) (version int64, err error) {
	err = c.tx(ctx, "redefine", func() (err error) {
		if version, err = c.m.Redefine(ctx, def, note); err == nil {
			c.w.shop(def.ID).defined(&def)
		}
		return err
	})
	return version, err
}

func (c conn) Restock(ctx context.Context, sale engine.SaleID, sku engine.SKU, n int64, note orders.Note) (row int64, err error) {
	err = c.tx(ctx, "restock", func() (err error) { row, err = c.m.Restock(ctx, sale, sku, n, note); return err })
	return row, err
}

func (c conn) RequestWithdraw(ctx context.Context, sale engine.SaleID, sku engine.SKU, n int64, note orders.Note) (row int64, err error) {
	err = c.tx(ctx, "withdraw", func() (err error) { row, err = c.m.RequestWithdraw(ctx, sale, sku, n, note); return err })
	return row, err
}

func (c conn) Backlog(ctx context.Context, sale engine.SaleID) (n int64, err error) {
	err = c.ask(ctx, "backlog", func() (err error) { n, err = c.m.Backlog(ctx, sale); return err })
	return n, err
}

// Trail is for people.
func (c conn) Trail(context.Context, engine.SaleID, int) ([]orders.TrailEntry, error) {
	return nil, nil
}

func (c conn) giveBack(ctx context.Context, id engine.OrderID) (done bool, err error) {
	err = c.tx(ctx, "return", func() (err error) { done, err = c.m.Return(ctx, id, orders.Note{}); return err })
	return done, err
}

// checkout begins to pay an order: it is due at once.
func (c conn) checkout(ctx context.Context, sale engine.SaleID, id engine.OrderID) (begun bool, err error) {
	err = c.tx(ctx, "begin checkout", func() (err error) { _, begun, err = c.m.BeginCheckout(ctx, sale, id, 0); return err })
	return begun, err
}
