package orders

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/doorbuster/doorbuster/engine"
)

// SalesWithMoves is Store.SalesWithMoves, in no order.
func (m *Model) SalesWithMoves(context.Context) (sales []engine.SaleID, err error) {
	for _, row := range m.moves {
		if !row.done && !slices.Contains(sales, row.sale) {
			sales = append(sales, row.sale)
		}
	}
	return sales, nil
}

// PendingMoves is Store.PendingMoves. A row's ID is its place, from 1.
func (m *Model) PendingMoves(_ context.Context, sale engine.SaleID, limit int) ([]engine.Move, error) {
	var out []engine.Move
	for i, row := range m.moves {
		if row.done || row.sale != sale {
			continue
		}
		if len(out) >= max(limit, 1) {
			break
		}
		move := engine.Move{ID: int64(i + 1), Sale: sale, Op: engine.MoveOp(row.op), Hold: row.hold, Lines: row.lines}
		if row.op == opOutcome {
			for _, id := range row.orders {
				out = append(out, m.outcome(move, id))
			}
			continue
		}
		if len(row.orders) > 0 {
			v := m.orders[row.orders[0]]
			move.Order, move.Buyer, move.Identities, move.Body = v.Order.Order, v.Buyer, v.Identities, v.Body
		}
		out = append(out, move)
	}
	return out, nil
}

func (m *Model) outcome(move engine.Move, id engine.OrderID) engine.Move {
	v := m.orders[id]
	move.Op = engine.Release
	if v.State == engine.Confirmed {
		move.Op = engine.Settle
	}
	move.Order, move.Hold, move.Buyer, move.Identities, move.Lines, move.Body = id, v.Hold, v.Buyer, v.Identities, v.Lines, v.Body
	return move
}

// MarkMoved is Store.MarkMoved.
func (m *Model) MarkMoved(_ context.Context, sale engine.SaleID, epoch int64, rows []Moved) (done int, moved bool, err error) {
	s, err := m.sale(sale)
	if err != nil || s.frozen || s.Epoch != epoch {
		return 0, err == nil, err
	}
	for _, r := range rows {
		if r.ID < 1 || r.ID > int64(len(m.moves)) {
			continue
		}
		row := m.moves[r.ID-1]
		if row.done || row.sale != sale {
			continue
		}
		if row.op == int16(engine.Withdraw) {
			it, _ := s.Item(row.lines[0].SKU)
			if it.Units-r.Taken < s.claimed[it.SKU] {
				continue
			}
			it.Units -= r.Taken
		}
		row.done, row.taken = true, r.Taken
		done++
	}
	return done, false, nil
}

// Unknown is Store.Unknown.
func (m *Model) Unknown(_ context.Context, _ engine.SaleID, holds []HoldOf) ([]HoldOf, error) {
	var out []HoldOf
	for _, h := range holds {
		v := m.orders[h.Order]
		dropped := slices.ContainsFunc(m.moves, func(row *modelMove) bool {
			return row.op == int16(engine.Drop) && row.orders[0] == h.Order && row.hold == h.Hold
		})
		if (v == nil || v.Hold != h.Hold) && !dropped {
			out = append(out, h)
		}
	}
	return out, nil
}

func (m *Model) setFrozen(sale engine.SaleID, epoch int64, frozen bool) (bool, error) {
	s, err := m.sale(sale)
	if err != nil || s.Epoch != epoch || frozen && s.State == engine.SaleSettled {
		return false, err
	}
	s.frozen = frozen
	return true, nil
}

// Freeze is Store.Freeze.
func (m *Model) Freeze(_ context.Context, sale engine.SaleID, epoch int64) (bool, error) {
	return m.setFrozen(sale, epoch, true)
}

// Unfreeze is Store.Unfreeze.
func (m *Model) Unfreeze(_ context.Context, sale engine.SaleID, epoch int64) (bool, error) {
	return m.setFrozen(sale, epoch, false)
}

// Cut is Store.Cut.
func (m *Model) Cut(_ context.Context, sale engine.SaleID, epoch int64) (Image, error) {
	s, err := m.sale(sale)
	if err != nil || s.Epoch != epoch {
		return Image{}, ErrEpochMoved
	}
	s.Epoch, s.frozen = epoch+1, true
	img := Image{Sale: s.Sale}
	img.Sale.Items = slices.Clone(s.Items)
	for _, row := range m.moves {
		if row.sale == sale && !row.done && row.op != int16(engine.Withdraw) {
			row.done = true
			img.Covered++
		}
	}
	recent := m.Now().Before(s.Closes.Add(s.ReplayWindow))
	for _, v := range m.sorted() {
		finished := int64(0)
		if v.State.Terminal() {
			finished = v.Finished.Unix()
		}
		switch {
		case v.Sale != sale:
		case v.State.Live() && !v.Returned:
			img.Live = append(img.Live, LiveOrder{Order: v.Order, Settled: v.State == engine.Confirmed, Finished: finished})
		case recent:
			img.Tombstones = append(img.Tombstones, Tombstone{v.Order.Order, v.Hold, v.Body, v.State == engine.Confirmed, finished})
		}
	}
	return img, nil
}

