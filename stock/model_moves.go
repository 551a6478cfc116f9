package stock

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/doorbuster/doorbuster/engine"
)

// Apply is Store.Apply.
func (m *Model) Apply(_ context.Context, sale engine.SaleID, g Grip, moves []engine.Move) ([]int64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	taken := make([]int64, len(moves))
	for op := engine.Settle; op <= engine.Withdraw; op++ {
		for i := range moves {
			if moves[i].Op != op {
				continue
			}
			e, err := m.enter(sale, g, opOf[op])
			if err != nil {
				return nil, err
			}
			if taken[i], err = e.apply(&moves[i], m.Now()/1000); err != nil {
				return nil, err
			}
		}
	}
	return taken, nil
}

func (e *modelEpoch) apply(mv *engine.Move, now int64) (int64, error) {
	r, known := e.records[mv.Order]
	mine := known && r.State == engine.RecordHeld && r.Order.Hold == mv.Hold
	switch mv.Op {
	case engine.Settle:
		if mine {
			e.shift(r.Order.Lines, -1, 1, 0)
		}
		if mine || !known {
			e.bury(mv, engine.RecordSettled, now)
		}
	case engine.Release, engine.Drop:
		if mine {
			e.shift(r.Order.Lines, -1, 0, 1)
			e.count(r.Order.Buyer, r.Order.Identities, -engine.Units(r.Order.Lines), -1)
		}
		if mv.Op == engine.Drop && mine {
			delete(e.records, mv.Order)
		}
		if mv.Op == engine.Release && (mine || !known) {
			e.bury(mv, engine.RecordReleased, now)
		}
	case engine.Return, engine.Restock, engine.Withdraw:
		return e.once(mv, mine, now)
	}
	return 0, nil
}

// once does what happens once per row.
func (e *modelEpoch) once(mv *engine.Move, mine bool, now int64) (int64, error) {
	it := e.items[mv.Lines[0].SKU]
	if it == nil && mv.Op != engine.Return {
		return 0, ErrNoItem
	}
	if n, ok := e.rows[rowOf(mv)]; ok {
		return n, nil
	}
	n := engine.Units(mv.Lines)
	switch mv.Op {
	case engine.Return:
		if mine {
			e.shift(mv.Lines, -1, 0, 1)
			e.bury(mv, engine.RecordSettled, now)
		} else {
			e.shift(mv.Lines, 0, -1, 1)
		}
		e.count(mv.Buyer, mv.Identities, -n, -1)
	case engine.Restock:
		it.Units, it.Available = it.Units+n, it.Available+n
	case engine.Withdraw:
		n = min(n, it.Available)
		it.Units, it.Available = it.Units-n, it.Available-n
	}
	e.rows[rowOf(mv)] = n
	return n, nil
}

// shift moves the units of lines between held, sold and available.
func (e *modelEpoch) shift(lines []engine.Line, held, sold, available int64) {
	for _, l := range lines {
		it := e.items[l.SKU]
		it.Held += held * l.Quantity
		it.Sold += sold * l.Quantity
		it.Available += available * l.Quantity
	}
}

// bury leaves the tombstone of a finished order.
func (e *modelEpoch) bury(mv *engine.Move, state engine.RecordState, now int64) {
	r := &engine.Record{State: state, Finished: now}
	r.Order.Order, r.Order.Hold, r.Order.Body = mv.Order, mv.Hold, mv.Body
	e.records[mv.Order] = r
}

// Prune is Store.Prune.
func (m *Model) Prune(_ context.Context, sale engine.SaleID, g Grip, orders []engine.OrderID) (pruned int64, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	e, err := m.enter(sale, g, OpPrune)
	if err != nil {
		return 0, err
	}
	for _, id := range orders {
		if r, ok := e.records[id]; ok && r.State != engine.RecordHeld {
			delete(e.records, id)
			pruned++
		}
	}
	return pruned, nil
}

