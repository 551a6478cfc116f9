package chaos

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/doorbuster/doorbuster/engine/backing"
)

const (
	smallPostgres = 400 << 20 // bytes of disk: its cluster takes 60 MB, and keeps some WAL
	smallSpace    = 96 << 20
	roomForSale   = 48 << 20
	diskFull      = "No space left on device"
	spaceName     = "chaos_small"
)

// postgresOwnCells break a PostgreSQL of their own, whose disks are small.
func postgresOwnCells() []*Cell {
	const p = string(backing.PostgreSQL)
	return []*Cell{
		{Component: p, Fault: "disk-full", kind: p, hold: full, own: postgresOnSmallDisk, arm: nearlyFill, strike: fillPostgres, heal: freePostgres},
		{Component: p, Fault: "tablespace-full", kind: p, hold: full, own: postgresInSmallSpace, arm: nearlyFill, strike: fillPostgres, heal: freePostgres},
	}
}

// postgresOnSmallDisk brings a PostgreSQL that lies on a tmpfs with all it has.
func postgresOnSmallDisk(ctx context.Context, h *house) error {
	disk, err := h.cfg.smallDisk("postgresql-small", smallPostgres)
	if err != nil {
		return err
	}
	if err := unfill(disk); err != nil {
		return err
	}
	h.memory["disk"] = disk
	return h.ownPostgres(ctx, "postgresql-small/home")
}

func (h *house) ownPostgres(ctx context.Context, key string) error {
	s, err := h.cfg.ownServer(ctx, key, backing.PostgreSQL, backing.Config{})
	if err != nil {
		return err
	}
	h.memory["postgresql"], h.admin.Database = s, s.URLs().Database
	return nil
}

// postgresInSmallSpace brings one whose tables alone lie on a tmpfs: its log has room,
// so that it refuses what does not fit and goes on.
func postgresInSmallSpace(ctx context.Context, h *house) error {
	disk, err := h.cfg.smallDisk("postgresql-space", smallSpace)
	if err != nil {
		return err
	}
	if err := errors.Join(unfill(disk), h.ownPostgres(ctx, "postgresql-spacious")); err != nil {
		return err
	}
	s := h.memory["postgresql"].(*backing.Services)
	st, err := os.Stat(filepath.Join(s.Dir(backing.PostgreSQL), "data"))
	if err != nil {
		return err
	}
	who := st.Sys().(*syscall.Stat_t) // the server's account
	if err := errors.Join(os.Chown(disk, int(who.Uid), int(who.Gid)), os.Chmod(disk, 0o700)); err != nil {
		return err
	}
	there := false
	if err := queryOne(ctx, h.admin.Database, &there, "SELECT count(*) > 0 FROM pg_tablespace WHERE spcname = $1", spaceName); err != nil {
		return err
	}
	if !there {
		if err := execute(ctx, h.admin.Database, fmt.Sprintf("CREATE TABLESPACE %s LOCATION '%s'", spaceName, disk)); err != nil {
			return err
		}
	}
	h.memory["disk"], h.where = disk, " TABLESPACE "+spaceName
	return nil
}

// nearlyFill leaves room for a sale until the moment comes: taking all at once would
// take too long then.
func nearlyFill(_ context.Context, h *house) error {
	_, err := fill(h.memory["disk"].(string), roomForSale)
	return err
}

// fillPostgres leaves the server's disk no room. It may refuse writes, or, if its log
// is on that disk, die of it; either proves it.
func fillPostgres(ctx context.Context, h *house) (string, error) {
	n, err := fill(h.memory["disk"].(string), 0)
	if err != nil {
		return "", err
	}
	h.memory["full"] = n
	return fmt.Sprintf("the last %d bytes of the disk taken", n), nil
}

// freePostgres sees that a write fails, gives the room back, and starts the server
// again if it has died.
func freePostgres(ctx context.Context, h *house) (string, error) {
	disk, _ := h.memory["disk"].(string)
	if disk == "" {
		return "", nil
	}
	s := h.memory["postgresql"].(*backing.Services)
	var proof error
	if h.memory["full"] != nil {
		probe, stop := context.WithTimeout(ctx, 2*time.Second)
		proof = execute(probe, h.urls.Database, `CREATE TABLE chaos_probe AS SELECT n, md5(n::text) FROM generate_series(1, 20000) n`)
		stop()
	}
	died := s.PID(backing.PostgreSQL) == 0
	if err := errors.Join(unfill(disk), s.Start(ctx, backing.PostgreSQL)); err != nil {
		return "", err
	}
	if h.memory["full"] == nil {
		return "", nil
	}
	log, err := os.ReadFile(filepath.Join(s.Dir(backing.PostgreSQL), "out.log"))
	if err != nil {
		return "", err
	}
	said := strings.Count(string(log), diskFull)
	if proof == nil || said == 0 {
		return "", unproven("a write was answered %v, the server's log tells %d times of a full disk", proof, said)
	}
	end := "a write was refused: " + firstLine(proof.Error())
	if died {
		end = "the server died of it and was started again"
	}
	return end, nil
}

func firstLine(text string) string {
	line, _, _ := strings.Cut(text, "\n")
	return line
}
