package orders

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/doorbuster/doorbuster/engine"
	"github.com/doorbuster/doorbuster/engine/postgres"
)

// Status is what PostgreSQL knows of a sale beside its definition.
type Status struct {
	Frozen  bool      // a rebuild is under way: moves may not be marked
	Since   time.Time // when it came to its state, or was last told to stay paused, UTC
	Claimed []Claimed // in the order of Sale.Items
	Now     time.Time // PostgreSQL's clock, UTC
}

// Claimed are the units of one SKU that live orders hold.
type Claimed struct {
	SKU   engine.SKU
	Units int64
}

// saleInfo is what never changes about a sale, and so may be remembered.
type saleInfo struct {
	no       int32
	id       engine.SaleID
	currency string
	provider string
	payment  engine.PaymentKind
}

func (s *Store) info(ctx context.Context, sale engine.SaleID) (saleInfo, error) {
	if v, ok := s.infos.Load(sale); ok {
		return v.(saleInfo), nil
	}
	in := saleInfo{id: sale}
	err := s.pool.QueryRow(ctx, `SELECT no, currency, provider, payment FROM sales WHERE id = $1`, sale).
		Scan(&in.no, &in.currency, &in.provider, &in.payment)
	if errors.Is(err, pgx.ErrNoRows) {
		return saleInfo{}, fmt.Errorf("sale %s: %w", sale, ErrNoSale)
	}
	if err != nil {
		return saleInfo{}, fmt.Errorf("sale %s: %w", sale, err)
	}
	s.infos.Store(sale, in)
	return in, nil
}

// inSale runs fn in a transaction that holds the sale's lock shared: nothing of
// the sale can be cut under it.
func (s *Store) inSale(ctx context.Context, what string, sale engine.SaleID, fn func(tx pgx.Tx, in saleInfo) error) error {
	in, err := s.info(ctx, sale)
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	err = postgres.InTx(ctx, s.pool, func(tx pgx.Tx) error {
		if err := postgres.LockSaleShared(ctx, tx, sale); err != nil {
			return err
		}
		if err := s.mayLead(ctx, tx, in.no); err != nil {
			return err
		}
		return fn(tx, in)
	})
	if err != nil {
		return fmt.Errorf("%s sale %s: %w", what, sale, err)
	}
	return nil
}

// CreateSale writes a new sale, scheduled and of epoch 0: not loaded. Its State
// and Epoch are ignored, a Version of 0 becomes 1. ErrSaleExists if the id is
// taken. The definition is taken as it is: engine/control checks it.
func (s *Store) CreateSale(ctx context.Context, sale engine.Sale, note Note) error {
	err := postgres.InTx(ctx, s.pool, func(tx pgx.Tx) error {
		var no int32
		err := tx.QueryRow(ctx, `INSERT INTO sales (id, name, state, version, key_number, mode, payment, provider,
				currency, opens, closes, limit_buyer, limit_identity, hold_ms, replay_ms)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15) RETURNING no`,
			sale.ID, sale.Name, engine.SaleScheduled, max(sale.Version, 1), sale.KeyNumber, sale.Mode, sale.Payment, sale.Provider,
			sale.Currency, sale.Opens, sale.Closes, sale.LimitPerBuyer, sale.LimitPerIdentity,
			sale.HoldFor.Milliseconds(), sale.ReplayWindow.Milliseconds()).Scan(&no)
		if err != nil {
			return err
		}
		for i, it := range sale.Items {
			if err := insertItem(ctx, tx, no, i, it); err != nil {
				return err
			}
		}
		if _, err := tx.Exec(ctx, `INSERT INTO leads (sale_no) VALUES ($1)`, no); err != nil {
			return err
		}
		return writeTrail(ctx, tx, no, trailLine{what: "create"}, note)
	})
	var pg *pgconn.PgError
	if errors.As(err, &pg) && pg.Code == uniqueViolation && pg.ConstraintName == "sales_id_key" {
		return fmt.Errorf("create sale %s: %w", sale.ID, ErrSaleExists)
	}
	if err != nil {
		return fmt.Errorf("create sale %s: %w", sale.ID, err)
	}
	return nil
}

const uniqueViolation = "23505"

func insertItem(ctx context.Context, tx pgx.Tx, no int32, pos int, it engine.Item) error {
	_, err := tx.Exec(ctx, `INSERT INTO items (sale_no, sku, pos, name, price, units) VALUES ($1, $2, $3, $4, $5, $6)`,
		no, it.SKU, pos, it.Name, it.Price, it.Units)
	return err
}

type querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// Sale reads a sale, its items in the order they were given. ErrNoSale.
func (s *Store) Sale(ctx context.Context, id engine.SaleID) (engine.Sale, Status, error) {
	return readSale(ctx, s.pool, id)
}

func readSale(ctx context.Context, q querier, id engine.SaleID) (engine.Sale, Status, error) {
	sale := engine.Sale{ID: id}
	var st Status
	var no int32
	var holdMS, replayMS int64
	err := q.QueryRow(ctx, `SELECT no, name, state, epoch, frozen, version, key_number, mode, payment, provider, currency,
			opens, closes, limit_buyer, limit_identity, hold_ms, replay_ms, state_at, clock_timestamp() FROM sales WHERE id = $1`, id).
		Scan(&no, &sale.Name, &sale.State, &sale.Epoch, &st.Frozen, &sale.Version, &sale.KeyNumber, &sale.Mode, &sale.Payment,
			&sale.Provider, &sale.Currency, &sale.Opens, &sale.Closes, &sale.LimitPerBuyer, &sale.LimitPerIdentity,
			&holdMS, &replayMS, &st.Since, &st.Now)
	if errors.Is(err, pgx.ErrNoRows) {
		return engine.Sale{}, Status{}, fmt.Errorf("sale %s: %w", id, ErrNoSale)
	}
	if err != nil {
		return engine.Sale{}, Status{}, fmt.Errorf("sale %s: %w", id, err)
	}
	sale.Opens, sale.Closes, st.Since, st.Now = sale.Opens.UTC(), sale.Closes.UTC(), st.Since.UTC(), st.Now.UTC()
	sale.HoldFor, sale.ReplayWindow = time.Duration(holdMS)*time.Millisecond, time.Duration(replayMS)*time.Millisecond
	rows, err := q.Query(ctx, `SELECT sku, name, price, units, claimed FROM items WHERE sale_no = $1 ORDER BY pos, sku`, no)
	if err != nil {
		return engine.Sale{}, Status{}, fmt.Errorf("items of sale %s: %w", id, err)
	}
	var it engine.Item
	var claimed int64
	_, err = pgx.ForEachRow(rows, []any{&it.SKU, &it.Name, &it.Price, &it.Units, &claimed}, func() error {
		sale.Items = append(sale.Items, it)
		st.Claimed = append(st.Claimed, Claimed{SKU: it.SKU, Units: claimed})
		return nil
	})
	if err != nil {
		return engine.Sale{}, Status{}, fmt.Errorf("items of sale %s: %w", id, err)
	}
	return sale, st, nil
}

// Sales lists the sales in use: not settled.
func (s *Store) Sales(ctx context.Context) ([]engine.SaleID, error) {
	rows, err := s.pool.Query(ctx, `SELECT id FROM sales WHERE state <> $1 ORDER BY id`, engine.SaleSettled)
	if err != nil {
		return nil, fmt.Errorf("list sales: %w", err)
	}
	ids, err := pgx.CollectRows(rows, pgx.RowTo[engine.SaleID])
	if err != nil {
		return nil, fmt.Errorf("list sales: %w", err)
	}
	return ids, nil
}

// SetSaleState moves a sale along engine.NextSaleStates and writes the trail.
// Setting the state it has changes nothing and is no error, but who pauses a paused
// sale is heard after all who had seen it before: see ResumeSale. ErrNoSale, ErrState.
func (s *Store) SetSaleState(ctx context.Context, sale engine.SaleID, to engine.SaleState, note Note) error {
	return s.inSale(ctx, "set state of", sale, func(tx pgx.Tx, in saleInfo) error {
		from, err := lockState(ctx, tx, in.no)
		switch {
		case err != nil:
			return err
		case from == to && to == engine.SalePaused:
			_, err := tx.Exec(ctx, `UPDATE sales SET state_at = clock_timestamp() WHERE no = $1`, in.no)
			return err
		case from == to:
			return nil
		}
		return setState(ctx, tx, in.no, change{from, to, note})
	})
}