// SetState is Store.SetState.
func (m *Model) SetState(_ context.Context, sale engine.SaleID, g Grip, state engine.SaleState) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if slotState(state) == "" {
		return fmt.Errorf("no state of a sale that has keys: %q", state)
	}
	e, err := m.enter(sale, g, OpState)
	if err != nil {
		return err
	}
	if e.watch.Turn != g.Turn {
		return ErrStale
	}
	e.watch.State = watchState(state)
	e.watch.Turn++
	return nil
}

// watchState is the state that a watch shows.
func watchState(s engine.SaleState) engine.SaleState {
	switch s {
	case engine.SaleScheduled:
		return engine.SaleOpen
	case engine.SaleSettled:
		return engine.SaleClosed
	}
	return s
}

// Redefine is Store.Redefine.
func (m *Model) Redefine(_ context.Context, sale engine.SaleID, g Grip, def engine.Sale) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	e, err := m.enter(sale, g, OpDefine)
	if err != nil {
		return err
	}
	if def.Version < e.watch.Version {
		return ErrStale
	}
	if def.Version > e.watch.Version {
		e.define(&def)
	}
	return nil
}

func (e *modelEpoch) define(def *engine.Sale) {
	w := &e.watch
	w.Version, w.Currency = def.Version, def.Currency
	w.Opens, w.Closes = def.Opens.UnixMilli(), def.Closes.UnixMilli()
	w.LimitBuyer, w.LimitIdentity = def.LimitPerBuyer, def.LimitPerIdentity
	for _, it := range def.Items {
		if e.items[it.SKU] == nil {
			e.items[it.SKU] = &Item{SKU: it.SKU}
		}
		e.items[it.SKU].Price = it.Price
	}
}

// SetLag is Store.SetLag.
func (m *Model) SetLag(_ context.Context, sale engine.SaleID, g Grip, ms int64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	e, err := m.enter(sale, g, OpLag)
	if err == nil {
		e.watch.Lag = ms
	}
	return err
}

// Mark is Store.Mark.
func (m *Model) Mark(_ context.Context, sale engine.SaleID, epoch int64, entries []int64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if e := m.at(sale, epoch); e != nil {
		for _, id := range entries {
			delete(e.outbox, id)
		}
	}
	return nil
}

// at is an epoch of a sale, or nil.
func (m *Model) at(sale engine.SaleID, epoch int64) *modelEpoch {
	if s := m.sales[sale]; s != nil {
		return s.epochs[epoch]
	}
	return nil
}

// Outbox is Store.Outbox.
func (m *Model) Outbox(_ context.Context, sale engine.SaleID, epoch int64, limit int) (entries []Entry, length int64, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	e := m.at(sale, epoch)
	if e == nil || len(e.outbox) == 0 {
		return nil, 0, nil
	}
	for _, first := range slices.Sorted(maps.Keys(e.outbox)) {
		if len(entries) == limit {
			break
		}
		env := e.outbox[first]
		entries = append(entries, Entry{ID: first, At: env.Orders[0].AcceptedAt, Body: engine.AppendEnvelope(nil, &env)})
	}
	return entries, int64(len(e.outbox)), nil
}

// Record is Store.Record.
func (m *Model) Record(_ context.Context, sale engine.SaleID, order engine.OrderID) (engine.Record, bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.sales[sale]
	if s == nil || s.inUse == 0 {
		return engine.Record{}, false, ErrNoSale
	}
	for _, epoch := range []int64{s.inUse, s.inUse - 1} {
		if e := s.epochs[epoch]; e != nil {
			if r, ok := e.records[order]; ok {
				return *r, true, nil
			}
		}
	}
	return engine.Record{}, false, nil
}

// Records is Store.Records, in one slice and in order of id.
func (m *Model) Records(_ context.Context, sale engine.SaleID, epoch int64, _ uint64) (recs []engine.Record, next uint64, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if e := m.at(sale, epoch); e != nil {
		recs = make([]engine.Record, 0, len(e.records))
		for _, r := range e.records {
			recs = append(recs, *r)
		}
		slices.SortFunc(recs, func(a, b engine.Record) int { return cmp.Compare(a.Order.Order, b.Order.Order) })
	}
	return recs, 0, nil
}