// Fence is Store.Fence.
func (m *Model) Fence(_ context.Context, sale engine.SaleID) (Fence, error) {
	s, err := m.sale(sale)
	if err != nil {
		return Fence{}, err
	}
	f := Fence{Sale: sale, Epoch: s.Epoch, Frozen: s.frozen, State: s.State, Version: s.Version}
	for seq, owner := range m.owners {
		if seq.sale == sale && seq.hold.Epoch == s.Epoch && seq.hold.Seq > f.Seq {
			f.Seq, f.AcceptedAt = seq.hold.Seq, m.orders[owner].AcceptedAt
		}
	}
	return f, nil
}

// Order is Store.Order.
func (m *Model) Order(_ context.Context, id engine.OrderID) (View, error) {
	v := m.orders[id]
	if v == nil {
		return View{}, ErrNoOrder
	}
	p := m.payable(v)
	out := *v
	out.Amount, out.Provider = p.Amount, p.Provider
	return out, nil
}

// Incarnation is Store.Incarnation.
func (m *Model) Incarnation(ctx context.Context, server string) (int64, error) {
	return m.RaiseIncarnation(ctx, server, 0)
}

// RaiseIncarnation is Store.RaiseIncarnation.
func (m *Model) RaiseIncarnation(_ context.Context, server string, from int64) (int64, error) {
	if m.servers[server] == from {
		m.numbers++
		m.servers[server] = m.numbers
		if m.firsts[server] == 0 {
			m.firsts[server] = m.numbers
		}
	}
	return m.servers[server], nil
}

// HadIncarnation is Store.HadIncarnation.
func (m *Model) HadIncarnation(_ context.Context, server string, n int64) (bool, error) {
	first := m.firsts[server]
	return first > 0 && first <= n && n <= m.servers[server], nil
}

// MarkMarker is Store.MarkMarker.
func (m *Model) MarkMarker(_ context.Context, nonce string) error {
	m.markers[nonce] = true
	return nil
}

// SeenMarker is Store.SeenMarker.
func (m *Model) SeenMarker(_ context.Context, nonce string) (bool, error) {
	return m.markers[nonce], nil
}

// Dump writes all the model knows, a sorted line for each thing, without times
// and row ids.
func (m *Model) Dump() []string {
	var out []string
	add := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	for _, s := range m.sales {
		add("sale %s %s epoch %d frozen %v version %d", s.ID, s.State, s.Epoch, s.frozen, s.Version)
		for _, it := range s.Items {
			add("item %s %s units %d claimed %d", s.ID, it.SKU, it.Units, s.claimed[it.SKU])
		}
	}
	for id, v := range m.orders {
		add("order %s %s %s %d %d attempt %d stray %v returned %v wished %v hold %v limits %d %d body %d total %d %s %s due %v finished %v",
			v.Sale, id, v.Buyer, v.State, v.Reason, v.Attempt, m.strays[id], v.Returned, v.CancelWished, v.Hold, v.LimitBuyer, v.LimitIdentity,
			int64(v.Body), v.Total, engine.AppendLines(nil, v.Lines), engine.AppendIdentities(nil, v.Identities),
			!v.Due.IsZero(), !v.Finished.IsZero())
	}
	for k, n := range m.used {
		if n != 0 {
			add("used %s %s %d", k.sale, k.key, n)
		}
	}
	for _, row := range m.moves {
		ids := asStrings(row.orders)
		slices.Sort(ids)
		add("move %s op %d done %v taken %d hold %v %s %s", row.sale, row.op, row.done, row.taken, row.hold,
			strings.Join(ids, ","), engine.AppendLines(nil, row.lines))
	}
	for key, r := range m.rejected {
		sale, _, _ := strings.Cut(key, "\x00")
		add("rejected %s %s %s", sale, r.Order, r.Bytes)
	}
	for _, server := range slices.Sorted(maps.Keys(m.servers)) {
		add("server %s %d", server, m.servers[server])
	}
	slices.Sort(out)
	return out
}
