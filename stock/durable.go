package stock

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/doorbuster/doorbuster/engine"
)

// Safety says what a sale of durable mode waits for after a call of Reserve or
// Retake, before anybody may hear of it. It stands in the state hash: Build writes
// what the server can do, Secure adds a replica. The zero value is standard mode.
type Safety struct {
	Durable bool // Redis writes to disk before it answers: see CheckDurable
	WaitAOF bool // and tells that it did (WAITAOF, Redis 7.2 or later)
	Replica bool // one replica must have it too (WAIT 1)
}

const (
	// syncMost bounds each wait for the disk or a replica. It is far above what
	// either takes, and below the door's patience with a script.
	syncMost = 500 * time.Millisecond

	// barrierFor is how long the key lives that a waiting call writes.
	barrierFor = time.Minute

	// waitAOFSince is the first version of Redis that has WAITAOF.
	waitAOFMajor, waitAOFMinor = 7, 2
)

var (
	// ErrUnsafe says that the call was done and its Decision is filled in, but
	// neither disk nor replica said in time that they have it: what it took may
	// be lost with the server. Nobody may hear 202; to ask again is safe.
	ErrUnsafe = errors.New("stock: taken, but not known to be safe")

	// ErrNotDurable says that Redis is not set as durable sales need it.
	ErrNotDurable = errors.New("stock: Redis is not set for durable sales")
)

// waits tells whether a call has to wait for more than its reply: with
// appendfsync always Redis replies after the write to disk.
func (f Safety) waits() bool { return f.WaitAOF || f.Replica }

// String writes it as the state hash keeps it: d, a and r, "" for standard mode.
func (f Safety) String() string {
	var b strings.Builder
	for _, one := range []struct {
		set    bool
		letter byte
	}{{f.Durable, 'd'}, {f.WaitAOF, 'a'}, {f.Replica, 'r'}} {
		if one.set {
			b.WriteByte(one.letter)
		}
	}
	return b.String()
}

func parseSafety(s string) Safety {
	return Safety{Durable: strings.Contains(s, "d"), WaitAOF: strings.Contains(s, "a"), Replica: strings.Contains(s, "r")}
}

// CheckDurable tells whether the server of the sale's slot writes to disk before
// it answers: ErrNotDurable, with what to set, if it does not.
func (s *Store) CheckDurable(ctx context.Context, sale engine.SaleID) error {
	var has map[string]string
	var addr string
	err := s.on(ctx, sale, func(c *redis.Client) (err error) {
		addr = c.Options().Addr
		has, err = c.ConfigGet(ctx, "append*").Result()
		return err
	})
	if err != nil {
		return fmt.Errorf("check that Redis is set for the durable sale %s (it must allow CONFIG GET): %w", sale, err)
	}
	if has["appendonly"] != "yes" || has["appendfsync"] != "always" {
		return fmt.Errorf("sale %s: %w: Redis at %s has appendonly %s and appendfsync %s, want yes and always: "+
			"CONFIG SET both and write them to redis.conf (private servers: doorbuster up --fsync always), or make the sale's mode standard",
			sale, ErrNotDurable, addr, has["appendonly"], has["appendfsync"])
	}
	return nil
}

// Secure adds the replica to what a durable sale waits for, if its server has one
// by now, and returns what stands then. Only the next Build takes it away: a
// replica that is cut off looks like one that is gone, and is promoted.
func (s *Store) Secure(ctx context.Context, sale engine.SaleID, g Grip) (Safety, error) {
	is := g.Safety
	if !is.Durable || is.Replica {
		return is, nil
	}
	key := keysOf(sale, g.Epoch).state
	err := s.on(ctx, sale, func(c *redis.Client) error {
		now, err := safetyOf(ctx, c)
		if err != nil || !now.Replica {
			return err
		}
		if err := c.HSet(ctx, key, fieldSafety, now.String()).Err(); err != nil {
			return err
		}
		is = now
		_, err = dropIfAlone(ctx, c, key)
		return err
	})
	if err != nil {
		return g.Safety, fmt.Errorf("secure sale %s: %w", sale, err)
	}
	return is, nil
}

// safetyOf is what a durable sale can wait for on this server.
func safetyOf(ctx context.Context, c redis.Cmdable) (Safety, error) {
	pipe := c.Pipeline()
	server, replication := pipe.Info(ctx, "server"), pipe.Info(ctx, "replication")
	if _, err := pipe.Exec(ctx); err != nil {
		return Safety{}, err
	}
	return Safety{
		Durable: true, WaitAOF: hasWaitAOF(infoField(server.Val(), "redis_version")), Replica: hasReplica(replication.Val()),
	}, nil
}

func hasWaitAOF(version string) bool {
	major, rest, _ := strings.Cut(version, ".")
	minor, _, _ := strings.Cut(rest, ".")
	a, err1 := strconv.Atoi(major)
	b, err2 := strconv.Atoi(minor)
	return err1 == nil && err2 == nil && (a > waitAOFMajor || a == waitAOFMajor && b >= waitAOFMinor)
}

// hasReplica reads lines as "slave0:ip=…,port=…,state=online,offset=…,lag=…".
func hasReplica(info string) bool {
	for line := range strings.SplitSeq(info, "\r\n") {
		if strings.HasPrefix(line, "slave") && strings.Contains(line, ",state=online,") {
			return true
		}
	}
	return false
}

// evalSafely calls the script and waits as the grip says, all in one round trip on
// one connection: WAIT and WAITAOF speak of what their own connection wrote. A call
// that only repeats writes nothing, and need not count (in 7.0 it does), but what it
// tells may have been written a moment ago by another connection. So a key of no
// meaning is written after each.
func (s *Store) evalSafely(ctx context.Context, q *question, args []any) (reply any, doubt, err error) {
	sha, safety := q.grip.SHA[OpReserve], q.grip.Safety
	if !safety.waits() || sha == "" {
		reply, err = s.eval(ctx, q.sale, sha, args)
		return reply, nil, err
	}
	args[0], args[1] = "evalsha", sha
	err = s.on(ctx, q.sale, func(c *redis.Client) error {
		pipe, cmd := c.Pipeline(), redis.NewCmd(ctx, args...)
		_ = pipe.Process(ctx, cmd)
		barrier := pipe.Set(ctx, keysOf(q.sale, q.grip.Epoch).barrier, 1, barrierFor)
		var disk, replica *redis.Cmd
		if safety.WaitAOF {
			disk = pipe.Do(ctx, "waitaof", 1, 0, syncMost.Milliseconds())
		}
		if safety.Replica {
			replica = pipe.Do(ctx, "wait", 1, syncMost.Milliseconds())
		}
		_, _ = pipe.Exec(ctx) // each command has its own error
		reply, doubt = cmd.Val(), errors.Join(barrier.Err(), onDisk(disk), onReplica(replica))
		return cmd.Err()
	})
	return reply, doubt, refusal(err)
}

func onDisk(cmd *redis.Cmd) error {
	if cmd == nil {
		return nil
	}
	n, err := cmd.Int64Slice()
	if err == nil && (len(n) == 0 || n[0] < 1) {
		err = fmt.Errorf("not on the disk within %v", syncMost)
	}
	return err
}

func onReplica(cmd *redis.Cmd) error {
	if cmd == nil {
		return nil
	}
	n, err := cmd.Int64()
	if err == nil && n < 1 {
		err = fmt.Errorf("no replica has it within %v", syncMost)
	}
	return err
}
