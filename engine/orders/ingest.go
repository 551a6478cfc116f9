package orders

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/doorbuster/doorbuster/engine"
	"github.com/doorbuster/doorbuster/engine/postgres"
)

// Arrival is an order on its way in.
type Arrival struct {
	engine.Order
	// Retaken: the order came back as stale and was reserved again; Hold is the
	// new hold, taken in Epoch.
	Retaken bool
	// Refused: as Retaken, but the stock refused. The order is written as
	// cancelled (epoch) under the Hold of its message. Epoch is the epoch that
	// refused.
	Refused bool
	Epoch   int64
}

func (a *Arrival) again() bool { return a.Retaken || a.Refused }

// IngestReport says what became of the arrivals.
type IngestReport struct {
	Reserved  []engine.OrderID // new, to be paid
	Claimed   []Payable        // new, and leased to the caller: IngestAndClaim only
	Cancelled int              // new, but refused by a guard, or Refused
	Repeated  int              // known before under the same hold
	Foreign   int              // known before under another hold, which was dropped
	Forks     int              // their sequence number names another order: stale, or retaken and let in beside it
	Stale     []engine.Order   // unknown and not of the present epoch: not ingested
	// Moved: the epoch is no longer the one a retake was made in. Nothing was
	// done; take again.
	Moved bool
}

// Ingest writes orders of one sale, at most MaxBatch, in one transaction under
// the sale's shared lock. ErrNoSale; ErrNotWritable means one order's fault,
// and nothing was written: call again order by order, and Reject the one that
// still fails. Calling again with the same orders changes nothing.
func (s *Store) Ingest(ctx context.Context, sale engine.SaleID, arrivals []Arrival) (IngestReport, error) {
	return s.ingest(ctx, sale, arrivals, 0)
}

// IngestAndClaim is Ingest, but new orders of a sale that is paid at-order are
// written as paying, attempt 1, leased to the caller, who holds them in
// report.Claimed and pays them at once. It saves the transaction of Claim.
func (s *Store) IngestAndClaim(ctx context.Context, sale engine.SaleID, arrivals []Arrival, lease time.Duration) (IngestReport, error) {
	return s.ingest(ctx, sale, arrivals, max(lease, time.Microsecond))
}

// mode is how an ingest goes about it. Nearly all orders are new, and so are
// their buyers, so it is first tried with plain inserts, which fail as a whole if
// any row is there: ON CONFLICT looks every key up twice and writes a token
// first (measured: it took a quarter of the time of an order's whole life).
type mode int

const (
	hopeful mode = iota // everything is new, and there is enough for all
	usual               // some of it is known; there is enough for all
	careful             // each order is judged by itself
)

// maxCareful bounds how often a batch is judged order by order: more than once
// only if another transaction wrote one of its orders between two statements.
const maxCareful = 3

// sober is how long, after a sale's rows were found to be there already, its
// batches are not hopeful.
const sober = 2 * time.Second

// errGuard makes the transaction start again with more care.
var errGuard = errors.New("a guard refused the batch")

func (s *Store) ingest(ctx context.Context, sale engine.SaleID, arrivals []Arrival, lease time.Duration) (IngestReport, error) {
	if len(arrivals) > MaxBatch {
		return IngestReport{}, fmt.Errorf("ingest sale %s: %d orders, at most %d", sale, len(arrivals), MaxBatch)
	}
	for i := range arrivals {
		if o := &arrivals[i].Order; !sound(o) {
			return IngestReport{}, fmt.Errorf("ingest sale %s: order %s: %w: quantities", sale, o.Order, ErrNotWritable)
		}
	}
	var in ingestion
	run := func(m mode) error {
		return s.inSale(ctx, "ingest", sale, func(tx pgx.Tx, info saleInfo) error {
			in = ingestion{tx: tx, sale: info, lease: lease, mode: m}
			return in.all(ctx, arrivals)
		})
	}
	var err error
	m := s.firstMode(sale, arrivals)
	if m == hopeful {
		if err = run(hopeful); isTaken(err) {
			s.knownUntil.Store(sale, time.Now().Add(sober))
			m = usual
		}
	}
	if m == usual {
		err = run(usual)
	}
	for try := 0; errors.Is(err, errGuard) && try < maxCareful; try++ {
		err = run(careful)
	}
	if postgres.OfTheData(err) {
		err = fmt.Errorf("%w: %w", ErrNotWritable, err)
	}
	if err != nil {
		return IngestReport{}, err
	}
	return in.rep, nil
}

