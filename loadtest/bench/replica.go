package bench

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/doorbuster/doorbuster/engine/backing"
	"github.com/doorbuster/doorbuster/stock"
)

const replicaSync = time.Minute // for a replica to have everything, or the server to see it gone

var errReplica = errors.New("the replica did not come or go in time")

// replica is a Redis of the bench's own that follows the one that is measured while it
// is told to.
type replica struct {
	services *backing.Services
	rdb      redis.UniversalClient
	host     string // of the one that is measured
	port     string
}

func (b *bench) openReplica(ctx context.Context) (_ *replica, err error) {
	master, err := url.Parse(b.cfg.Redis)
	if err != nil {
		return nil, err
	}
	r := &replica{host: master.Hostname(), port: master.Port()}
	r.services, err = backing.Up(ctx, backing.Config{
		Dir:  filepath.Join(b.cfg.Dir, "replica"),
		URLs: backing.URLs{AMQP: b.cfg.AMQP, Database: b.cfg.Database}, // its Redis alone is wanted
	})
	if err != nil {
		return nil, err
	}
	if r.rdb, err = stock.Open(r.services.URLs().Redis); err != nil {
		return nil, errors.Join(err, r.close(ctx))
	}
	if password, given := master.User.Password(); given {
		err = r.rdb.ConfigSet(ctx, "masterauth", password).Err()
	}
	// Else the one that is measured waits 5 s for more replicas.
	if err = errors.Join(err, b.rdb.ConfigSet(ctx, "repl-diskless-sync-delay", "0").Err()); err != nil {
		return nil, errors.Join(err, r.close(ctx))
	}
	return r, nil
}

func (r *replica) close(ctx context.Context) error {
	var err error
	if r.rdb != nil {
		err = r.rdb.Close()
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
	defer cancel()
	return errors.Join(err, r.services.Remove(ctx))
}

// follow lets the replica follow the one that is measured, or ends that, and waits
// until that one sees it so and the replica has written down what it was sent.
func (b *bench) follow(ctx context.Context, r *replica, on bool) error {
	args := []any{"REPLICAOF", "NO", "ONE"}
	if on {
		args = []any{"REPLICAOF", r.host, r.port}
	}
	if err := r.rdb.Do(ctx, args...).Err(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, replicaSync)
	defer cancel()
	for {
		settled, err := b.follows(ctx, r, on)
		if err == nil && settled {
			return nil
		}
		if !pause(ctx, poll) {
			return fmt.Errorf("%w: %w", errReplica, errors.Join(ctx.Err(), err))
		}
	}
}

// follows tells whether the replica follows, or does not, and has nothing to do but that.
func (b *bench) follows(ctx context.Context, r *replica, on bool) (bool, error) {
	master, err := b.rdb.Info(ctx, "replication").Result()
	if err != nil {
		return false, err
	}
	if !on {
		return infoField(master, "connected_slaves") == "0", nil
	}
	disk, err := r.rdb.Info(ctx, "persistence").Result()
	return strings.Contains(master, ",state=online,") &&
		infoField(disk, "aof_rewrite_in_progress") == "0" && infoField(disk, "aof_rewrite_scheduled") == "0", err
}
