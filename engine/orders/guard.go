package orders

import (
	"cmp"
	"context"
	"encoding/hex"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/doorbuster/doorbuster/engine"
)

// The guards: claimed + n <= units per SKU, used + n <= allowed per buyer and
// identity. A batch is first tried as a whole; only if that fails is each of its
// orders judged by itself, in the order of their holds.

// demand is what a batch of orders asks for in all, or gives back: sorted, for
// that is the lock order.
type demand struct {
	skus  []skuUnits
	keys  []string
	units []int64 // per key
	most  []int64 // per key: the tightest limit among the orders; 0 is none
}

type skuUnits struct {
	sku engine.SKU
	n   int64
}

// counterKey names the counter of a buyer; identityKey that of an identity.
func counterKey(b engine.BuyerID) string    { return "b:" + string(b) }
func identityKey(id engine.Identity) string { return "i:" + hex.EncodeToString(id[:]) }
func tighter(a, b int64) int64 {
	if a == 0 || b == 0 {
		return max(a, b)
	}
	return min(a, b)
}

type keyUnits struct {
	key     string
	n, most int64
}

// demandOf adds up what orders ask for. It is pure.
func demandOf(orders []*engine.Order) demand {
	var d demand
	keys := make([]keyUnits, 0, 2*len(orders))
	at := make(map[engine.SKU]int, 4)
	for _, o := range orders {
		n := engine.Units(o.Lines)
		keys = append(keys, keyUnits{counterKey(o.Buyer), n, o.LimitBuyer})
		for _, id := range o.Identities {
			keys = append(keys, keyUnits{identityKey(id), n, o.LimitIdentity})
		}
		for _, l := range o.Lines {
			i, ok := at[l.SKU]
			if !ok {
				i = len(d.skus)
				at[l.SKU] = i
				d.skus = append(d.skus, skuUnits{sku: l.SKU})
			}
			d.skus[i].n += l.Quantity
		}
	}
	slices.SortFunc(d.skus, func(a, b skuUnits) int { return cmp.Compare(a.sku, b.sku) })
	slices.SortFunc(keys, func(a, b keyUnits) int { return cmp.Compare(a.key, b.key) })
	d.keys, d.units, d.most = make([]string, 0, len(keys)), make([]int64, 0, len(keys)), make([]int64, 0, len(keys))
	for i, k := range keys {
		if i > 0 && k.key == keys[i-1].key {
			last := len(d.keys) - 1
			d.units[last] += k.n
			d.most[last] = tighter(d.most[last], k.most)
			continue
		}
		d.keys, d.units, d.most = append(d.keys, k.key), append(d.units, k.n), append(d.most, k.most)
	}
	return d
}

const claimItem = `UPDATE items SET claimed = claimed + $3 WHERE sale_no = $1 AND sku = $2 AND claimed + $3 <= units`

// A key that is not there yet starts at what is asked, so its limit is tested
// before the insert; one that is there is tested by the update.
const raiseCounters = `INSERT INTO counters AS c (sale_no, key, used, allowed)
	SELECT $1, u.* FROM unnest($2::text[], $3::bigint[], $4::bigint[]) AS u(key, n, most) WHERE u.most = 0 OR u.n <= u.most
	ON CONFLICT (sale_no, key) DO UPDATE SET used = c.used + excluded.used, allowed = excluded.allowed
	WHERE excluded.allowed = 0 OR c.used + excluded.used <= excluded.allowed`

// newCounters fails on a key that is there.
const newCounters = `INSERT INTO counters (sale_no, key, used, allowed)
	SELECT $1, u.* FROM unnest($2::text[], $3::bigint[], $4::bigint[]) AS u(key, n, most) WHERE u.most = 0 OR u.n <= u.most`