func (s *Store) firstMode(sale engine.SaleID, arrivals []Arrival) mode {
	if until, ok := s.knownUntil.Load(sale); ok && time.Now().Before(until.(time.Time)) {
		return usual
	}
	for i := range arrivals {
		if arrivals[i].again() || arrivals[i].Hold.Epoch != arrivals[0].Hold.Epoch {
			return usual
		}
	}
	return hopeful
}

// isTaken tells whether a row that was to be new is there.
func isTaken(err error) bool {
	var pg *pgconn.PgError
	return errors.As(err, &pg) && pg.Code == uniqueViolation
}

// byID is the lock order of orders.
func byID(a, b *Arrival) int { return strings.Compare(string(a.Order.Order), string(b.Order.Order)) }

// triage picks for each order the arrival that can be written, if one can: one
// of the present epoch, or retaken, before one that was refused. The others are
// looked up afterwards: mostly none, or messages that came again. It is pure;
// picked is sorted by id.
func triage(arrivals []Arrival, epoch int64) (picked, others []*Arrival) {
	sorted := make([]*Arrival, len(arrivals))
	for i := range arrivals {
		sorted[i] = &arrivals[i]
	}
	slices.SortStableFunc(sorted, byID)
	picked = make([]*Arrival, 0, len(sorted))
	for len(sorted) > 0 {
		n := 1
		for n < len(sorted) && sorted[n].Order.Order == sorted[0].Order.Order {
			n++
		}
		group := sorted[:n]
		sorted = sorted[n:]
		best := slices.IndexFunc(group, func(a *Arrival) bool { return !a.Refused && (a.Retaken || a.Hold.Epoch == epoch) })
		if best < 0 {
			best = slices.IndexFunc(group, func(a *Arrival) bool { return a.Refused })
		}
		for i, a := range group {
			if i == best {
				picked = append(picked, a)
			} else {
				others = append(others, a)
			}
		}
	}
	return picked, others
}

// ingestion is one ingest transaction.
type ingestion struct {
	tx    pgx.Tx
	sale  saleInfo
	lease time.Duration // above 0: claim what is paid at-order
	mode  mode
	epoch int64
	hold  time.Duration
	rep   IngestReport
	ended []engine.OrderID // cancelled now: their outcome is to be told
	due   []engine.OrderID // new and open
}

func (in *ingestion) all(ctx context.Context, arrivals []Arrival) error {
	var holdMS int64
	var settled bool
	err := in.tx.QueryRow(ctx, `SELECT epoch, hold_ms, state = 'settled' FROM sales WHERE no = $1`, in.sale.no).Scan(&in.epoch, &holdMS, &settled)
	if err != nil {
		return err
	}
	in.hold = time.Duration(holdMS) * time.Millisecond
	for i := range arrivals {
		if arrivals[i].again() && arrivals[i].Epoch != in.epoch {
			in.rep = IngestReport{Moved: true}
			return nil
		}
	}
	picked, unsure := triage(arrivals, in.epoch)
	fresh, left, err := in.write(ctx, picked)
	if err != nil {
		return err
	}
	strays, err := in.known(ctx, append(unsure, left...))
	if err != nil {
		return err
	}
	if err := in.guard(ctx, append(fresh, strays...)); err != nil {
		return err
	}
	if err := endRows(ctx, in.tx, in.sale.no, in.ended); err != nil {
		return err
	}
	if settled && len(in.due) > 0 { // a message that slept
		if err := wake(ctx, in.tx, in.sale.no); err != nil {
			return err
		}
	}
	kind, wait := in.plan()
	return workRows(ctx, in.tx, workRow{in.sale.no, kind, wait}, in.due)
}

