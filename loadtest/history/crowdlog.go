package history

import (
	"io"

	"github.com/doorbuster/doorbuster/engine"
	"github.com/doorbuster/doorbuster/engine/audit"
)

// FromLog reads a crowd's client log (see audit.Answer) into the history of its
// buyers.
//
// A buyer of a crowd asks one thing at a time, so the order of his lines is the
// order in which he asked, and a request was sent after the answer before it. The
// log does not say which requests said that they are repeats, but a crowd keeps to
// the protocol: those after an answer that was not final, or that was an order.
func FromLog(sale engine.SaleID, log io.Reader) ([]Op, error) {
	var ops []Op
	repeat := make(map[engine.BuyerID]bool)
	err := audit.ReadLog(log, func(a audit.Answer) error {
		at := int64(len(ops))
		ops = append(ops, Op{
			Who: Who{Sale: sale, Buyer: a.Buyer}, Call: 2 * at, Return: 2*at + 1, // calls lie beside answers: only their order is known
			Input:  Input{Ask: Order, Key: a.Key, Body: a.Body, Units: engine.Units(a.Lines), Repeat: repeat[a.Buyer]},
			Output: Output{Status: a.Status, Type: a.Type, Order: a.Order, Replayed: a.Replayed},
		})
		repeat[a.Buyer] = a.Status < 300 || a.Status >= 500 || a.Status == 429
		return nil
	})
	return ops, err
}
