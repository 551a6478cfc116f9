package stock

import (
	"context"
	"errors"

	"github.com/redis/go-redis/v9"

	"github.com/doorbuster/doorbuster/engine"
)

// Errors of the store. Whenever one of them is returned, nothing was written.
var (
	// ErrFenced says that the keys or scripts a Grip names are not the ones in
	// use: Redis restarted (NOSCRIPT), another epoch or incarnation, frozen, or
	// no state. Read the watch again; recovery heals the sale.
	ErrFenced = errors.New("stock: fenced")
	// ErrStale says that the definition in the slot is of another version than
	// the Grip's. Read the watch again and repeat.
	ErrStale = errors.New("stock: definition of another version")
	// ErrNoSale says that the slot knows no such sale.
	ErrNoSale = errors.New("stock: no such sale")
	// ErrNoItem says that a restock or withdraw names a SKU the sale has not.
	ErrNoItem = errors.New("stock: no such item")
)

// Grip is what a caller must hold to call a script of a sale: read it with
// Store.Watch. A script refuses the call when the grip is not the one in use.
type Grip struct {
	Epoch       int64
	Incarnation int64
	Version     int64 // of the definition
	SHA         SHAs
}

// Item is one SKU of a sale as the slot knows it.
type Item struct {
	SKU                          engine.SKU
	Price                        int64 // minor units each
	Units, Available, Held, Sold int64 // Units = Available + Held + Sold
}

// Watch is what the slot says about a sale at one moment.
type Watch struct {
	Grip
	Heartbeat          int64            // rises while recovery leads and PostgreSQL confirms the epoch
	State              engine.SaleState // SaleOpen, SalePaused or SaleClosed
	Frozen             bool             // a rebuild has begun: every script refuses
	Opens, Closes, Now int64            // Unix milliseconds; Now by Redis' TIME
	Currency           string           // ISO 4217
	LimitBuyer         int64            // units; 0 is none
	LimitIdentity      int64            // units; 0 is none
	Seq                int64            // the last hold given out in this epoch
	Lag                int64            // milliseconds the ingest is behind
	Items              []Item           // by SKU
}

// Verdict is what was decided about one basket.
type Verdict struct {
	Outcome       engine.Outcome
	Hold          engine.Hold // accepted and replayed
	LimitBuyer    int64       // in force for an accepted basket: the smaller of the sale's and Basket.Max
	LimitIdentity int64
	// Record is set for replays and mismatches: what stands under the order id.
	Record engine.Record
	// Unpublished says, of a replay that is still held, that the outbox entry
	// Record.Entry is still there: publish it again. If Record.Entry is
	// Decision.First, the order was taken in this very call (its id came twice)
	// and goes out with it.
	Unpublished bool
	// MayReturn says, of a basket sold out, that the missing units are held and
	// not yet sold.
	MayReturn bool
}

// Decision is what one call of Reserve decided. The zero value is ready; reuse it
// from call to call to save its buffers. Not safe for concurrent use.
type Decision struct {
	At       int64     // Unix milliseconds by Redis' TIME
	First    int64     // first seq of the call, the id of its outbox entry; 0: nothing was accepted
	Verdicts []Verdict // one per basket, in order

	call call
}

// Entry is one entry of the outbox: an envelope not yet known to be confirmed.
type Entry struct {
	ID   int64  // first seq of the call
	At   int64  // Unix milliseconds of the accept
	Body []byte // engine.Envelope
}

// LiveOrder is an order that claims units at a cut.
type LiveOrder struct {
	engine.Order
	Settled  bool  // confirmed: its units are sold, not held
	Finished int64 // Unix seconds, if settled
}

// Tombstone is a finished order whose repeat Redis still answers.
type Tombstone struct {
	Order    engine.OrderID
	Hold     engine.Hold
	Body     uint64             // hash of what was asked
	State    engine.RecordState // RecordSettled or RecordReleased
	Finished int64              // Unix seconds
}

// Image is everything from which Build makes the keys of an epoch.
type Image struct {
	Sale        engine.Sale // definition, state, and Items.Units
	Epoch       int64       // the epoch to build
	Incarnation int64       // of the scripts that will serve it
	Live        []LiveOrder
	Tombstones  []Tombstone
}

// Server names the process that serves a sale's slot.
type Server struct {
	RunID  string // changes with each start
	ReplID string // changes with each failover
}

// Counter is one counter of units.
type Counter struct {
	Buyer    engine.BuyerID  // of a counter per buyer
	Identity engine.Identity // of a counter per identity
	Units    int64
	Orders   int64 // live orders; counters per buyer only
}

// Store is the Go face of the scripts. Safe for use by many goroutines.
type Store struct {
	rdb redis.UniversalClient
}

