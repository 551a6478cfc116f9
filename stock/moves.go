package stock

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/doorbuster/doorbuster/engine"
)

// maxMovesPerCall bounds one call of a script: about a millisecond of Redis'
// time, which every buyer of the slot waits for.
const maxMovesPerCall = 256

// opOf is the script of each move.
var opOf = map[engine.MoveOp]Op{
	engine.Settle: OpSettle, engine.Release: OpRelease, engine.Drop: OpDrop,
	engine.Return: OpReturn, engine.Restock: OpRestock, engine.Withdraw: OpWithdraw,
}

// Apply carries release rows into the slot, one script call per operation and
// slice of moves. The order in which they are applied does not matter, nor how
// often. taken is parallel to moves: the units that a return, restock or withdraw
// moved, in this call or when it was applied first; 0 for the others.
//
// After an error some moves may have been applied: apply all of them again.
// ErrNoItem if a restock or withdraw names an item the sale has not.
func (s *Store) Apply(ctx context.Context, sale engine.SaleID, g Grip, moves []engine.Move) (taken []int64, err error) {
	taken = make([]int64, len(moves))
	for op := engine.Settle; op <= engine.Withdraw; op++ {
		var at []int
		for i := range moves {
			if moves[i].Op == op {
				at = append(at, i)
			}
		}
		for len(at) > 0 {
			slice := at[:min(len(at), maxMovesPerCall)]
			at = at[len(slice):]
			if err := s.apply(ctx, sale, g, &slicedMoves{op: op, moves: moves, at: slice, taken: taken}); err != nil {
				return nil, fmt.Errorf("%s %d rows in sale %s: %w", op, len(slice), sale, err)
			}
		}
	}
	for i := range moves {
		if _, ok := opOf[moves[i].Op]; !ok {
			return nil, fmt.Errorf("row %d of sale %s: no script for operation %d", moves[i].ID, sale, moves[i].Op)
		}
	}
	return taken, nil
}

// slicedMoves are the moves of one operation for one call.
type slicedMoves struct {
	op    engine.MoveOp
	moves []engine.Move
	at    []int // indexes into moves and taken
	taken []int64
}

func (s *Store) apply(ctx context.Context, sale engine.SaleID, g Grip, m *slicedMoves) error {
	k := keysOf(sale, g.Epoch)
	var keys []string
	columns := []func(*engine.Move) string{orderOf, holdOf, bodyOf}
	switch m.op {
	case engine.Settle:
		keys = []string{k.state, k.records}
	case engine.Release:
		keys = []string{k.state, k.records, k.buyers, k.identities}
	case engine.Drop:
		keys, columns = []string{k.state, k.records, k.buyers, k.identities}, columns[:2]
	case engine.Return:
		keys = []string{k.state, k.records, k.buyers, k.identities, k.rows}
		columns = []func(*engine.Move) string{rowOf, orderOf, holdOf, bodyOf, buyerOf, identitiesOf, linesOf}
	default:
		keys, columns = []string{k.state, k.rows}, []func(*engine.Move) string{rowOf, skuOf, quantityOf}
	}
	args := scriptArgs(keys, 1+len(columns)*len(m.at))
	args = append(args, strconv.Itoa(len(m.at)))
	for _, column := range columns {
		for _, i := range m.at {
			args = append(args, column(&m.moves[i]))
		}
	}
	reply, err := s.eval(ctx, sale, g.SHA[opOf[m.op]], args)
	if err != nil {
		return err
	}
	if m.op == engine.Settle || m.op == engine.Release || m.op == engine.Drop {
		return nil
	}
	counts, _ := reply.([]any)
	if len(counts) != len(m.at) {
		return errors.New("reply is not a count per row")
	}
	for j, i := range m.at {
		m.taken[i], _ = counts[j].(int64)
	}
	return nil
}

// scriptArgs begins the arguments of a script: two places for eval, the keys, the
// format; more is how many will follow.
func scriptArgs(keys []string, more int) []any {
	args := make([]any, 0, 4+len(keys)+more)
	args = append(args, "", "", strconv.Itoa(len(keys)))
	for _, key := range keys {
		args = append(args, key)
	}
	return append(args, argsFormat)
}

func orderOf(m *engine.Move) string      { return string(m.Order) }
func holdOf(m *engine.Move) string       { return m.Hold.String() }
func bodyOf(m *engine.Move) string       { return string(appendBody(nil, m.Body)) }
func buyerOf(m *engine.Move) string      { return string(m.Buyer) }
func identitiesOf(m *engine.Move) string { return string(engine.AppendIdentities(nil, m.Identities)) }
func linesOf(m *engine.Move) string      { return string(engine.AppendLines(nil, m.Lines)) }
func skuOf(m *engine.Move) string        { return string(m.Lines[0].SKU) }
func quantityOf(m *engine.Move) string   { return strconv.FormatInt(m.Lines[0].Quantity, 10) }

// rowOf names what happens once: one row may return several orders, or restock
// several items.
func rowOf(m *engine.Move) string {
	id := strconv.FormatInt(m.ID, 10)
	if m.Op == engine.Return {
		return id + ":" + string(m.Order)
	}
	return id + ":" + skuOf(m)
}

// Prune deletes the tombstones of orders whose replay window is over, and returns
// how many there were. A record that still holds units stays.
func (s *Store) Prune(ctx context.Context, sale engine.SaleID, g Grip, orders []engine.OrderID) (pruned int64, err error) {
	k := keysOf(sale, g.Epoch)
	for len(orders) > 0 {
		slice := orders[:min(len(orders), maxMovesPerCall)]
		orders = orders[len(slice):]
		args := append(scriptArgs([]string{k.state, k.records}, 1+len(slice)), strconv.Itoa(len(slice)))
		for _, id := range slice {
			args = append(args, string(id))
		}
		reply, err := s.eval(ctx, sale, g.SHA[OpPrune], args)
		if err != nil {
			return pruned, fmt.Errorf("prune sale %s: %w", sale, err)
		}
		n, _ := reply.(int64)
		pruned += n
	}
	return pruned, nil
}
