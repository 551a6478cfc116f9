package status

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/valyala/fasthttp"

	"github.com/doorbuster/doorbuster/engine"
	"github.com/doorbuster/doorbuster/engine/orders"
	"github.com/doorbuster/doorbuster/stock"
)

// Order is what a buyer sees of an order (JSON). Times are UTC (RFC 3339, to the
// millisecond), amounts minor units.
type Order struct {
	Order           engine.OrderID `json:"order"`
	Sale            engine.SaleID  `json:"sale"`
	Status          string         `json:"status"` // accepted, reserved, paying, confirmed, cancelled
	Reason          string         `json:"reason,omitempty"`
	Hold            string         `json:"hold"`
	Lines           []Line         `json:"lines"`
	Total           engine.Money   `json:"total"`
	AcceptedAt      string         `json:"accepted_at"`
	PayBefore       string         `json:"pay_before,omitempty"` // where the next step is the buyer's
	FinishedAt      string         `json:"finished_at,omitempty"`
	CancelRequested bool           `json:"cancel_requested,omitempty"`
	Returned        bool           `json:"returned,omitempty"`
}

// Line is one line of an Order.
type Line struct {
	SKU      engine.SKU `json:"sku"`
	Quantity int64      `json:"quantity"`
	Price    int64      `json:"price"` // minor units each
}

// statusAccepted is the status of an order that is not in PostgreSQL yet.
const statusAccepted = "accepted"

const timeFormat = "2006-01-02T15:04:05.000Z"

func at(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(timeFormat)
}

func shown(o *engine.Order, sale engine.SaleID) Order {
	s := Order{
		Order: o.Order, Sale: sale, Status: statusAccepted, Hold: o.Hold.String(),
		AcceptedAt: at(o.Accepted()), Total: engine.Money{Amount: o.Total},
	}
	for _, l := range o.Lines {
		s.Lines = append(s.Lines, Line{SKU: l.SKU, Quantity: l.Quantity, Price: l.Price})
	}
	return s
}

func fromView(v *orders.View) Order {
	s := shown(&v.Order, v.Sale)
	s.Status, s.Total, s.FinishedAt = v.State.String(), v.Amount, at(v.Finished)
	s.CancelRequested, s.Returned = v.CancelWished && !v.State.Terminal(), v.Returned
	if v.State == engine.Cancelled {
		s.Reason = v.Reason.String()
	}
	if v.State == engine.Reserved {
		s.PayBefore = at(v.Due)
	}
	return s
}

// terminal tells whether the order is at its end.
func (o *Order) terminal() bool {
	return o.Status == engine.Confirmed.String() || o.Status == engine.Cancelled.String()
}

// errNone says that the asker has no such order.
var errNone = errors.New("no such order")

// errBusy says that no turn at PostgreSQL came in time.
var errBusy = errors.New("too many questions at once")

// find looks in PostgreSQL, then in Redis. errNone, errBusy.
func (s *Status) find(who asker, id engine.OrderID) (Order, error) {
	ctx, end := context.WithTimeout(context.Background(), answerIn)
	defer end()
	o, err := s.inBooks(ctx, who, id)
	if !errors.Is(err, orders.ErrNoOrder) {
		return o, err
	}
	o, err = s.inSlot(ctx, who, id)
	if !errors.Is(err, errNone) {
		return o, err
	}
	// It may have been ingested, and its record pruned, between the two.
	if o, err = s.inBooks(ctx, who, id); errors.Is(err, orders.ErrNoOrder) {
		return Order{}, errNone
	}
	return o, err
}

func (s *Status) inBooks(ctx context.Context, who asker, id engine.OrderID) (Order, error) {
	done, ok := s.books.turn()
	if !ok {
		return Order{}, errBusy
	}
	defer done()
	ctx, end := context.WithTimeout(ctx, queryTimeout)
	defer end()
	v, err := s.cfg.Orders.Order(ctx, id)
	if err != nil {
		return Order{}, err
	}
	if !who.may(v.Buyer, v.Sale) {
		return Order{}, errNone
	}
	return fromView(&v), nil
}

// inSlot looks for the order's record in Redis: in the sale of the ticket, or in
// every sale in use.
func (s *Status) inSlot(ctx context.Context, who asker, id engine.OrderID) (Order, error) {
	sales := []engine.SaleID{who.sale}
	if who.sale == "" {
		var err error
		if sales, err = s.salesInUse(); err != nil {
			return Order{}, err
		}
	}
	done, ok := s.slot.turn()
	if !ok {
		return Order{}, errBusy
	}
	defer done()
	ctx, end := context.WithTimeout(ctx, queryTimeout)
	defer end()
	for _, sale := range sales {
		r, found, err := s.cfg.Stock.Record(ctx, sale, id)
		if errors.Is(err, stock.ErrNoSale) {
			continue
		}
		if err != nil {
			return Order{}, fmt.Errorf("order %s in Redis: %w", id, err)
		}
		if !found || r.State != engine.RecordHeld || !who.may(r.Order.Buyer, sale) {
			continue // a tombstone does not say whose it was; PostgreSQL has that order
		}
		o := shown(&r.Order, sale)
		if w, err := s.cfg.Stock.Watch(ctx, sale, r.Order.Hold.Epoch); err == nil {
			o.Total.Currency = w.Currency
		}
		return o, nil
	}
	return Order{}, errNone
}

// salesInUse keeps the list of sales for a while: a holder of a bearer token
// names none.
type salesInUse struct {
	mu   sync.Mutex
	ids  []engine.SaleID
	read time.Time
}

