package orders

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

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
	return s.ingest(ctx, sale, arrivals, max(lease, time.Millisecond))
}

// maxCareful bounds how often a batch is judged order by order: more than once
// only if another transaction wrote one of its orders between two statements.
const maxCareful = 3

// errGuard makes the transaction start again with care: some guard refused the
// batch as a whole, so each order must be judged by itself.
var errGuard = errors.New("a guard refused the batch")

func (s *Store) ingest(ctx context.Context, sale engine.SaleID, arrivals []Arrival, lease time.Duration) (IngestReport, error) {
	if len(arrivals) > MaxBatch {
		return IngestReport{}, fmt.Errorf("ingest sale %s: %d orders, at most %d", sale, len(arrivals), MaxBatch)
	}
	waves := inWaves(arrivals)
	var in ingestion
	run := func(careful bool) error {
		return s.inSale(ctx, "ingest", sale, func(tx pgx.Tx, info saleInfo) error {
			in = ingestion{tx: tx, sale: info, lease: lease, careful: careful}
			return in.all(ctx, waves)
		})
	}
	err := run(false)
	for try := 0; errors.Is(err, errGuard) && try < maxCareful; try++ {
		err = run(true)
	}
	if postgres.OfTheData(err) {
		err = fmt.Errorf("%w: %w", ErrNotWritable, err)
	}
	if err != nil {
		return IngestReport{}, err
	}
	return in.rep, nil
}

// inWaves splits arrivals so that no order is twice in a wave, and sorts each by
// id: the lock order. Nearly always there is one.
func inWaves(arrivals []Arrival) [][]*Arrival {
	var waves [][]*Arrival
	rest := make([]*Arrival, len(arrivals))
	for i := range arrivals {
		rest[i] = &arrivals[i]
	}
	for len(rest) > 0 {
		slices.SortStableFunc(rest, func(a, b *Arrival) int { return strings.Compare(string(a.Order.Order), string(b.Order.Order)) })
		var wave, later []*Arrival
		for i, a := range rest {
			if i > 0 && a.Order.Order == rest[i-1].Order.Order {
				later = append(later, a)
				continue
			}
			if wave == nil {
				wave = make([]*Arrival, 0, len(rest))
			}
			wave = append(wave, a)
		}
		waves, rest = append(waves, wave), later
	}
	return waves
}

// ingestion is one ingest transaction.
type ingestion struct {
	tx      pgx.Tx
	sale    saleInfo
	lease   time.Duration // above 0: claim what is paid at-order
	careful bool
	epoch   int64
	hold    time.Duration
	rep     IngestReport
	ended   []engine.OrderID // cancelled now, or finished and met again: their outcome is to be told (again)
	due     []engine.OrderID // new and open
}

func (in *ingestion) all(ctx context.Context, waves [][]*Arrival) error {
	var holdMS int64
	err := in.tx.QueryRow(ctx, `SELECT epoch, hold_ms FROM sales WHERE no = $1`, in.sale.no).Scan(&in.epoch, &holdMS)
	if err != nil {
		return err
	}
	in.hold = time.Duration(holdMS) * time.Millisecond
	for _, wave := range waves {
		for _, a := range wave {
			if a.again() && a.Epoch != in.epoch {
				in.rep = IngestReport{Moved: true}
				return nil
			}
		}
	}
	for _, wave := range waves {
		if err := in.wave(ctx, wave); err != nil {
			return err
		}
	}
	if err := endRows(ctx, in.tx, in.sale.no, in.ended); err != nil {
		return err
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

// wave writes orders, none of them twice, sorted by id.
func (in *ingestion) wave(ctx context.Context, wave []*Arrival) error {
	live := make([]*Arrival, 0, len(wave))
	var refused, unsure []*Arrival
	for _, a := range wave {
		switch {
		case a.Refused:
			refused = append(refused, a)
		case a.Retaken || a.Hold.Epoch == in.epoch:
			live = append(live, a)
		default:
			unsure = append(unsure, a)
		}
	}
	fresh, left, err := in.insert(ctx, live, newLive)
	if err != nil {
		return err
	}
	unsure = append(unsure, left...)
	gone, left, err := in.insert(ctx, refused, newRefused)
	if err != nil {
		return err
	}
	unsure = append(unsure, left...)
	for _, a := range gone {
		in.ended = append(in.ended, a.Order.Order)
	}
	in.rep.Cancelled += len(gone)
	strays, err := in.known(ctx, unsure)
	if err != nil {
		return err
	}
	return in.guard(ctx, append(fresh, strays...))
}

// known deals with orders that were not inserted: PostgreSQL has them already,
// or they are stale, or, retaken, they lost their number to another order and
// come in beside it. The last are returned.
func (in *ingestion) known(ctx context.Context, unsure []*Arrival) ([]*Arrival, error) {
	if len(unsure) == 0 {
		return nil, nil
	}
	slices.SortFunc(unsure, func(a, b *Arrival) int { return strings.Compare(string(a.Order.Order), string(b.Order.Order)) })
	have, err := readHolds(ctx, in.tx, unsure)
	if err != nil {
		return nil, err
	}
	var foreign, strays []*Arrival
	for _, a := range unsure {
		k, ok := have[a.Order.Order]
		switch {
		case ok && k.hold == a.Hold:
			in.rep.Repeated++
			if k.state.Terminal() {
				in.ended = append(in.ended, a.Order.Order)
			}
		case ok && a.Refused: // ingested meanwhile; the refusal took nothing
			in.rep.Repeated++
		case ok:
			foreign = append(foreign, a)
		case a.Retaken:
			strays = append(strays, a)
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
	in.rep.Foreign += len(foreign)
	in.rep.Forks += len(strays)
	strays, left, err := in.insert(ctx, strays, newStray)
	if err == nil && len(left) > 0 { // somebody else's transaction wrote it between two statements
		err = errGuard
	}
	return strays, err
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
