package stock

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/redis/go-redis/v9"

	"github.com/doorbuster/doorbuster/engine"
	"github.com/doorbuster/doorbuster/engine/failpoint"
)

// LiveOrder is an order that claims units at a cut.
type LiveOrder struct {
	engine.Order
	Settled  bool  // confirmed: its units are sold, not held
	Finished int64 // Unix seconds; settled ones only
}

// Tombstone is a finished order without units whose repeat Redis still answers.
type Tombstone struct {
	Order    engine.OrderID
	Hold     engine.Hold
	Body     uint64             // hash of what was asked
	State    engine.RecordState // RecordSettled or RecordReleased
	Finished int64              // Unix seconds
}

// Image is everything from which Build makes the keys of an epoch: a sale as
// PostgreSQL knows it at one cut.
type Image struct {
	Sale        engine.Sale // definition, state, and Items.Units
	Epoch       int64       // to build
	Incarnation int64       // of the scripts that will serve it
	Live        []LiveOrder
	Tombstones  []Tombstone
}

// Server names the process that serves a sale's slot.
type Server struct {
	RunID  string // changes with each start
	ReplID string // changes with each failover
}

// Name tells this life of the server from all others: one that was replaced and is
// back has the same process, and its scripts, and other data.
func (s *Server) Name() string { return s.RunID + " " + s.ReplID }

const (
	buildSlice = 500 // fields that one HSET of Build writes: a millisecond of Redis' time, shared with other sales
	buildLanes = 3   // of them at once: while Redis works on one, the others are put into bytes
)

// Build writes the keys of img.Epoch in slices, the state hash last, and then
// moves the pointer there, upward only. Keys of the epoch that an earlier try
// left are deleted first; the epoch before stays. A new sale is built the same
// way, with no orders.
//
// ErrFenced if the pointer is at this epoch or above already, or if the server
// restarted or changed meanwhile; then the epoch must not be unfrozen. It calls
// no script: they are loaded after it.
func (s *Store) Build(ctx context.Context, img Image) error {
	h, err := hashesOf(&img)
	if err == nil {
		err = s.on(ctx, img.Sale.ID, func(c *redis.Client) error { return build(ctx, c, &img, h) })
	}
	if err != nil {
		return fmt.Errorf("build epoch %d of sale %s: %w", img.Epoch, img.Sale.ID, err)
	}
	return nil
}

func build(ctx context.Context, c *redis.Client, img *Image, h *hashes) error {
	before, err := serverOf(ctx, c)
	if err != nil {
		return err
	}
	if img.Sale.Mode == engine.ModeDurable {
		safety, err := safetyOf(ctx, c)
		if err != nil {
			return err
		}
		h.state = append(h.state, fieldSafety, safety.String())
	}
	pointer, k := pointerKey(img.Sale.ID), keysOf(img.Sale.ID, img.Epoch)
	if err := below(ctx, c, pointer, img.Epoch); err != nil {
		return err
	}
	pipe := c.Pipeline()
	pipe.HSet(ctx, pointer, fieldHas+strconv.FormatInt(img.Epoch, 10), 1)
	pipe.Unlink(ctx, k.all()...)
	if _, err := pipe.Exec(ctx); err != nil {
		return err
	}
	if err := fill(ctx, c, []fields{{k.records, h.records}, {k.buyers, h.buyers}, {k.identities, h.identities}}); err != nil {
		return err
	}
	failpoint.Hit("recovery/after-keys")
	if err := fill(ctx, c, []fields{{k.state, h.state}}); err != nil {
		return err
	}
	after, err := serverOf(ctx, c)
	if err != nil {
		return err
	}
	if after != before {
		return fmt.Errorf("%w: the server restarted while the keys were written", ErrFenced)
	}
	return c.Watch(ctx, func(tx *redis.Tx) error {
		if err := below(ctx, tx, pointer, img.Epoch); err != nil {
			return err
		}
		_, err := tx.TxPipelined(ctx, func(p redis.Pipeliner) error {
			p.HSet(ctx, pointer, fieldEpoch, img.Epoch)
			return nil
		})
		if errors.Is(err, redis.TxFailedErr) {
			return fmt.Errorf("%w: somebody else moved the pointer", ErrFenced)
		}
		return err
	}, pointer)
}

// fields are of one hash, with their values, in turn.
type fields struct {
	key   string
	pairs []string
}

// fill writes hashes in slices, some at once, and returns when all are written or one
// failed and none is under way any more.
func fill(ctx context.Context, c *redis.Client, all []fields) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	jobs := make(chan fields)
	var lanes sync.WaitGroup
	for range buildLanes {
		lanes.Go(func() {
			for f := range jobs {
				if ctx.Err() != nil {
					continue
				}
				if err := c.HSet(ctx, f.key, f.pairs).Err(); err != nil {
					cancel(err)
				}
			}
		})
	}
	for _, f := range all {
		for slice := range slices.Chunk(f.pairs, 2*buildSlice) {
			jobs <- fields{f.key, slice}
		}
	}
	close(jobs)
	lanes.Wait()
	return context.Cause(ctx)
}

