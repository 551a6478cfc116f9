package orders

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/doorbuster/doorbuster/engine"
)

// Restock adds n units of a SKU and writes the move that takes them to Redis
// (PostgreSQL first: loosening). The move's id comes back. Calling again adds
// again. ErrNoSale, ErrNoSKU; ErrState if it would be more than engine.MaxUnits.
func (s *Store) Restock(ctx context.Context, sale engine.SaleID, sku engine.SKU, n int64, note Note) (move int64, err error) {
	if n < 1 || n > engine.MaxUnits {
		return 0, fmt.Errorf("restock sale %s: %d units: %w", sale, n, ErrState)
	}
	err = s.inSale(ctx, "restock", sale, func(tx pgx.Tx, in saleInfo) error {
		var units int64
		err := tx.QueryRow(ctx, `UPDATE items SET units = units + $3 WHERE sale_no = $1 AND sku = $2 RETURNING units`,
			in.no, sku, n).Scan(&units)
		if errors.Is(err, pgx.ErrNoRows) {
			return fmt.Errorf("sku %s: %w", sku, ErrNoSKU)
		}
		if err != nil {
			return err
		}
		if units > engine.MaxUnits {
			return fmt.Errorf("sku %s: %d units: %w", sku, units, ErrState)
		}
		move, err = writeSupply(ctx, tx, in.no, supply{engine.Restock, sku, n}, note)
		return err
	})
	return move, err
}

// RequestWithdraw writes the move that takes n unsold units out of Redis. The
// units change here only when it is marked, by what it took (tightening: Redis
// first). ErrNoSale, ErrNoSKU.
func (s *Store) RequestWithdraw(ctx context.Context, sale engine.SaleID, sku engine.SKU, n int64, note Note) (move int64, err error) {
	if n < 1 || n > engine.MaxUnits {
		return 0, fmt.Errorf("withdraw of sale %s: %d units: %w", sale, n, ErrState)
	}
	err = s.inSale(ctx, "withdraw of", sale, func(tx pgx.Tx, in saleInfo) error {
		var there bool
		err := tx.QueryRow(ctx, `SELECT EXISTS (SELECT FROM items WHERE sale_no = $1 AND sku = $2)`, in.no, sku).Scan(&there)
		if err != nil {
			return err
		}
		if !there {
			return fmt.Errorf("sku %s: %w", sku, ErrNoSKU)
		}
		move, err = writeSupply(ctx, tx, in.no, supply{engine.Withdraw, sku, n}, note)
		return err
	})
	return move, err
}

type supply struct {
	op  engine.MoveOp
	sku engine.SKU
	n   int64
}

func writeSupply(ctx context.Context, tx pgx.Tx, no int32, what supply, note Note) (move int64, err error) {
	if err := wake(ctx, tx, no); err != nil {
		return 0, err
	}
	lines := engine.AppendLines(nil, []engine.Line{{SKU: what.sku, Quantity: what.n}})
	err = tx.QueryRow(ctx, `INSERT INTO moves (sale_no, op, lines) VALUES ($1, $2, $3) RETURNING id`,
		no, what.op, string(lines)).Scan(&move)
	if err != nil {
		return 0, err
	}
	line := trailLine{what: what.op.String(), sku: what.sku, units: what.n, move: move}
	return move, writeTrail(ctx, tx, no, line, note)
}

// TrailEntry is one line of a sale's trail.
type TrailEntry struct {
	At       time.Time // UTC
	What     string    // "create", "state open", "redefine", "restock", "withdraw", "return"
	SKU      engine.SKU
	Units    int64
	Order    engine.OrderID
	MoveID   int64 // of a restock, withdraw or return
	Who, Why string
}

type trailLine struct {
	what  string
	sku   engine.SKU
	units int64
	order engine.OrderID
	move  int64
}

func writeTrail(ctx context.Context, tx pgx.Tx, no int32, l trailLine, note Note) error {
	_, err := tx.Exec(ctx, `INSERT INTO trail (sale_no, what, sku, units, order_id, move_id, who, why)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8)`, no, l.what, l.sku, l.units, l.order, l.move, note.Who, note.Why)
	return err
}

// Trail lists what was done to a sale by hand, newest first.
func (s *Store) Trail(ctx context.Context, sale engine.SaleID, limit int) ([]TrailEntry, error) {
	in, err := s.info(ctx, sale)
	if err != nil {
		return nil, fmt.Errorf("trail: %w", err)
	}
	rows, err := s.pool.Query(ctx, `SELECT at, what, sku, units, order_id, move_id, who, why FROM trail
		WHERE sale_no = $1 ORDER BY id DESC LIMIT $2`, in.no, limit)
	if err != nil {
		return nil, fmt.Errorf("trail of sale %s: %w", sale, err)
	}
	out, err := pgx.CollectRows(rows, func(r pgx.CollectableRow) (e TrailEntry, err error) {
		err = r.Scan(&e.At, &e.What, &e.SKU, &e.Units, &e.Order, &e.MoveID, &e.Who, &e.Why)
		e.At = e.At.UTC()
		return e, err
	})
	if err != nil {
		return nil, fmt.Errorf("trail of sale %s: %w", sale, err)
	}
	return out, nil
}
