package stock

import (
	"context"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/doorbuster/doorbuster/engine"
)

// Retire marks an epoch as that of a settled sale and lets its records and
// counters go after keep; its state hash stays, so that a door goes on to say that
// the sale is closed. The next epoch is built without the mark. Twice is harmless.
// It calls no script; an epoch that is gone stays gone.
func (s *Store) Retire(ctx context.Context, sale engine.SaleID, epoch int64, keep time.Duration) error {
	k := keysOf(sale, epoch)
	err := s.on(ctx, sale, func(c *redis.Client) error {
		pipe := c.TxPipeline()
		pipe.HSet(ctx, k.state, fieldRetired, 1)
		for _, key := range []string{k.records, k.buyers, k.identities, k.outbox, k.rows} {
			pipe.PExpire(ctx, key, keep)
		}
		if _, err := pipe.Exec(ctx); err != nil {
			return err
		}
		_, err := dropIfAlone(ctx, c, k.state)
		return err
	})
	if err != nil {
		return fmt.Errorf("retire epoch %d of sale %s: %w", epoch, sale, err)
	}
	return nil
}