// plan says what new orders wait for, and how long.
func (in *ingestion) plan() (kind int16, wait time.Duration) {
	switch {
	case in.sale.payment == engine.PayCheckout:
		return workDeadline, in.hold
	case in.lease > 0:
		return workPay, in.lease
	}
	return workPay, 0
}

// write inserts orders, none of them twice, in the order of their ids: those
// that are refused between those that are not, hence in runs. Nearly always
// there is one. It returns the live ones that are new, and whatever was not
// inserted.
func (in *ingestion) write(ctx context.Context, picked []*Arrival) (fresh, left []*Arrival, err error) {
	for len(picked) > 0 {
		n := 1
		for n < len(picked) && picked[n].Refused == picked[0].Refused {
			n++
		}
		kind := newLive
		if picked[0].Refused {
			kind = newRefused
		}
		written, others, err := in.insert(ctx, picked[:n], kind)
		if err != nil {
			return nil, nil, err
		}
		if left = append(left, others...); kind == newLive {
			fresh = append(fresh, written...)
		} else {
			in.rep.Cancelled += len(written)
			for _, a := range written {
				in.ended = append(in.ended, a.Order.Order)
			}
		}
		picked = picked[n:]
	}
	return fresh, left, nil
}

// known deals with orders that were not inserted: PostgreSQL has them already,
// or they are stale, or, retaken, they lost their number to another order and
// come in beside it. The last are returned.
func (in *ingestion) known(ctx context.Context, unsure []*Arrival) ([]*Arrival, error) {
	if len(unsure) == 0 {
		return nil, nil
	}
	slices.SortStableFunc(unsure, func(a, b *Arrival) int { return cmp.Or(byID(a, b), compareHolds(a.Hold, b.Hold)) })
	have, err := readHolds(ctx, in.tx, unsure)
	if err != nil {
		return nil, err
	}
	var foreign, strays, ended []*Arrival
	for _, a := range unsure {
		k, ok := have[a.Order.Order]
		switch {
		case ok && k.hold == a.Hold:
			in.rep.Repeated++
			if k.state.Terminal() {
				ended = append(ended, a)
			}
		case ok && a.Refused: // ingested meanwhile; the refusal took nothing
			in.rep.Repeated++
		case ok:
			foreign = append(foreign, a)
		case a.Retaken:
			strays = append(strays, a)
			have[a.Order.Order] = heldUnder{a.Hold, engine.Reserved}
		default:
			if a.Hold.Epoch == in.epoch {
				in.rep.Forks++
			}
			in.rep.Stale = append(in.rep.Stale, a.Order)
		}
	}
	if err := dropRows(ctx, in.tx, in.sale.no, foreign); err != nil {
		return nil, err
	}
	if err := againRows(ctx, in.tx, in.sale.no, ended); err != nil {
		return nil, err
	}
	in.rep.Foreign += len(foreign)
	in.rep.Forks += len(strays)
	strays, left, err := in.insert(ctx, strays, newStray) // none if hopeful
	if err == nil && len(left) > 0 {                      // somebody else's transaction wrote it between two statements
		err = errGuard
	}
	return strays, err
}

func compareHolds(a, b engine.Hold) int {
	return cmp.Or(cmp.Compare(a.Epoch, b.Epoch), cmp.Compare(a.Seq, b.Seq))
}

type heldUnder struct {
	hold  engine.Hold
	state engine.OrderState
}

func readHolds(ctx context.Context, tx pgx.Tx, arrivals []*Arrival) (map[engine.OrderID]heldUnder, error) {
	ids := make([]string, len(arrivals))
	for i, a := range arrivals {
		ids[i] = string(a.Order.Order)
	}
	rows, err := tx.Query(ctx, `SELECT o.id, o.hold_epoch, o.hold_seq, o.state FROM unnest($1::text[]) AS u(id)
		JOIN orders o ON o.id = u.id`, ids)
	if err != nil {
		return nil, err
	}
	have := make(map[engine.OrderID]heldUnder, len(ids))
	var id engine.OrderID
	var k heldUnder
	_, err = pgx.ForEachRow(rows, []any{&id, &k.hold.Epoch, &k.hold.Seq, &k.state}, func() error {
		have[id] = k
		return nil
	})
	return have, err
}
