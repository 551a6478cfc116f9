package chaos

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/doorbuster/doorbuster/engine/backing"
)

// quick is how long a loss lasts that nobody has to mend by hand.
var quick = span{200 * time.Millisecond, time.Second}

// full is how long a server stays full or mute.
var full = span{time.Second, 4 * time.Second}

func redisCells() []*Cell {
	const r = string(backing.Redis)
	cells := []*Cell{
		{Component: r, Fault: "empty-start", drops: inRedis, hold: quick, strike: killServer(backing.Redis), heal: startEmpty},
		{Component: r, Fault: "script-flush", hold: quick, strike: flushScripts, heal: nothing},
		{Component: r, Fault: "aof-1s", drops: inRedis, hold: quick, strike: killServer(backing.Redis), heal: startCut(time.Second)},
		{Component: r, Fault: "aof-2s", drops: inRedis, hold: quick, strike: killServer(backing.Redis), heal: startCut(2 * time.Second)},
		{Component: r, Fault: "maxmemory", hold: full, strike: fillMemory, heal: freeMemory},
		{Component: r, Fault: "rewrite", hold: full, strike: rewrite, heal: rewritten},
		{Component: r, Fault: "rewrite-killed", hold: away, strike: killRewriting, heal: startServer(backing.Redis)},
		{Component: r, Fault: "flushall", drops: inRedis, hold: quick, strike: flushAll, heal: nothing},
		{Component: r, Fault: "connections-closed", hold: quick, strike: closeClients, heal: nothing},
	}
	for _, c := range cells {
		c.kind, c.lossy = r, true
	}
	return cells
}

func nothing(context.Context, *house) (string, error) { return "", nil }

// startEmpty brings Redis back with nothing in it.
func startEmpty(ctx context.Context, h *house) (string, error) {
	if h.memory["pid"] == nil {
		return startServer(backing.Redis)(ctx, h)
	}
	if err := h.cfg.Services.Wipe(ctx, backing.Redis); err != nil {
		return "", err
	}
	proof, err := startServer(backing.Redis)(ctx, h)
	if err != nil {
		return "", err
	}
	n, err := h.rdb.DBSize(ctx).Result()
	return fmt.Sprintf("%s, %d keys soon after", proof, n), err
}

func flushScripts(ctx context.Context, h *house) (string, error) {
	w, err := h.stock.Watch(ctx, h.sale.ID, 0)
	if err != nil {
		return "", err
	}
	if err := h.rdb.ScriptFlush(ctx).Err(); err != nil {
		return "", err
	}
	have, err := h.rdb.ScriptExists(ctx, w.SHA[0]).Result()
	if err != nil || have[0] {
		return "", errors.Join(err, unproven("script %s is still there", w.SHA[0]))
	}
	return "script " + w.SHA[0][:8] + " is gone", nil
}

func closeClients(ctx context.Context, h *house) (string, error) {
	n, err := h.rdb.Do(ctx, "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes").Int64()
	if err == nil && n == 0 {
		err = unproven("no connection was there")
	}
	return fmt.Sprintf("%d connections closed", n), err
}

// startCut brings Redis back as a power cut would have left it: its log ends so long
// before its death. kill -9 alone loses nothing, the page cache has it all.
func startCut(lost time.Duration) deed {
	return func(ctx context.Context, h *house) (string, error) {
		if h.memory["pid"] == nil {
			return startServer(backing.Redis)(ctx, h)
		}
		cut, kept, err := truncate(filepath.Join(h.cfg.Services.Dir(backing.Redis), "data", "appendonlydir"), lost)
		if err != nil {
			return "", errors.Join(err, h.cfg.Services.Start(ctx, backing.Redis))
		}
		proof, err := startServer(backing.Redis)(ctx, h)
		if err == nil && cut == 0 {
			err = unproven("nothing was cut off the log")
		}
		return fmt.Sprintf("%s, %d of %d bytes cut off", proof, cut, cut+kept), err
	}
}

// stamp begins the lines by which Redis (aof-timestamp-enabled, since 7.0) tells in
// its log when what follows was done, in Unix seconds.
const stamp = "\r\n#TS:"

