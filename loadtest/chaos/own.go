package chaos

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/doorbuster/doorbuster/engine/backing"
	"github.com/doorbuster/doorbuster/loadtest/proxy"
)

// ownBoot is how long a server of a cell's own may take to come up.
const ownBoot = 45 * time.Second

// annex holds the servers that cells bring of their own: a Redis whose clock is
// wrong, a PostgreSQL on a small disk, a cluster. They are kept until the last run
// has ended, because some take seconds to start.
type annex struct {
	mu     sync.Mutex
	made   map[string]*backing.Services
	mounts []string
	root   string // where they lie; "" as long as there were none
}

// ownRoot is where they lie: beside the data of the servers of all runs, where the
// servers' accounts can reach it.
func (c *Config) ownRoot() (string, error) {
	dir := c.Services.Dir(backing.Redis)
	if dir == "" {
		return "", errors.New("this cell starts servers of its own, and Redis here is no process of ours: leave REDIS_URL unset, and let its program be on this machine")
	}
	root := filepath.Join(filepath.Dir(dir), "own")
	c.annex.mu.Lock()
	c.annex.root = root
	c.annex.mu.Unlock()
	return root, os.MkdirAll(root, 0o755) // their accounts walk through it
}

// ownServer brings up a server of a cell's own, and finds it there the next time.
// name says which of the three is its own, the others are those of all runs.
func (c *Config) ownServer(ctx context.Context, key string, name backing.Name, as backing.Config) (*backing.Services, error) {
	root, err := c.ownRoot()
	if err != nil {
		return nil, err
	}
	as.Dir, as.URLs, as.NoInstall = filepath.Join(root, key), c.Services.URLs(), true
	switch name {
	case backing.Redis:
		as.URLs.Redis = ""
	case backing.RabbitMQ:
		as.URLs.AMQP = ""
	case backing.PostgreSQL:
		as.URLs.Database = ""
	}
	c.annex.mu.Lock()
	defer c.annex.mu.Unlock()
	if was := c.annex.made[key]; was != nil { // a run that broke off may have left it stopped
		if _, err := was.Resume(ctx, name); err != nil {
			return nil, fmt.Errorf("own %s: %w", name, err)
		}
	}
	ctx, stop := context.WithTimeout(ctx, ownBoot)
	defer stop()
	s, err := backing.Up(ctx, as)
	if err != nil {
		return nil, fmt.Errorf("own %s: %w", name, err)
	}
	c.annex.made[key] = s
	return s, nil
}

// smallDisk mounts a tmpfs of so many bytes, and finds it there the next time.
func (c *Config) smallDisk(key string, size int64) (string, error) {
	root, err := c.ownRoot()
	if err != nil {
		return "", err
	}
	at := filepath.Join(root, key)
	c.annex.mu.Lock()
	defer c.annex.mu.Unlock()
	for _, m := range c.annex.mounts {
		if m == at {
			return at, nil
		}
	}
	if err := os.MkdirAll(at, 0o755); err != nil {
		return "", err
	}
	for syscall.Unmount(at, syscall.MNT_DETACH) == nil { // of a process that was killed
	}
	if err := syscall.Mount("tmpfs", at, "tmpfs", 0, fmt.Sprintf("size=%d,mode=0755", size)); err != nil {
		return "", fmt.Errorf("mount a tmpfs at %s: %w: this cell fills a small disk; run it as root, in a container with CAP_SYS_ADMIN", at, err)
	}
	c.annex.mounts = append(c.annex.mounts, at)
	return at, nil
}

// close ends all of them, and their disks.
func (a *annex) close(ctx context.Context) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	var errs []error
	for key, s := range a.made {
		errs = append(errs, s.Remove(ctx))
		delete(a.made, key)
	}
	for _, at := range a.mounts {
		if err := syscall.Unmount(at, syscall.MNT_DETACH); err != nil {
			errs = append(errs, fmt.Errorf("unmount %s: %w", at, err))
		}
	}
	a.mounts = nil
	if a.root != "" && errors.Join(errs...) == nil {
		errs = append(errs, os.RemoveAll(a.root))
	}
	return errors.Join(errs...)
}

// forget ends a server that the next run must not find as it is.
func (c *Config) forget(ctx context.Context, key string, s *backing.Services) error {
	c.annex.mu.Lock()
	defer c.annex.mu.Unlock()
	delete(c.annex.made, key)
	return s.Remove(ctx)
}

// closing ends a proxy with the run.
func closing(p *proxy.Proxy) func(context.Context) error {
	return func(context.Context) error { p.Close(); return nil }
}

// fillName is the file that takes what a small disk has left.
const fillName = "filler"

// fill takes all that is left of the disk at dir but for so many bytes, and says how
// much it has now. Others take of it meanwhile: what is had is kept, and then the rest
// is asked for.
func fill(dir string, leave int64) (taken int64, err error) {
	f, err := os.OpenFile(filepath.Join(dir, fillName), os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if taken, err = f.Seek(0, io.SeekEnd); err != nil {
		return 0, err
	}
	for size := int64(0); ; {
		var st syscall.Statfs_t
		if err := syscall.Statfs(dir, &st); err != nil {
			return taken, err
		}
		left := int64(st.Bavail)*st.Bsize - leave
		if left <= 0 {
			return taken, nil
		}
		if size == 0 || size > left {
			size = left
		}
		switch err := syscall.Fallocate(int(f.Fd()), 0, taken, size); {
		case err == nil:
			taken += size
		case errors.Is(err, syscall.ENOSPC):
			size = max(size/2, st.Bsize)
		case !errors.Is(err, syscall.EINTR):
			return taken, err
		}
	}
}

// unfill gives it back.
func unfill(dir string) error {
	err := os.Remove(filepath.Join(dir, fillName))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}
