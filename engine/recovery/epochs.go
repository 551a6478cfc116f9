package recovery

import (
	"context"
	"time"
)

// dropAfter is how long the epoch before the present one keeps its keys after a
// rebuild, though nothing in them is needed: whoever began to read them may
// finish.
const dropAfter = time.Minute

// drop deletes the keys of an epoch in which PostgreSQL knows every hold, if its
// outbox is empty as well. It returns how many epochs it dropped: 0 or 1.
func (s *sweeper) drop(ctx context.Context, v *view, epoch int64) (int, error) {
	if epoch >= v.fence.Epoch || (epoch == v.fence.Epoch-1 && s.k.age(v.fence.Epoch) < dropAfter) {
		return 0, nil
	}
	_, left, err := s.k.r.cfg.Stock.Outbox(ctx, s.k.sale, epoch, 1)
	if err != nil || left > 0 {
		return 0, err
	}
	if err := s.k.r.cfg.Stock.DropEpoch(ctx, s.k.sale, epoch); err != nil {
		return 0, err
	}
	s.k.log.Info("dropped the keys of an old epoch", "epoch", epoch)
	return 1, nil
}