// truncate cuts the newest log at the first stamp that is younger than lost before
// the newest one.
func truncate(dir string, lost time.Duration) (cut, kept int, err error) {
	logs, err := filepath.Glob(filepath.Join(dir, "*.incr.aof"))
	if err != nil || len(logs) == 0 {
		return 0, 0, fmt.Errorf("no log in %s: %w", dir, errors.Join(err, os.ErrNotExist))
	}
	newest := logs[0]
	for _, l := range logs[1:] {
		if serial(l) > serial(newest) {
			newest = l
		}
	}
	b, err := os.ReadFile(newest)
	if err != nil {
		return 0, 0, err
	}
	last := int64(0)
	end := len(b)
	for at := len(b); ; {
		at = bytes.LastIndex(b[:at], []byte(stamp))
		if at < 0 {
			break
		}
		digits, _, _ := strings.Cut(string(b[at+len(stamp):min(at+len(stamp)+16, len(b))]), "\r")
		ts, err := strconv.ParseInt(digits, 10, 64)
		if err != nil {
			continue // in somebody's value
		}
		if last == 0 {
			last = ts
		}
		if ts <= last-int64(lost/time.Second) {
			break
		}
		end = at + len("\r\n")
	}
	return len(b) - end, end, os.Truncate(newest, int64(end))
}

// serial is the number in the name of a log: appendonly.aof.12.incr.aof.
func serial(path string) int {
	parts := strings.Split(filepath.Base(path), ".")
	if len(parts) < 3 {
		return 0
	}
	n, _ := strconv.Atoi(parts[len(parts)-3])
	return n
}

// fillMemory makes Redis refuse every write from now on.
func fillMemory(ctx context.Context, h *house) (string, error) {
	if err := h.rdb.ConfigSet(ctx, "maxmemory", "1").Err(); err != nil {
		return "", err
	}
	err := h.rdb.Set(ctx, "chaos:full", "1", 0).Err()
	if err == nil || !strings.Contains(err.Error(), "OOM") {
		return "", unproven("a write was answered %v", err)
	}
	return "a write was refused with OOM", nil
}

func freeMemory(ctx context.Context, h *house) (string, error) {
	return "", h.rdb.ConfigSet(ctx, "maxmemory", "0").Err()
}

func rewrite(ctx context.Context, h *house) (string, error) {
	before, err := h.info(ctx, "aof_rewrites")
	if err != nil {
		return "", err
	}
	h.memory["rewrites"] = before
	return "", h.rdb.BgRewriteAOF(ctx).Err()
}

func rewritten(ctx context.Context, h *house) (string, error) {
	before, struck := h.memory["rewrites"].(int64)
	if !struck {
		return "", nil
	}
	after, err := h.info(ctx, "aof_rewrites")
	if err == nil && after <= before {
		err = unproven("no rewrite was begun")
	}
	return fmt.Sprintf("rewrites %d → %d", before, after), err
}

// killRewriting kills Redis in the middle of a rewrite of its log, which is made to
// take a second for every key.
func killRewriting(ctx context.Context, h *house) (string, error) {
	if err := h.rdb.ConfigSet(ctx, "rdb-key-save-delay", "1000000").Err(); err != nil { // microseconds
		return "", err
	}
	if err := h.rdb.BgRewriteAOF(ctx).Err(); err != nil {
		return "", err
	}
	under, err := h.info(ctx, "aof_rewrite_in_progress")
	if err == nil && under == 0 {
		err = unproven("no rewrite was under way")
	}
	if err != nil {
		return "", err
	}
	proof, err := killServer(backing.Redis)(ctx, h)
	return proof + " while it rewrote its log", err
}

// flushAll deletes everything but the scripts, which stay: nothing says NOSCRIPT.
func flushAll(ctx context.Context, h *house) (string, error) {
	n, err := h.rdb.DBSize(ctx).Result()
	if err != nil {
		return "", err
	}
	if n == 0 {
		return "", unproven("there were no keys")
	}
	return fmt.Sprintf("%d keys deleted", n), h.rdb.FlushAll(ctx).Err()
}

// info reads a number of INFO.
func (h *house) info(ctx context.Context, field string) (int64, error) {
	text, err := h.rdb.Info(ctx, "everything").Result()
	if err != nil {
		return 0, err
	}
	_, rest, found := strings.Cut(text, "\n"+field+":")
	if !found {
		return 0, fmt.Errorf("INFO says nothing of %s", field)
	}
	digits, _, _ := strings.Cut(rest, "\r")
	return strconv.ParseInt(digits, 10, 64)
}