// claimAll claims what the batch demands, and tells whether the guards let all
// of it through. If not, the transaction is to be rolled back.
func claimAll(ctx context.Context, tx pgx.Tx, raise string, no int32, d demand) (bool, error) {
	var b pgx.Batch
	for _, s := range d.skus {
		b.Queue(claimItem, no, s.sku, s.n)
	}
	b.Queue(raise, no, d.keys, d.units, d.most)
	res := tx.SendBatch(ctx, &b)
	defer func() { _ = res.Close() }()
	for range d.skus {
		tag, err := res.Exec()
		if err != nil {
			return false, err
		}
		if tag.RowsAffected() != 1 {
			return false, nil
		}
	}
	tag, err := res.Exec()
	if err != nil {
		return false, err
	}
	if tag.RowsAffected() != int64(len(d.keys)) {
		return false, nil
	}
	return true, res.Close()
}

// giveBack takes back what cancelled or returned orders had claimed.
func giveBack(ctx context.Context, tx pgx.Tx, no int32, orders []*engine.Order) error {
	if len(orders) == 0 {
		return nil
	}
	d := demandOf(orders)
	var b pgx.Batch
	for _, s := range d.skus {
		b.Queue(`UPDATE items SET claimed = claimed - $3 WHERE sale_no = $1 AND sku = $2`, no, s.sku, s.n)
	}
	b.Queue(`UPDATE counters c SET used = c.used - u.n FROM unnest($2::text[], $3::bigint[]) AS u(key, n)
		WHERE c.sale_no = $1 AND c.key = u.key`, no, d.keys, d.units)
	return tx.SendBatch(ctx, &b).Close()
}

// guard claims for orders that were just written, and cancels those for which
// nothing is left.
func (in *ingestion) guard(ctx context.Context, fresh []*Arrival) error {
	if len(fresh) == 0 {
		return nil
	}
	orders := make([]*engine.Order, len(fresh))
	for i, a := range fresh {
		orders[i] = &a.Order
	}
	if in.mode != careful {
		raise := raiseCounters
		if in.mode == hopeful {
			raise = newCounters
		}
		ok, err := claimAll(ctx, in.tx, raise, in.sale.no, demandOf(orders))
		if err != nil {
			return err
		}
		if !ok {
			return errGuard
		}
		in.open(orders)
		return nil
	}
	st, err := in.lockStand(ctx, demandOf(orders))
	if err != nil {
		return err
	}
	slices.SortStableFunc(orders, func(a, b *engine.Order) int {
		return cmp.Or(compareHolds(a.Hold, b.Hold), cmp.Compare(a.Order, b.Order))
	})
	won, lost, err := st.judge(orders)
	if err != nil {
		return err
	}
	if err := in.cancelLosers(ctx, lost); err != nil {
		return err
	}
	in.open(won)
	if len(won) == 0 {
		return nil
	}
	d := demandOf(won)
	clear(d.most) // judged already, each by its own limit
	ok, err := claimAll(ctx, in.tx, raiseCounters, in.sale.no, d)
	if err == nil && !ok {
		err = fmt.Errorf("%d orders judged good cannot be claimed for: %w", len(won), errGuard)
	}
	return err
}

// open notes orders that are new and wait for payment.
func (in *ingestion) open(orders []*engine.Order) {
	for _, o := range orders {
		in.due = append(in.due, o.Order)
		if !in.claims() {
			in.rep.Reserved = append(in.rep.Reserved, o.Order)
			continue
		}
		in.rep.Claimed = append(in.rep.Claimed, in.sale.payable(o.Order, o.Buyer, o.Total, 1))
	}
}

type loser struct {
	order  engine.OrderID
	reason engine.Reason
}

// cancelLosers ends orders that were just written, before they claimed.
func (in *ingestion) cancelLosers(ctx context.Context, lost []loser) error {
	if len(lost) == 0 {
		return nil
	}
	ids, reasons := make([]string, len(lost)), make([]int16, len(lost))
	for i, l := range lost {
		ids[i], reasons[i] = string(l.order), int16(l.reason)
		in.ended = append(in.ended, l.order)
	}
	in.rep.Cancelled += len(lost)
	_, err := in.tx.Exec(ctx, `UPDATE orders o SET state = $3, reason = u.reason, attempt = 0, due_at = NULL, finished_at = now()
		FROM unnest($1::text[], $2::smallint[]) AS u(id, reason) WHERE o.id = u.id`, ids, reasons, engine.Cancelled)
	return err
}