// below makes sure that the pointer is below the epoch, or not there yet.
func below(ctx context.Context, c redis.Cmdable, pointer string, epoch int64) error {
	at, err := c.HGet(ctx, pointer, fieldEpoch).Int64()
	if err != nil && !errors.Is(err, redis.Nil) {
		return err
	}
	if at >= epoch {
		return fmt.Errorf("%w: the pointer is at epoch %d", ErrFenced, at)
	}
	return nil
}

// hashes are the fields and values of an epoch's keys, in turn.
type hashes struct{ state, records, buyers, identities []string }

// hashesOf renders an image. It refuses one whose orders claim more units of an
// item than there are, or an item the sale has not: PostgreSQL cannot hold such.
func hashesOf(img *Image) (*hashes, error) {
	// Room for all: slices and maps that grow are copied again and again.
	h := &hashes{records: make([]string, 0, 2*(len(img.Live)+len(img.Tombstones)))}
	buyers, identities := make(map[string]int64, len(img.Live)), map[string]int64{}
	var text []byte
	heldOf, soldOf := map[engine.SKU]int64{}, map[engine.SKU]int64{}
	for i := range img.Live {
		o := &img.Live[i]
		r := engine.Record{State: engine.RecordHeld, Order: o.Order}
		into := heldOf
		if o.Settled {
			r.State, r.Finished, into = engine.RecordSettled, o.Finished, soldOf
		}
		n := engine.Units(o.Lines)
		for _, l := range o.Lines {
			into[l.SKU] += l.Quantity
		}
		buyers[string(o.Buyer)] += perUnit*n + perOrder
		for _, id := range o.Identities {
			identities[string(id[:])] += n
		}
		text = engine.AppendRecord(text[:0], &r)
		h.records = append(h.records, string(o.Order.Order), string(text))
	}
	for i := range img.Tombstones {
		t := &img.Tombstones[i]
		r := engine.Record{State: t.State, Finished: t.Finished}
		r.Order.Hold, r.Order.Body = t.Hold, t.Body
		text = engine.AppendRecord(text[:0], &r)
		h.records = append(h.records, string(t.Order), string(text))
	}
	h.buyers, h.identities = pairs(buyers), pairs(identities)
	return h, h.define(img, heldOf, soldOf)
}

// define writes the state hash.
func (h *hashes) define(img *Image, heldOf, soldOf map[engine.SKU]int64) error {
	sale, shas := &img.Sale, ScriptSHAs(img.Incarnation)
	state := slotState(sale.State)
	if state == "" {
		return fmt.Errorf("a sale of state %q has no keys", sale.State)
	}
	h.state = []string{fieldState, state, fieldCurrency, sale.Currency, fieldSHA, shas.String()}
	number := func(field string, n int64) { h.state = append(h.state, field, strconv.FormatInt(n, 10)) }
	for field, n := range map[string]int64{
		fieldInc: img.Incarnation, fieldVersion: sale.Version, fieldOpens: sale.Opens.UnixMilli(), fieldCloses: sale.Closes.UnixMilli(),
		fieldLimit: sale.LimitPerBuyer, fieldIdentity: sale.LimitPerIdentity, fieldKey: int64(sale.KeyNumber), fieldSeq: 0, fieldHeartbeat: 0, fieldLag: 0,
	} {
		number(field, n)
	}
	for i := range sale.Items {
		it := &sale.Items[i]
		sku, left := string(it.SKU), it.Units-heldOf[it.SKU]-soldOf[it.SKU]
		if left < 0 {
			return fmt.Errorf("item %s: %d held and %d sold of %d units", sku, heldOf[it.SKU], soldOf[it.SKU], it.Units)
		}
		number(available+sku, left)
		number(held+sku, heldOf[it.SKU])
		number(sold+sku, soldOf[it.SKU])
		number(units+sku, it.Units)
		number(price+sku, it.Price)
		delete(heldOf, it.SKU)
		delete(soldOf, it.SKU)
	}
	for sku := range heldOf {
		return fmt.Errorf("an order holds item %s, which the sale has not", sku)
	}
	for sku := range soldOf {
		return fmt.Errorf("an order bought item %s, which the sale has not", sku)
	}
	return nil
}

func pairs(counts map[string]int64) []string {
	out := make([]string, 0, 2*len(counts))
	for name, n := range counts {
		out = append(out, name, strconv.FormatInt(n, 10))
	}
	return out
}

// Server names the process that is master of the sale's slot.
func (s *Store) Server(ctx context.Context, sale engine.SaleID) (srv Server, err error) {
	err = s.on(ctx, sale, func(c *redis.Client) (err error) {
		srv, err = serverOf(ctx, c)
		return err
	})
	if err != nil {
		return Server{}, fmt.Errorf("server of sale %s: %w", sale, err)
	}
	return srv, nil
}

func serverOf(ctx context.Context, c redis.Cmdable) (Server, error) {
	pipe := c.Pipeline()
	server, replication := pipe.Info(ctx, "server"), pipe.Info(ctx, "replication")
	if _, err := pipe.Exec(ctx); err != nil {
		return Server{}, err
	}
	return Server{RunID: infoField(server.Val(), "run_id"), ReplID: infoField(replication.Val(), "master_replid")}, nil
}

func infoField(info, name string) string {
	for line := range strings.SplitSeq(info, "\r\n") {
		if value, ok := strings.CutPrefix(line, name+":"); ok {
			return value
		}
	}
	return ""
}