// ResumeSale opens a paused sale for who saw it in the state that it had since then
// (Status.Since). ErrState if its state was set after that, also if it was paused again:
// an answer can be lost while the transaction is still on its way, and whoever pauses the
// sale next must not be undone by it. No error if it is open. ErrNoSale.
func (s *Store) ResumeSale(ctx context.Context, sale engine.SaleID, since time.Time, note Note) error {
	return s.inSale(ctx, "resume", sale, func(tx pgx.Tx, in saleInfo) error {
		from, err := lockState(ctx, tx, in.no)
		if err != nil || from == engine.SaleOpen {
			return err
		}
		var at time.Time
		if err := tx.QueryRow(ctx, `SELECT state_at FROM sales WHERE no = $1`, in.no).Scan(&at); err != nil {
			return err
		}
		if from != engine.SalePaused || !at.Equal(since) {
			return fmt.Errorf("it is %s since %s, not paused since %s: %w", from, at.UTC(), since.UTC(), ErrState)
		}
		return setState(ctx, tx, in.no, change{from, engine.SaleOpen, note})
	})
}

// AdvanceSale is SetSaleState for who decided by the sale as he has seen it: ErrState
// if somebody has changed its state or its definition since.
func (s *Store) AdvanceSale(ctx context.Context, seen engine.Sale, to engine.SaleState, note Note) error {
	return s.inSale(ctx, "advance", seen.ID, func(tx pgx.Tx, in saleInfo) error {
		present, err := lockState(ctx, tx, in.no)
		if err != nil {
			return err
		}
		var version int64
		if err := tx.QueryRow(ctx, `SELECT version FROM sales WHERE no = $1`, in.no).Scan(&version); err != nil {
			return err
		}
		if present != seen.State || version != seen.Version {
			return fmt.Errorf("it is %s in version %d, not %s in %d: %w", present, version, seen.State, seen.Version, ErrState)
		}
		return setState(ctx, tx, in.no, change{present, to, note})
	})
}

func lockState(ctx context.Context, tx pgx.Tx, no int32) (state engine.SaleState, err error) {
	err = tx.QueryRow(ctx, `SELECT state FROM sales WHERE no = $1 FOR UPDATE`, no).Scan(&state)
	return state, err
}

// change is one of a sale's state.
type change struct {
	from, to engine.SaleState
	note     Note
}

func setState(ctx context.Context, tx pgx.Tx, no int32, c change) error {
	if !c.from.CanBecome(c.to) {
		return fmt.Errorf("%s to %s: %w", c.from, c.to, ErrState)
	}
	if _, err := tx.Exec(ctx, `UPDATE sales SET state = $2, state_at = clock_timestamp() WHERE no = $1`, no, c.to); err != nil {
		return err
	}
	if c.to == engine.SaleSettled {
		if err := endLead(ctx, tx, no); err != nil {
			return err
		}
	}
	return writeTrail(ctx, tx, no, trailLine{what: "state " + string(c.to)}, c.note)
}

// Redefine changes names, prices, limits, window, hold and replay times to those
// of def, raises the version by one and returns it. Items new to the sale are
// added without units (restock them); none is taken away. Units, currency, mode,
// payment, provider and key number stay as they are. ErrState if the sale is over, or its
// version is no longer def.Version: that may have come while this was on its way, and
// def says everything, also what another changed.
func (s *Store) Redefine(ctx context.Context, def engine.Sale, note Note) (version int64, err error) {
	err = s.inSale(ctx, "redefine", def.ID, func(tx pgx.Tx, in saleInfo) error {
		err := tx.QueryRow(ctx, `UPDATE sales SET name = $2, opens = $3, closes = $4, limit_buyer = $5, limit_identity = $6,
				hold_ms = $7, replay_ms = $8, version = version + 1 
				WHERE no = $1 AND version = $9 AND state NOT IN ('closed', 'settled') RETURNING version`,
			in.no, def.Name, def.Opens, def.Closes, def.LimitPerBuyer, def.LimitPerIdentity,
			def.HoldFor.Milliseconds(), def.ReplayWindow.Milliseconds(), def.Version).Scan(&version)
		if errors.Is(err, pgx.ErrNoRows) {
			return fmt.Errorf("it is over, or no longer in version %d: %w", def.Version, ErrState)
		}
		if err != nil {
			return err
		}
		for i, it := range def.Items {
			_, err := tx.Exec(ctx, `INSERT INTO items (sale_no, sku, pos, name, price, units) VALUES ($1, $2, $3, $4, $5, 0)
				ON CONFLICT (sale_no, sku) DO UPDATE SET pos = excluded.pos, name = excluded.name, price = excluded.price`,
				in.no, it.SKU, i, it.Name, it.Price)
			if err != nil {
				return err
			}
		}
		return writeTrail(ctx, tx, in.no, trailLine{what: "redefine"}, note)
	})
	return version, err
}