// Build is Store.Build.
func (m *Model) Build(_ context.Context, img Image) error {
	h, err := hashesOf(&img)
	if err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.sales[img.Sale.ID]
	if s == nil {
		s = &modelSale{epochs: map[int64]*modelEpoch{}}
		m.sales[img.Sale.ID] = s
	}
	if s.inUse >= img.Epoch {
		return ErrFenced
	}
	e := &modelEpoch{
		items: map[engine.SKU]*Item{}, records: map[engine.OrderID]*engine.Record{}, buyers: map[engine.BuyerID]Counter{},
		identities: map[engine.Identity]int64{}, outbox: map[int64]engine.Envelope{}, rows: map[string]int64{},
	}
	e.define(&img.Sale)
	e.watch.KeyNumber = int64(img.Sale.KeyNumber)
	e.watch.Safety.Durable = img.Sale.Mode == engine.ModeDurable // it has no replica, and loses what Lose says
	e.watch.State, e.watch.Incarnation, e.watch.SHA = watchState(img.Sale.State), img.Incarnation, ScriptSHAs(img.Incarnation)
	for _, it := range img.Sale.Items {
		e.items[it.SKU].Units, e.items[it.SKU].Available = it.Units, it.Units
	}
	for i := range img.Live {
		o := &img.Live[i]
		if o.Settled {
			e.shift(o.Lines, 0, 1, -1)
		} else {
			e.shift(o.Lines, 1, 0, -1)
		}
		e.count(o.Buyer, o.Identities, engine.Units(o.Lines), 1)
	}
	for i := 0; i < len(h.records); i += 2 {
		id := engine.OrderID(h.records[i])
		r, err := engine.ParseRecord(id, h.records[i+1])
		if err != nil {
			return err
		}
		e.records[id] = &r
	}
	s.epochs[img.Epoch], s.inUse = e, img.Epoch
	return nil
}

// Freeze is Store.Freeze.
func (m *Model) Freeze(_ context.Context, sale engine.SaleID, epoch int64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if e := m.at(sale, epoch); e != nil {
		e.watch.Frozen, e.watch.State = true, ""
	}
	return nil
}

// Retire is Store.Retire. What runs out does not run out here.
func (m *Model) Retire(_ context.Context, sale engine.SaleID, epoch int64, _ time.Duration) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if e := m.at(sale, epoch); e != nil {
		e.watch.Retired = true
	}
	return nil
}

// Beat is Store.Beat.
func (m *Model) Beat(_ context.Context, sale engine.SaleID, epoch int64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	e := m.at(sale, epoch)
	if e == nil {
		return ErrNoSale
	}
	e.watch.Heartbeat++
	return nil
}

// Loaded is Store.Loaded.
func (m *Model) Loaded(_ context.Context, _ engine.SaleID, incarnation int64) (bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, ok := m.loaded[ScriptSHAs(incarnation)[OpReserve]]
	return ok, nil
}

// Load is Store.Load.
func (m *Model) Load(_ context.Context, _ engine.SaleID, incarnation int64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, sha := range ScriptSHAs(incarnation) {
		m.loaded[sha] = incarnation
	}
	return nil
}

// Server is Store.Server.
func (m *Model) Server(context.Context, engine.SaleID) (Server, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return Server{RunID: "run-" + strconv.Itoa(m.run), ReplID: "history-" + strconv.Itoa(m.handed)}, nil
}

// Epochs is Store.Epochs.
func (m *Model) Epochs(_ context.Context, sale engine.SaleID) ([]int64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.sales[sale]
	if s == nil {
		return nil, nil
	}
	epochs := make([]int64, 0, len(s.epochs))
	for n := range s.epochs {
		epochs = append(epochs, n)
	}
	slices.Sort(epochs)
	return epochs, nil
}

// DropEpoch is Store.DropEpoch.
func (m *Model) DropEpoch(_ context.Context, sale engine.SaleID, epoch int64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if s := m.sales[sale]; s != nil {
		if s.inUse == epoch {
			return fmt.Errorf("epoch %d of sale %s is in use", epoch, sale)
		}
		delete(s.epochs, epoch)
	}
	return nil
}
