package engine

// MoveOp is what a release row does to the stock in Redis. Numbers are stored;
// never renumber.
type MoveOp int16

// The operations. Their scripts end the same in whatever order, and however
// often, the rows are applied.
const (
	Settle   MoveOp = 1 // confirmed: held → sold, the record becomes a tombstone
	Release  MoveOp = 2 // cancelled: held → available, the record becomes a tombstone
	Drop     MoveOp = 3 // a foreign hold of a known order: as Release, but its record is deleted
	Return   MoveOp = 4 // a confirmed order came back: sold → available, once per row id
	Restock  MoveOp = 5 // units added, once per row id
	Withdraw MoveOp = 6 // unsold units taken out: min(n, available), once per row id
)

// String names the operation.
func (op MoveOp) String() string {
	names := [...]string{"", "settle", "release", "drop", "return", "restock", "withdraw"}
	if op < 0 || int(op) >= len(names) {
		return "unknown"
	}
	return names[op]
}

// Move is a release row: the change of stock that PostgreSQL decided and Redis
// must follow. Order, Hold, Buyer and Identities are empty for Restock and
// Withdraw, whose Lines carry one SKU and quantity.
type Move struct {
	ID         int64 // row id, unique over all sales
	Sale       SaleID
	Op         MoveOp
	Order      OrderID
	Hold       Hold
	Buyer      BuyerID
	Identities []Identity
	Lines      []Line
	Body       uint64 // body hash of the order, for its tombstone
}
