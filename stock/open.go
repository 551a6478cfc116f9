package stock

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"

	"github.com/doorbuster/doorbuster/engine"
)

// Bounds of the connection to Redis. A door rather says 503 than waits.
const (
	dialTimeout = time.Second
	ioTimeout   = 2 * time.Second
	poolTimeout = 500 * time.Millisecond
	poolSize    = 64
	maxMoves    = 5                      // times that a call follows a slot to another node
	movePause   = 100 * time.Millisecond // until the new map of the slots is there
)

// Open returns a client with the options this package needs. The url is
// redis://[user:password@]host:port/db (rediss for TLS), or several of them
// separated by commas for a Redis Cluster, of which the first gives user and
// password. It does not connect: the first call does.
//
// No call is ever repeated by the client itself (it would repeat after an EOF,
// when the script may have run), the context bounds every call, and nothing that
// Redis 7.0 does not know is sent.
func Open(url string) (redis.UniversalClient, error) { return OpenPool(url, poolSize) }

// OpenPool is Open with a pool of so many connections per server: for those who
// must not wait in the doors' pool, nor doors in theirs.
func OpenPool(url string, conns int) (redis.UniversalClient, error) {
	hosts := strings.Split(url, ",")
	opt, err := redis.ParseURL(hosts[0])
	if err != nil {
		return nil, fmt.Errorf("redis url: %w", err)
	}
	quiet := &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}
	if len(hosts) == 1 {
		opt.MaxRetries, opt.DisableIdentity, opt.MaintNotificationsConfig, opt.Protocol = -1, true, quiet, 2
		opt.DialTimeout, opt.ReadTimeout, opt.WriteTimeout = dialTimeout, ioTimeout, ioTimeout
		opt.DialerRetries, opt.PoolTimeout, opt.PoolSize, opt.ContextTimeoutEnabled = 1, poolTimeout, conns, true
		return redis.NewClient(opt), nil
	}
	addrs := []string{opt.Addr}
	for _, h := range hosts[1:] {
		if !strings.Contains(h, "://") {
			h = "redis://" + h
		}
		o, err := redis.ParseURL(h)
		if err != nil {
			return nil, fmt.Errorf("redis url: %w", err)
		}
		addrs = append(addrs, o.Addr)
	}
	return redis.NewClusterClient(&redis.ClusterOptions{
		Addrs: addrs, Username: opt.Username, Password: opt.Password, TLSConfig: opt.TLSConfig,
		MaxRetries: -1, MaxRedirects: -1, DisableIdentity: true, MaintNotificationsConfig: quiet, Protocol: 2,
		DialTimeout: dialTimeout, ReadTimeout: ioTimeout, WriteTimeout: ioTimeout,
		DialerRetries: 1, PoolTimeout: poolTimeout, PoolSize: conns, ContextTimeoutEnabled: true,
	}), nil
}

// Store is the Go face of the scripts. Safe for use by many goroutines.
type Store struct {
	rdb        redis.UniversalClient
	unreadable func(Unreadable) // nil: nobody wants to know
}

// New returns a store over the client; Open makes one with the right options. The
// caller closes it, after the last call.
func New(rdb redis.UniversalClient) *Store { return &Store{rdb: rdb} }

// on calls f with the server that is master of the sale's slot. Reads go there
// too: a replica may be behind. If the slot has moved (then nothing was done) it
// asks the cluster again and repeats.
func (s *Store) on(ctx context.Context, sale engine.SaleID, f func(c *redis.Client) error) error {
	switch rdb := s.rdb.(type) {
	case *redis.Client:
		return f(rdb)
	case *redis.ClusterClient:
		return onMaster(ctx, rdb, pointerKey(sale), f)
	default:
		return fmt.Errorf("stock: a %T is neither a client of one Redis nor of a cluster", rdb)
	}
}

func onMaster(ctx context.Context, rdb *redis.ClusterClient, key string, f func(c *redis.Client) error) error {
	for try := 1; ; try++ {
		c, err := rdb.MasterForKey(ctx, key)
		if err != nil {
			return fmt.Errorf("find master of %s: %w", key, err)
		}
		if err = f(c); err == nil {
			return nil
		}
		_, moved := redis.IsMovedError(err)
		if !moved && !redis.IsReadOnlyError(err) && answered(err) {
			return err // the map of the slots is right
		}
		rdb.ReloadState(ctx)
		if !moved || try > maxMoves {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(movePause):
		}
	}
}

// answered tells whether the server was reached.
func answered(err error) bool {
	var reply redis.Error
	return errors.As(err, &reply) || errors.Is(err, ErrNoSale) || errors.Is(err, ErrFenced)
}

// eval calls the script of an operation by its SHA. There is no fallback to its
// text: NOSCRIPT is the fence. args are SHA-less: eval sets the first two.
func (s *Store) eval(ctx context.Context, sale engine.SaleID, sha string, args []any) (any, error) {
	if sha == "" {
		return nil, fmt.Errorf("%w: the epoch was built by a version without this operation", ErrFenced)
	}
	args[0], args[1] = "evalsha", sha
	var reply any
	err := s.on(ctx, sale, func(c *redis.Client) error {
		cmd := redis.NewCmd(ctx, args...)
		err := c.Process(ctx, cmd)
		reply = cmd.Val()
		return err
	})
	return reply, refusal(err)
}

// refusal turns the scripts' refusals into this package's errors.
func refusal(err error) error {
	if err == nil {
		return nil
	}
	for _, r := range refusals {
		if redis.HasErrorPrefix(err, r.prefix) {
			return fmt.Errorf("%w: %w", r.err, err)
		}
	}
	return err
}

var refusals = []struct {
	prefix string
	err    error
}{
	{"NOSCRIPT", ErrFenced},
	{"FENCED", ErrFenced},
	{"STALE", ErrStale},
	{"NOITEM", ErrNoItem},
}
