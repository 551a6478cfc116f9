// Package history checks what single buyers were told: whether the answers that
// one buyer of one sale heard, over all of his clients and all doors, could have
// come from an engine that does one thing after another (linearizability, by
// the porcupine library).
//
// [Recorder] notes when a request was sent and when its answer came. [FromLog]
// makes the same of a crowd's client log. [Check] takes either and refuses:
//
//   - a key that gave two orders, or an order under two keys;
//   - a repeat that does not find the order, the hold or the outcome it found
//     before, or that is refused for anything that concerns new orders only;
//   - a changed body that is not refused, a same body that is;
//   - more units than the buyer's limit, or a limit said to be reached that is not;
//   - units of a cancelled order that do not come back, or come back unasked;
//   - an outcome that changes after it was final.
//
// Where a buyer alone asks for an item ([Rules].Stock), stock is checked as
// closely as limits are: units sold twice, sold out while units are there, and
// units of a restock that nobody put in.
//
// Whatever is not known stays open: a request without an answer, or with one
// that leaves it open, may take effect at any time after it was sent, or never;
// orders are settled and released some time after they ended.
//
// Not seen here: other buyers. Totals over buyers are the laws of engine/audit.
//
// It imports engine and engine/audit (the client log's form), never a package
// that serves.
package history