func (s *Status) salesInUse() ([]engine.SaleID, error) {
	s.sales.mu.Lock()
	defer s.sales.mu.Unlock()
	if !s.sales.read.IsZero() && time.Since(s.sales.read) < salesFor {
		return s.sales.ids, nil
	}
	done, ok := s.books.turn()
	if !ok {
		return nil, errBusy
	}
	defer done()
	ctx, end := context.WithTimeout(context.Background(), queryTimeout)
	defer end()
	ids, err := s.cfg.Orders.Sales(ctx)
	if err != nil {
		return nil, err
	}
	s.sales.ids, s.sales.read = ids[:min(len(ids), maxSalesTry)], time.Now()
	return s.sales.ids, nil
}

// fail answers an error of find and its like.
func (s *Status) fail(ctx *fasthttp.RequestCtx, what string, err error) {
	switch {
	case errors.Is(err, errNone), errors.Is(err, orders.ErrNoOrder):
		write(ctx, noOrder)
	case errors.Is(err, errBusy):
		write(ctx, overloaded)
	default:
		s.metrics.failed.Inc()
		s.cfg.Logger.Warn("status cannot be told", "what", what, "error", err)
		write(ctx, overloaded)
	}
}

func (s *Status) order(ctx *fasthttp.RequestCtx, who asker, id engine.OrderID) {
	o, err := s.find(who, id)
	if err != nil {
		s.fail(ctx, "order", err)
		return
	}
	writeJSON(ctx, fasthttp.StatusOK, "application/json", &o)
}

// Mine is a buyer's orders of a sale, newest first: those in PostgreSQL, at most
// MaxMine, and those that were accepted and are on their way there.
type Mine struct {
	Sale   engine.SaleID `json:"sale"`
	Orders []Order       `json:"orders"`
	// Complete says that none is missing that was answered 202. It is false while
	// Redis cannot be asked, or has forgotten the sale, and while orders that it lost may
	// be on their way yet: ask again.
	Complete bool `json:"complete"`
}

func (s *Status) mine(ctx *fasthttp.RequestCtx, who asker, sale engine.SaleID) {
	if sale.Validate() != nil || (who.sale != "" && who.sale != sale) {
		write(ctx, noSale)
		return
	}
	all, end := context.WithTimeout(context.Background(), answerIn)
	defer end()
	st, lost := s.standing(all, sale, who.buyer)
	views, lacks, err := s.ordersOf(all, sale, who.buyer)
	if errors.Is(err, orders.ErrNoSale) {
		write(ctx, noSale)
		return
	}
	if err != nil {
		s.fail(ctx, "mine", err)
		return
	}
	m := Mine{Sale: sale}
	var more []Order
	if lost == nil {
		views, more, m.Complete = s.pending(all, asker{who.buyer, sale}, &st, views)
	}
	m.Complete = m.Complete && !lacks
	m.Orders = make([]Order, 0, len(views)+len(more))
	for i := range views {
		m.Orders = append(m.Orders, fromView(&views[i]))
	}
	m.Orders = append(m.Orders, more...)
	newestFirst(m.Orders)
	writeJSON(ctx, fasthttp.StatusOK, "application/json", &m)
}

// ordersOf reads what PostgreSQL has of a buyer, and whether some may be on their way
// that are not in Redis either. That is asked first: what arrives after it is read.
func (s *Status) ordersOf(ctx context.Context, sale engine.SaleID, buyer engine.BuyerID) (views []orders.View, lacks bool, err error) {
	done, ok := s.books.turn()
	if !ok {
		return nil, false, errBusy
	}
	defer done()
	ctx, end := context.WithTimeout(ctx, queryTimeout)
	defer end()
	if lacks, err = s.cfg.Orders.MayLack(ctx, sale, doubtFor); err != nil {
		return nil, false, err
	}
	views, err = s.cfg.Orders.OrdersOf(ctx, sale, buyer, MaxMine)
	return views, lacks, err
}

func (s *Status) cancel(ctx *fasthttp.RequestCtx, who asker, id engine.OrderID) {
	before, err := s.find(who, id) // also: whose is it?
	if err != nil {
		s.fail(ctx, "cancel", err)
		return
	}
	if before.Status == statusAccepted {
		writeAbout(ctx, orderPending, id)
		return
	}
	out, after, err := s.cancelNow(who, id)
	if err != nil {
		s.fail(ctx, "cancel", err)
		return
	}
	switch out {
	case orders.CancelDone:
		writeJSON(ctx, fasthttp.StatusOK, "application/json", &after)
	case orders.CancelWished:
		writeJSON(ctx, fasthttp.StatusAccepted, "application/json", &after)
	case orders.CancelForbidden:
		writeAbout(ctx, notCancellable, id)
	case orders.CancelPending:
		writeAbout(ctx, orderPending, id)
	default:
		write(ctx, broken)
	}
}

// cancelNow cancels and reads the order again, for the answer.
func (s *Status) cancelNow(who asker, id engine.OrderID) (orders.CancelOutcome, Order, error) {
	done, ok := s.books.turn()
	if !ok {
		return 0, Order{}, errBusy
	}
	defer done()
	ctx, end := context.WithTimeout(context.Background(), queryTimeout)
	defer end()
	out, err := s.cfg.Orders.Cancel(ctx, who.buyer, id)
	if err != nil {
		return 0, Order{}, err
	}
	v, err := s.cfg.Orders.Order(ctx, id)
	if err != nil {
		return 0, Order{}, err
	}
	return out, fromView(&v), nil
}