// stand is how much of what a batch demands is taken, locked until the
// transaction ends.
type stand struct {
	units, claimed map[engine.SKU]int64
	used           map[string]int64
}

func (in *ingestion) lockStand(ctx context.Context, d demand) (*stand, error) {
	st := &stand{units: map[engine.SKU]int64{}, claimed: map[engine.SKU]int64{}, used: map[string]int64{}}
	skus := make([]string, len(d.skus))
	for i, s := range d.skus {
		skus[i] = string(s.sku)
	}
	rows, err := in.tx.Query(ctx, `SELECT sku, units, claimed FROM items WHERE sale_no = $1 AND sku = ANY($2)
		ORDER BY sku FOR UPDATE`, in.sale.no, skus)
	if err != nil {
		return nil, err
	}
	var sku engine.SKU
	var units, n int64
	if _, err = pgx.ForEachRow(rows, []any{&sku, &units, &n}, func() error {
		st.units[sku], st.claimed[sku] = units, n
		return nil
	}); err != nil {
		return nil, err
	}
	if _, err = in.tx.Exec(ctx, `INSERT INTO counters (sale_no, key, used, allowed) SELECT $1, u.*, 0, 0 FROM unnest($2::text[]) AS u
		ON CONFLICT DO NOTHING`, in.sale.no, d.keys); err != nil {
		return nil, err
	}
	rows, err = in.tx.Query(ctx, `SELECT key, used FROM counters WHERE sale_no = $1 AND key = ANY($2) ORDER BY key FOR UPDATE`,
		in.sale.no, d.keys)
	if err != nil {
		return nil, err
	}
	var key string
	_, err = pgx.ForEachRow(rows, []any{&key, &n}, func() error {
		st.used[key] = n
		return nil
	})
	return st, err
}

// judge decides order by order, each basket all or none, and keeps count in st.
// It is pure. A SKU the sale has not makes the order one that cannot be written:
// the stock never accepts such a basket.
func (st *stand) judge(orders []*engine.Order) (won []*engine.Order, lost []loser, err error) {
	for _, o := range orders {
		reason := engine.NoReason
		for _, l := range o.Lines {
			units, ok := st.units[l.SKU]
			if !ok {
				return nil, nil, fmt.Errorf("order %s: sku %s: %w: %w", o.Order, l.SKU, ErrNotWritable, ErrNoSKU)
			}
			if st.claimed[l.SKU]+l.Quantity > units {
				reason = engine.ReasonSoldOut
			}
		}
		n := engine.Units(o.Lines)
		if reason == engine.NoReason && !st.allows(o, n) {
			reason = engine.ReasonLimit
		}
		if reason != engine.NoReason {
			lost = append(lost, loser{o.Order, reason})
			continue
		}
		st.take(o, 1)
		won = append(won, o)
	}
	return won, lost, nil
}

func (st *stand) allows(o *engine.Order, n int64) bool {
	if o.LimitBuyer > 0 && st.used[counterKey(o.Buyer)]+n > o.LimitBuyer {
		return false
	}
	for _, id := range o.Identities {
		if o.LimitIdentity > 0 && st.used[identityKey(id)]+n > o.LimitIdentity {
			return false
		}
	}
	return true
}

// take counts the order's units, or uncounts them if sign is -1.
func (st *stand) take(o *engine.Order, sign int64) {
	n := sign * engine.Units(o.Lines)
	for _, l := range o.Lines {
		st.claimed[l.SKU] += sign * l.Quantity
	}
	st.used[counterKey(o.Buyer)] += n
	for _, id := range o.Identities {
		st.used[identityKey(id)] += n
	}
}