// New returns a store over the client; use Open for one with the right options.
// The caller closes it.
func New(rdb redis.UniversalClient) *Store { return &Store{rdb: rdb} }

var errTODO = errors.New("stock: not written yet")

type call struct{}

// Op is one operation, one script.
type Op int

// The operations.
const (
	OpReserve Op = iota
	OpSettle
	OpRelease
	OpDrop
	OpReturn
	OpRestock
	OpWithdraw
	OpPrune
	OpState
	OpDefine
	OpLag
	NumOps
)

// SHAs are the SHA-1 of the scripts in use, by Op.
type SHAs [NumOps]string

// Open connects to Redis.
func Open(url string) (redis.UniversalClient, error) { return nil, errTODO }

// Watch reads the sale.
func (s *Store) Watch(ctx context.Context, sale engine.SaleID, epoch int64) (Watch, error) {
	return Watch{}, errTODO
}

// Reserve decides a group.
func (s *Store) Reserve(ctx context.Context, sale engine.SaleID, g Grip, baskets []engine.Basket, d *Decision) error {
	return errTODO
}

// Retake is Reserve for orders that were accepted before: neither window, state nor price count.
func (s *Store) Retake(ctx context.Context, sale engine.SaleID, g Grip, baskets []engine.Basket, d *Decision) error {
	return errTODO
}

// Mark deletes outbox entries.
func (s *Store) Mark(ctx context.Context, sale engine.SaleID, epoch int64, entries []int64) error {
	return errTODO
}

// Outbox reads the oldest entries.
func (s *Store) Outbox(ctx context.Context, sale engine.SaleID, epoch int64, limit int) (entries []Entry, length int64, err error) {
	return nil, 0, errTODO
}

// Apply applies moves.
func (s *Store) Apply(ctx context.Context, sale engine.SaleID, g Grip, moves []engine.Move) (taken []int64, err error) {
	return nil, errTODO
}

// Record reads one record.
func (s *Store) Record(ctx context.Context, sale engine.SaleID, order engine.OrderID) (engine.Record, bool, error) {
	return engine.Record{}, false, errTODO
}

// Records reads a slice of the records.
func (s *Store) Records(ctx context.Context, sale engine.SaleID, epoch int64, cursor uint64) (recs []engine.Record, next uint64, err error) {
	return nil, 0, errTODO
}

// BuyerCounters reads a slice of the counters per buyer.
func (s *Store) BuyerCounters(ctx context.Context, sale engine.SaleID, epoch int64, cursor uint64) (counters []Counter, next uint64, err error) {
	return nil, 0, errTODO
}

// IdentityCounters reads a slice of the counters per identity.
func (s *Store) IdentityCounters(ctx context.Context, sale engine.SaleID, epoch int64, cursor uint64) (counters []Counter, next uint64, err error) {
	return nil, 0, errTODO
}

// Prune deletes tombstones.
func (s *Store) Prune(ctx context.Context, sale engine.SaleID, g Grip, orders []engine.OrderID) (int64, error) {
	return 0, errTODO
}

// SetState sets the state.
func (s *Store) SetState(ctx context.Context, sale engine.SaleID, g Grip, state engine.SaleState) error {
	return errTODO
}

// Redefine sets the definition.
func (s *Store) Redefine(ctx context.Context, sale engine.SaleID, g Grip, def engine.Sale) error {
	return errTODO
}

// SetLag sets the lag.
func (s *Store) SetLag(ctx context.Context, sale engine.SaleID, g Grip, ms int64) error {
	return errTODO
}

// Build writes the keys of an epoch.
func (s *Store) Build(ctx context.Context, img Image) error { return errTODO }

// Freeze makes every script refuse.
func (s *Store) Freeze(ctx context.Context, sale engine.SaleID, epoch int64) error { return errTODO }

// Beat raises the heartbeat.
func (s *Store) Beat(ctx context.Context, sale engine.SaleID, epoch int64) error { return errTODO }

// Loaded tells whether the scripts are there.
func (s *Store) Loaded(ctx context.Context, sale engine.SaleID, incarnation int64) (bool, error) {
	return false, errTODO
}

// Load loads the scripts.
func (s *Store) Load(ctx context.Context, sale engine.SaleID, incarnation int64) error {
	return errTODO
}

// Server names the server of the slot.
func (s *Store) Server(ctx context.Context, sale engine.SaleID) (Server, error) {
	return Server{}, errTODO
}

// Epochs lists the epochs that have keys.
func (s *Store) Epochs(ctx context.Context, sale engine.SaleID) ([]int64, error) {
	return nil, errTODO
}

// DropEpoch deletes the keys of an epoch below the one in use.
func (s *Store) DropEpoch(ctx context.Context, sale engine.SaleID, epoch int64) error {
	return errTODO
}
