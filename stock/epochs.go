package stock

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/redis/go-redis/v9"

	"github.com/doorbuster/doorbuster/engine"
)

// Beat raises the heartbeat number of an epoch. Doors look at the epoch in use
// only, so a leader that was overtaken beats where nobody looks. Call it only
// while PostgreSQL confirms the epoch. ErrNoSale if Redis has no such epoch: then
// no door has seen the number.
func (s *Store) Beat(ctx context.Context, sale engine.SaleID, epoch int64) error {
	key := keysOf(sale, epoch).state
	err := s.on(ctx, sale, func(c *redis.Client) error {
		n, err := c.HIncrBy(ctx, key, fieldHeartbeat, 1).Result()
		if err != nil || n > 1 {
			return err
		}
		alone, err := dropIfAlone(ctx, c, key)
		if err == nil && alone {
			return ErrNoSale
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("beat of sale %s: %w", sale, err)
	}
	return nil
}

// Freeze makes every script refuse this epoch for good. Without its state hash
// there is nothing to freeze. It calls no script: they may be what was lost.
func (s *Store) Freeze(ctx context.Context, sale engine.SaleID, epoch int64) error {
	key := keysOf(sale, epoch).state
	err := s.on(ctx, sale, func(c *redis.Client) error {
		if err := c.HSet(ctx, key, fieldState, stateFrozen).Err(); err != nil {
			return err
		}
		_, err := dropIfAlone(ctx, c, key)
		return err
	})
	if err != nil {
		return fmt.Errorf("freeze epoch %d of sale %s: %w", epoch, sale, err)
	}
	return nil
}

// dropIfAlone deletes a state hash whose only field the caller has just written:
// the epoch is gone, and so nobody would ever delete it.
// Not alone either if it is gone: then somebody else deleted it, fields and all.
func dropIfAlone(ctx context.Context, c *redis.Client, key string) (alone bool, err error) {
	n, err := c.HLen(ctx, key).Result()
	if err != nil || n != 1 {
		return false, err
	}
	return true, c.Unlink(ctx, key).Err()
}

// Epochs lists the epochs that may have keys, lowest first: those that a Build
// began and DropEpoch has not deleted.
func (s *Store) Epochs(ctx context.Context, sale engine.SaleID) (epochs []int64, err error) {
	var fields []string
	err = s.on(ctx, sale, func(c *redis.Client) (err error) {
		fields, err = c.HKeys(ctx, pointerKey(sale)).Result()
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("epochs of sale %s: %w", sale, err)
	}
	for _, f := range fields {
		if n, ok := strings.CutPrefix(f, fieldHas); ok {
			epoch, err := strconv.ParseInt(n, 10, 64)
			if err != nil {
				return nil, fmt.Errorf("epochs of sale %s: field %q", sale, f)
			}
			epochs = append(epochs, epoch)
		}
	}
	slices.Sort(epochs)
	return epochs, nil
}

// DropEpoch deletes the keys of an epoch that is not in use. It refuses the one
// in use. Redis frees the memory beside its work (UNLINK).
func (s *Store) DropEpoch(ctx context.Context, sale engine.SaleID, epoch int64) error {
	k := keysOf(sale, epoch)
	err := s.on(ctx, sale, func(c *redis.Client) error {
		inUse, err := c.HGet(ctx, pointerKey(sale), fieldEpoch).Int64()
		if err != nil && !errors.Is(err, redis.Nil) {
			return err
		}
		if inUse == epoch {
			return fmt.Errorf("it is in use")
		}
		if err := c.Unlink(ctx, k.all()...).Err(); err != nil {
			return err
		}
		return c.HDel(ctx, pointerKey(sale), fieldHas+strconv.FormatInt(epoch, 10)).Err()
	})
	if err != nil {
		return fmt.Errorf("drop epoch %d of sale %s: %w", epoch, sale, err)
	}
	return nil
}

// Loaded tells whether the server of the slot knows every script that the sale's
// state names, so that a restart is seen but a newer binary is not taken for one.
// Without a state of that incarnation it asks for this binary's scripts.
func (s *Store) Loaded(ctx context.Context, sale engine.SaleID, incarnation int64) (loaded bool, err error) {
	err = s.on(ctx, sale, func(c *redis.Client) error {
		shas := ScriptSHAs(incarnation)
		epoch, err := c.HGet(ctx, pointerKey(sale), fieldEpoch).Int64()
		if err != nil && !errors.Is(err, redis.Nil) {
			return err
		}
		state, err := c.HMGet(ctx, keysOf(sale, epoch).state, fieldInc, fieldSHA).Result()
		if err != nil {
			return err
		}
		if named, ok := state[1].(string); ok && state[0] == strconv.FormatInt(incarnation, 10) {
			shas = parseSHAs(named)
		}
		ask := slices.DeleteFunc(slices.Clone(shas[:]), func(sha string) bool { return sha == "" })
		have, err := c.ScriptExists(ctx, ask...).Result()
		loaded = !slices.Contains(have, false)
		return err
	})
	if err != nil {
		return false, fmt.Errorf("scripts of sale %s: %w", sale, err)
	}
	return loaded, nil
}

// Load loads this binary's scripts for that incarnation on the server of the
// slot. Twice is harmless. After Build it is the last step: from then on the sale
// sells.
func (s *Store) Load(ctx context.Context, sale engine.SaleID, incarnation int64) error {
	err := s.on(ctx, sale, func(c *redis.Client) error {
		pipe := c.Pipeline()
		for op := range NumOps {
			pipe.ScriptLoad(ctx, Text(op, incarnation))
		}
		_, err := pipe.Exec(ctx)
		return err
	})
	if err != nil {
		return fmt.Errorf("load scripts of sale %s: %w", sale, err)
	}
	return nil
}
