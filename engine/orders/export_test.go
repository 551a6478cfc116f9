package orders

import (
	"context"

	"github.com/jackc/pgx/v5"

	"github.com/doorbuster/doorbuster/engine"
)

// NameOf is the name of a leader.
func NameOf(l *Leader) string { return l.name }

// MayLead is the fence of a store under a lead.
func MayLead(ctx context.Context, s *Store, tx pgx.Tx, sale engine.SaleID) error {
	in, err := s.info(ctx, sale)
	if err != nil {
		return err
	}
	return s.mayLead(ctx, tx, in.no)
}
