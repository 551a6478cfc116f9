package orders

import (
	"context"

	"github.com/doorbuster/doorbuster/engine"
)

// Image is a sale at one cut: what the Redis keys of its new epoch are made of.
type Image struct {
	Sale       engine.Sale // of the new epoch; Items[i].Units is for sale in all
	Live       []LiveOrder // every order that claims units
	Tombstones []Tombstone // finished ones that claim none, while the sale's replay window lasts
	Covered    int64       // release rows that the image contains
}

// LiveOrder is an order that claims units.
type LiveOrder struct {
	engine.Order
	Settled bool // confirmed: sold, not held
}

// Tombstone is a finished order whose units are back.
type Tombstone struct {
	Order    engine.OrderID
	Hold     engine.Hold
	Body     uint64
	Settled  bool  // confirmed and returned; else cancelled
	Finished int64 // Unix seconds
}

// Freeze marks the sale as frozen if its epoch is still that one. False if it
// is not.
func (s *Store) Freeze(ctx context.Context, sale engine.SaleID, epoch int64) (bool, error) {
	return false, errTODO
}

// Cut moves the sale from epoch to epoch+1, still frozen, and reads it, in one
// transaction that has the sale to itself. ErrEpochMoved if another leader was
// faster.
func (s *Store) Cut(ctx context.Context, sale engine.SaleID, epoch int64) (Image, error) {
	return Image{}, errTODO
}

// Unfreeze lets the sale go on in that epoch. False if its epoch is another.
func (s *Store) Unfreeze(ctx context.Context, sale engine.SaleID, epoch int64) (bool, error) {
	return false, errTODO
}

// Incarnation returns the incarnation number of a Redis server; a server not
// seen before gets one. No two servers have the same number.
func (s *Store) Incarnation(ctx context.Context, server string) (int64, error) { return 0, errTODO }

// RaiseIncarnation gives the server a new number, if it still has number from,
// and returns the number it has now.
func (s *Store) RaiseIncarnation(ctx context.Context, server string, from int64) (int64, error) {
	return 0, errTODO
}

// MarkMarker notes that a worker has met the marker message with this nonce.
func (s *Store) MarkMarker(ctx context.Context, nonce string) error { return errTODO }

// SeenMarker tells whether some worker has met it.
func (s *Store) SeenMarker(ctx context.Context, nonce string) (bool, error) { return false, errTODO }

// Leader holds the session locks of the sales it leads, all on one connection of
// its own. If that connection is lost, so are the locks, unnoticed until the next
// TryLead: that is why the epoch is compared and set as well. For one goroutine.
type Leader struct{ s *Store }

// Leader returns a leader of no sale.
func (s *Store) Leader() *Leader { return &Leader{s: s} }

// TryLead tells whether this leader leads the sale, taking the lead if it is
// free. Ask before every step: it goes to the server.
func (l *Leader) TryLead(ctx context.Context, sale engine.SaleID) (bool, error) {
	return false, errTODO
}

// Resign gives the lead of one sale up.
func (l *Leader) Resign(ctx context.Context, sale engine.SaleID) error { return errTODO }

// Close gives up every lead, and the connection.
func (l *Leader) Close() {}
